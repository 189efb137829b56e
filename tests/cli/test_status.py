"""`decant status`: what it says, to a person and to a program, once and while others work."""

from __future__ import annotations

import fcntl
import itertools
import json
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from decant.cache import LogitCacheWriter, Store
from decant.pipeline.cli.main import decant as commands
from decant.pipeline.cli.options import duration
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import RESULT
from tests.helpers.commands import decant, only, refused, start
from tests.helpers.processes import PATIENCE, line, wait_until
from tests.helpers.shells import Terminal
from tests.helpers.small import CPU, SETTINGS, recipe

LONGER = "student.epochs=30"
PLAIN = {"NO_COLOR": "1", "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "60"}
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """--store is told to the rest of the process; not to the next test."""
    monkeypatch.setenv("DECANT_STORE", "")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the small recipe's teacher and cache have been made."""
    folder, one = tmp_path_factory.mktemp("taught"), recipe()
    make_teacher(Plan.of(one, folder / "runs/digits"), CPU)
    cache_logits(Plan.of(one, folder / "runs/digits", Store(folder / "caches")), CPU, print)
    return folder


@pytest.fixture(scope="module")
def finished(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it in which the students have been made too."""
    folder = shutil.copytree(taught, tmp_path_factory.mktemp("finished") / "here")
    list(train_students(Plan.of(recipe(), folder / "runs/digits", Store(folder / "caches")), CPU))
    return folder


def words(*overrides: str) -> list[str]:
    return [word for setting in (*SETTINGS, *overrides) for word in ("--set", setting)]


def status(folder: Path, *options: str) -> str:
    """The output of `decant status` of the small recipe, which must have ended well."""
    where = ["--runs", str(folder / "runs"), "--store", str(folder / "caches")]
    done = CliRunner().invoke(commands, ["status", *words(), *where, *options], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_each_phase_is_a_line_and_the_next_command_ends_it(taught: Path) -> None:
    text = status(taught)
    result = json.loads(only(taught, f"runs/digits/teacher-*/{RESULT}").read_text())
    assert re.search(
        rf"^teacher +done +top-1 {100 * result['metrics']['top1']:.2f} %, finished \d{{4}}-", text
    )
    assert re.search(r"^cache +done +1,437 samples × 10 classes, float16, finished ", text, re.MULTILINE)
    assert re.search(r"^labels-only students +missing +0 of 1 seeds$", text, re.MULTILINE)
    assert str(only(taught, "runs/digits/teacher-*")) in text
    assert text.splitlines()[-1].startswith("next: decant student --set teacher.network.width=4 ")
    assert "\x1b" not in text


def test_a_stale_phase_names_the_setting_and_what_is_there_instead(taught: Path) -> None:
    text = status(taught, "--set", "teacher.lr=0.07")
    said = "made with other settings\n +the nearest is (\\S+)\n +teacher.lr: expected 0.07, found 0.003\n"
    nearest = re.findall(said, text)
    assert nearest == [str(only(taught, "runs/digits/teacher-*")), str(only(taught, "caches/*.h5"))]
    assert "next: decant teacher " in text


def test_what_a_name_in_a_file_would_have_a_terminal_do_is_not_printed(taught: Path) -> None:
    teacher, *_ = json.loads(status(taught, "--json", "--set", "teacher.lr=0.07"))["phases"]
    lock = Path(teacher["path"]).with_name(f".{Path(teacher['path']).name}.lock")
    lock.write_text("process 1 on \x1b[2Jelsewhere")
    with open(lock) as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        said = status(taught, "--set", "teacher.lr=0.07")
    lock.unlink()
    assert re.search(r"^teacher +running +0 of 3 epochs, process 1 on �\[2Jelsewhere$", said, re.MULTILINE)
    assert "next, once what is running has ended: decant cache-logits" in said


def test_a_program_reads_states_paths_and_changed_settings(taught: Path) -> None:
    found = json.loads(status(taught, "--json", "--set", "cache.dtype=float32"))
    teacher, cache, labels, distilled = found["phases"]
    assert [phase["state"] for phase in found["phases"]] == ["done", "stale", "missing", "missing"]
    assert teacher["path"] == str(only(taught, "runs/digits/teacher-*"))
    assert teacher["figure"].startswith("top-1 ")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", teacher["finished"])
    assert cache["changed"] == [{"setting": "cache.dtype", "expected": "float32", "found": "float16"}]
    assert cache["nearest"] == str(only(taught, "caches/*.h5"))
    assert labels["seeds"] == distilled["seeds"] == {"done": 0, "asked": 1}
    assert found["next"].startswith("decant cache-logits --set ")


def test_a_damaged_result_is_words_and_no_failure(taught: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(taught, tmp_path / "here")
    path = only(folder, f"runs/digits/teacher-*/{RESULT}")
    path.write_text("{")
    text = status(folder)
    assert re.search(r"^teacher +damaged$", text, re.MULTILINE)
    assert f"{path}: damaged" in text


def test_a_wrong_recipe_is_refused_as_by_any_command(tmp_path: Path) -> None:
    assert "teacher.lr: expected a number above 0" in refused(
        decant("status", "--set", "teacher.lr=-1", cwd=tmp_path)
    )
    assert CliRunner().invoke(commands, ["status", "--every", "0"]).exit_code == 2


def test_with_everything_done_there_is_nothing_to_watch(finished: Path) -> None:
    assert status(finished, "--watch") == status(finished) + "\n"
    assert "next: decant report" in status(finished)


def test_ctrl_c_ends_watching_quietly(taught: Path) -> None:
    watching = start("status", "--watch", *words(), cwd=taught)
    assert line(watching).startswith("teacher")
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=PATIENCE)
    assert (watching.returncode, said) == (0, "")


def test_ranks_that_build_a_cache_are_watched_with_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = ("views.count=99", 'views.augment=[{op="flip"}]', "teacher.epochs=1")
    planned = Plan.of(recipe(*views), tmp_path / "runs/digits", Store(tmp_path / "caches"))
    make_teacher(planned, CPU)
    watching = start("status", "--watch", "--every", "0.1", *words(*views), cwd=tmp_path)
    assert watching.stdout is not None
    of_cache = (said for said in watching.stdout if said.startswith("cache "))
    assert " missing" in next(of_cache)
    planned.store.prepare()
    path, writers, said = planned.store.path(planned.manifest), [], ""
    for rank in range(2):
        monkeypatch.setenv("WORLD_SIZE", "2")
        monkeypatch.setenv("RANK", str(rank))
        writers.append(LogitCacheWriter.join(path, planned.manifest))
    for view in range(99):  # each a block
        rows = np.arange(1437)
        writers[view % 2].write(rows, np.zeros((1437, 10)), labels=rows % 10, view=view)
        said = next(of_cache)
        if " left" in said and "rank 1" in said:
            break
    for writer in writers:
        writer.close()
    watching.send_signal(signal.SIGINT)
    watching.communicate()
    of_ranks = r"about [^,]+ left, rank 0: [\d,]+ rows, rank 1: [\d,]+ rows$"
    assert re.match(rf"cache +running +[\d,]+ of 142,263 rows, {of_ranks}", said), said


@pytest.fixture(scope="module")
def watched(taught: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is said on a terminal, in a pipe and to a program while a real process makes the students."""
    folder = shutil.copytree(taught, tmp_path_factory.mktemp("watched") / "here")
    follow = ["status", "--watch", "--every", "0.1", *words(LONGER)]
    terminal = Terminal(*follow, cwd=folder, **PLAIN)
    pipe, program = start(*follow, cwd=folder), start(*follow, "--json", cwd=folder)
    first = [line(process) for process in (pipe, program)]
    wait_until(lambda: terminal.said)  # so that each has seen that there are no students
    working = start("student", *words(LONGER), cwd=folder)
    said = []
    for process in (working, pipe, program):
        rest, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, errors
        said.append(rest)
    of_pipe, of_program = (begun + rest for begun, rest in zip(first, said[1:], strict=True))
    return {"terminal": terminal.all_said(), "pipe": of_pipe, "program": of_program.splitlines()}


def test_watching_ends_by_itself_when_others_have_done_the_work(watched: dict[str, Any]) -> None:
    blocks = watched["pipe"].removesuffix("\n\n").split("\n\n")
    assert len(set(blocks)) == len(blocks) > 2, "a block a change"
    assert "labels-only students  missing      0 of 1 seeds\n" in blocks[0]
    said = r"running +0 of 1 seeds, seed 0: \d+ of 30 epochs, about \d+ s left, process \d+ on "
    assert re.search(said, watched["pipe"])
    assert blocks[-1].count(" done  ") == 4
    assert "next: decant report" in blocks[-1]


def test_a_program_reads_a_line_a_change(watched: dict[str, Any]) -> None:
    found = [json.loads(each) for each in watched["program"]]
    assert all(one != other for one, other in itertools.pairwise(found))
    states = [[phase["state"] for phase in one["phases"]] for one in found]
    assert states[0] == ["done", "done", "missing", "missing"]
    assert states[-1] == ["done"] * 4
    students = [phase for one in found for phase in one["phases"][2:] if phase["state"] == "running"]
    assert {phase["progress"]["total"] for phase in students} == {30}
    assert {phase["process"].split()[0] for phase in students} == {"process"}
    known = [phase["progress"] for phase in students if phase["progress"]["done"]]
    assert all(progress["seconds_left"] >= 0 for progress in known)
    assert known


def test_a_terminal_is_redrawn_in_place_and_without_colours_where_none_are_wanted(
    watched: dict[str, Any],
) -> None:
    said = watched["terminal"]
    assert "\x1b[1A" in said, "the cursor went up"
    assert "next: decant report" in said
    assert COLOURS.findall(said) == []


def test_a_terminal_has_colours_otherwise(finished: Path) -> None:
    said = Terminal("status", *words(), cwd=finished, TERM="xterm-256color").all_said()
    assert COLOURS.findall(said)
    assert re.search(r"teacher +\x1b\[32mdone\x1b\[0m", said)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (119.4, "119 s"), (121.0, "2 min"), (7_199.0, "120 min"), (9_000.0, "2 h")],
)
def test_a_duration_is_in_the_largest_unit_of_which_there_are_two(seconds: float, text: str) -> None:
    assert duration(seconds) == text
