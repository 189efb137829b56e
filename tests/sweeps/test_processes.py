"""Sweeps of several processes, of killed ones, and what they read: real commands on real folders."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from decant.pipeline.cli.main import decant as commands
from decant.pipeline.sweeps import workers
from tests.helpers.commands import decant, follow, fork_module, only, refused, succeed

pytest.importorskip("optuna", reason="optuna is not installed; run: pip install 'decant-kd[sweep]'")

SMALL = (
    *("data.validation=0.2", "teacher.network.width=4", "teacher.epochs=2", "teacher.batch_size=256"),
    *("student.epochs=2", "student.batch_size=256", "student.evaluate_every=1"),
)
SET = tuple(word for value in SMALL for word in ("--set", value))
NETWORK = """
import os, signal, sys
from torch import nn

def net(num_classes, input_shape, hidden=8):
    with open("builds.log", "a") as file:
        file.write(f"{os.getpid()} {hidden}\\n")
    if hidden == 13 and "--worker" in sys.argv:
        os.kill(os.getpid(), signal.SIGKILL)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
"""
DATA = """
import json, pathlib
import numpy as np

def data(root, split):
    stages = [json.loads(path.read_text())["stages"] for path in pathlib.Path().glob("runs/*/sweep-*/sweep.json")]
    over = lambda trials: all(each["state"] != "running" for each in trials)
    ended = [over(one["trials"]) and len(one["trials"]) == one["total"] for one in sum(stages, [])]
    with open("reads.log", "a") as file:
        file.write(json.dumps([split, ended]) + "\\n")
    drawn = np.random.default_rng({"train": 0, "test": 1}[split])
    count = {"train": 400, "test": 1000}[split]
    labels = drawn.integers(0, 4, count)  # which say nothing of the images
    return list(zip(drawn.integers(0, 256, (count, 1, 4, 4)).astype(np.uint8), labels.tolist()))
"""


def record_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(only(folder, "runs/*/sweep-*/sweep.json").read_text())
    return found


def test_two_processes_share_a_sweep_and_one_that_is_killed_fails_its_trial_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(NETWORK)
    words = (*SET, "--set", "student.network=mine:net", "--sampler", "grid", "--seeds", "1", "--jobs", "2")
    over = ("--over", "student.network.hidden=8,9,13")
    succeed(decant("teacher", *SET, cwd=tmp_path))
    succeed(decant("cache-logits", *SET, cwd=tmp_path))
    done = decant("sweep", *words, *over, cwd=tmp_path)
    said = succeed(done)
    students, baseline, fresh = record_of(tmp_path)["stages"]
    states = {(each["settings"]["student.network.hidden"], each["state"]) for each in students["trials"]}
    assert states == {("8", "done"), ("9", "done"), ("13", "failed")}
    failed = next(each for each in students["trials"] if each["state"] == "failed")
    assert failed["reason"] == "its process was ended by signal 9; where that is 9, memory may have run out"
    assert [len(each["trials"]) for each in (students, baseline, fresh)] == [3, 3, 2]
    builds = [line.split() for line in (tmp_path / "builds.log").read_text().splitlines()]
    shown = builds[0][0]  # the process that is watched, which builds each network once to see that it can be
    trained = [hidden for process, hidden in builds if process != shown]
    assert len(trained) == 3 + 3 + 2, "each trial once, and no other"
    assert "students 3 of 3: student.network.hidden=" in said
    again = decant("sweep", *words, *over, cwd=tmp_path)
    assert "students: found 3 of 3 trials ended" in succeed(again)
    line = next(line for line in succeed(again).splitlines() if line.startswith("again: "))
    assert f"found {fresh['trials'][0]['folder']}" in follow(line.removeprefix("again: "), tmp_path).replace(
        "runs/digits/", ""
    )


def test_the_test_part_is_read_by_the_final_measurement_alone_and_chance_stays_chance(tmp_path: Path) -> None:
    """On labels that say nothing: what was chosen looks better than it is, and the test part says so."""
    (tmp_path / "mine.py").write_text(DATA)
    values = (
        *("data.name=mine:data", "data.validation=0.15", "teacher.network=linear", "teacher.epochs=1"),
        *("student.network=linear", "student.epochs=2", "student.keep=best", "student.evaluate_every=1"),
    )
    words = tuple(word for value in values for word in ("--set", value))
    succeed(decant("teacher", *words, cwd=tmp_path))
    succeed(decant("cache-logits", *words, cwd=tmp_path))
    (tmp_path / "reads.log").unlink()
    sweep = ("sweep", *words, "--over", "student.lr=log:0.001..1", "--trials", "12", "--sampler", "random")
    said = succeed(decant(*sweep, cwd=tmp_path))
    reads = [json.loads(line) for line in (tmp_path / "reads.log").read_text().splitlines()]
    assert reads[0] == ["train", []]
    tested = [ended for split, ended in reads if split == "test"]
    assert tested, "the final measurement reads it"
    for ended in tested:
        assert ended[:2] == [True, True], "students and baseline have all ended before"
    record = record_of(tmp_path)
    best = max(each["value"] for each in record["stages"][0]["trials"])
    figures = [*record["conclusion"]["distilled"].values(), *record["conclusion"]["labels"].values()]
    assert all(abs(figure - 0.25) < 0.05 for figure in figures), figures
    assert best > max(figures), "the best of many on 60 samples"
    assert f"validation top-1 {100 * best:.2f} %, which is optimistic, as it was chosen by that" in said


def test_a_killed_sweep_has_the_same_trials_and_the_same_best(tmp_path: Path) -> None:
    assert fork_module("tests.helpers.killing_sweeps", tmp_path, 3, 1).startswith("3 kills, ")


@pytest.mark.slow
def test_a_sweep_that_is_killed_twenty_times(tmp_path: Path) -> None:
    assert fork_module("tests.helpers.killing_sweeps", tmp_path, 20, 2).startswith("20 kills, ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (),
            "nothing is varied: give --over student.lr=log:0.01..0.3 and the like, or the recipe a section [sweep]",
        ),
        (("--over", "student.lr=0.1,0.2"), "run: decant teacher"),
        (
            ("--over", "student.epohcs=1,2"),
            "student.epohcs: unknown key; did you mean epochs or warmup_epochs?",
        ),
        (("--over", "views.count=1,2"), "settings of [views] ask for another cache"),
        (("--set", "sweep.trials=4"), "sweep.over: missing"),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    message = refused(decant("sweep", *SET, *words, cwd=tmp_path))
    assert said in message
    assert message.count("\n") == 0


def test_a_recipe_without_a_validation_part_is_told_how_to_have_one(tmp_path: Path) -> None:
    message = refused(decant("sweep", "--over", "student.lr=0.1,0.2", cwd=tmp_path))
    assert "hold a tenth of the training part out with --set data.validation=0.1" in message


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "optuna", None)
    done = CliRunner().invoke(commands, ["sweep", *SET, "--over", "student.lr=0.1,0.2"])
    assert str(done.exception) == "optuna is not installed; run: pip install 'decant-kd[sweep]'"


def test_each_start_of_a_sweep_has_a_name_of_its_own_also_with_the_same_process_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container that is started again: its workers took the trials of the killed one for those of one another,
    and waited for ever.
    """
    names = list[str]()

    @contextlib.contextmanager
    def started(words: Sequence[str], *_: object) -> Iterator[SimpleNamespace]:
        names.append(words[words.index("--worker") + 1])
        yield SimpleNamespace(process=SimpleNamespace(poll=lambda: 0))

    monkeypatch.setattr(workers, "_started", started)
    for _ in range(2):
        workers.run_workers(["--seeds", "1"], "cpu", 2, tmp_path, lambda record: None)
    first, same, again, _ = names
    assert first == same != again
