"""The phases as commands: what they tell a program, where they say one can go on, and what a terminal sees."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from decant.cache import LogitCache, Sparse
from decant.pipeline.cli.main import decant
from tests.helpers.commands import TINY, follow, only, refused, tiny
from tests.helpers.shells import Terminal, colours, typed

Document = Callable[..., tuple[Any, str]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the commands, each as the one before said, made everything once."""
    folder = tmp_path_factory.mktemp("made")
    line = f"decant teacher {' '.join(TINY)} --set student.seeds=2"
    for phase in ("teacher", "cache-logits", "student"):
        assert line.startswith(f"decant {phase} ")
        line = following(typed(line, folder))
    assert line.startswith("decant report ")
    return folder


def following(said: str) -> str:
    """The command that the last line of an output names."""
    *_, last = said.splitlines()
    assert last.startswith("next: decant "), said
    return last.removeprefix("next: ")


@pytest.fixture
def document(made: Path, monkeypatch: pytest.MonkeyPatch) -> Document:
    """What a command tells a program there, and what it says beside."""
    monkeypatch.chdir(made)

    def run(*words: str) -> tuple[Any, str]:
        done = CliRunner().invoke(decant, [*words, *TINY, "--set", "student.seeds=2", "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout), done.stderr

    return run


def results(folder: Path, pattern: str) -> dict[str, Any]:
    """Run folder → its result.json."""
    paths = sorted(folder.glob(f"runs/digits/{pattern}/result.json"))
    return {str(path.parent.relative_to(folder)): json.loads(path.read_text()) for path in paths}


def test_a_teacher_is_told_with_its_metrics_and_whether_it_was_there(made: Path, document: Document) -> None:
    [(folder, kept)] = results(made, "teacher-*").items()
    [told], said = document("teacher")
    assert (told["folder"], told["kind"], told["found"]) == (folder, "teacher", True)
    assert told["metrics"] == kept["metrics"]
    assert (told["parameters"], told["weights_bytes"]) == (kept["parameters"], kept["weights_bytes"])
    assert said.startswith(f"found {folder}: ")
    assert "next: decant cache-logits" in said


def test_losses_that_are_printed_on_the_way_are_no_part_of_the_document(
    document: Document, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    [told], said = document("teacher", "--set", "teacher.log_every=5")
    assert told["found"] is False
    assert "[1, 5] loss" in said


def test_a_cache_is_told_with_its_size_and_the_teachers_figures(made: Path, document: Document) -> None:
    path = only(made, "caches/*.h5")
    [told], said = document("cache-logits")
    assert (told["path"], told["found"]) == (str(path.relative_to(made)), True)
    assert (told["views"], told["samples"], told["outputs"], told["dtype"]) == (1, 1437, 10, "float16")
    assert told["bytes"] == path.stat().st_size
    assert path.stem.endswith(told["key"][:16])
    assert f"{100 * told['metrics']['top1']:.2f} %" in said


def test_a_dry_run_tells_a_program_what_it_would_cost(made: Path, document: Document) -> None:
    words = ("cache-logits", "--dry-run", "--set", "cache.dtype=float32")
    [told], said = document(*words)
    assert told["exists"] is False
    assert told["pays_after_epochs"] == told["seconds"] / told["live_seconds_an_epoch"]
    assert told["student_epochs"] == 4
    assert not (made / told["path"]).exists()
    follow(following(said), made)
    assert (made / told["path"]).stat().st_size >= told["bytes"]
    (made / told["path"]).unlink()


SPARSE = ("--set", "cache.encoding={kind='sparse', head=8, temperatures=[1.0, 4.0]}")


def test_a_dry_run_of_a_sparse_cache_tells_what_each_size_leaves_out(made: Path, document: Document) -> None:
    [told], said = document("cache-logits", "--dry-run", *SPARSE)
    low, high = told["sizes"]
    assert [(size["kept"], size["temperature"]) for size in (low, high)] == [(8, 1.0), (8, 4.0)]
    assert 0 <= low["tail"] < high["tail"] <= high["tail_90"] < 1
    assert high["row_bytes"] == 8 * 4 + 12
    assert "of 1,437 samples, in " in said
    assert "sizes" not in document("cache-logits", "--dry-run")[0][0]
    shown = CliRunner().invoke(decant, ["cache-logits", "--dry-run", *SPARSE, *TINY]).output
    assert "outputs a row" in shown
    assert "error of draws" in shown


def test_a_largest_error_chooses_the_size(made: Path, document: Document) -> None:
    asked = ("--set", "cache.encoding={kind='sparse', head=9, temperatures=[1.0, 4.0]}")
    [told], said = document("cache-logits", "--max-error", "0.5", *asked)
    assert "--max-error 0.5: 8 outputs a row" in said
    assert LogitCache.open(made / told["path"]).manifest.encoding == Sparse(8, (1.0, 4.0))
    assert "head = 8" in following(said)
    (made / told["path"]).unlink()
    for words, says in (
        (("1e-9", *asked), "--max-error 1e-09: 8 outputs a row leave"),
        (("0.5",), "--max-error: is of a sparse cache"),
    ):
        refused = CliRunner().invoke(decant, ["cache-logits", "--max-error", *words, *TINY])
        assert refused.exit_code == 1
        assert says in str(refused.exception) + refused.output


def test_a_dry_run_tells_what_each_rank_would_do(made: Path, document: Document) -> None:
    [told], said = document("cache-logits", "--dry-run", "--ranks", "3", "--set", "cache.dtype=float32")
    assert told["ranks"]["ranks"] == told["ranks"]["working"] == 3
    assert f"a rank computes up to {told['ranks']['rows']:,} rows, reads 91,968 bytes of inputs" in said
    assert "--ranks belongs to --dry-run" in refused(tiny("cache-logits", "--ranks", "3", cwd=made), code=2)


def test_students_are_told_by_kind_and_seed(made: Path, document: Document) -> None:
    rows, said = document("student")
    assert [row["kind"] for row in rows] == ["teacher", "labels", "distilled"]
    assert rows[2]["objective"] == {"name": "kd", "alpha": 0.9, "temperature": 4.0}
    assert rows[0]["network"] == {"name": "conv", "args": {"width": 4}}
    kept = results(made, "student-*/seed-?")
    told = {run["folder"]: (row, run) for row in rows[1:] for run in row["seeds"]}
    assert len(told) == 4
    for folder, (row, run) in told.items():
        assert (run["metrics"], run["seed"]) == (kept[folder]["metrics"], kept[folder]["seed"])
        assert (row["parameters"], row["weights_bytes"]) == (2410, kept[folder]["weights_bytes"])
    assert "weight file" not in said, "the table is for a person"


def test_networks_that_are_measured_again_are_told_with_all_metrics(made: Path, document: Document) -> None:
    told, said = document("evaluate")
    kept = results(made, "**")
    assert {one["folder"] for one in told} == kept.keys()
    for one in told:
        assert one["metrics"] == pytest.approx(kept[one["folder"]]["metrics"])
    assert "report.html" in follow(following(said), made)


def test_a_given_cache_leaves_nothing_to_tell_of_teachers(made: Path, document: Document) -> None:
    path = only(made, "caches/*.h5")
    for phase in ("teacher", "cache-logits"):
        told, said = document(phase, "--set", f"cache.from={path}")
        assert told == []
        assert f"cache.from is {path}" in said
        assert following(said).startswith("decant student ")


def on_terminal(*words: str, cwd: Path, NO_COLOR: str) -> str:
    """What a terminal of 120 columns is sent by a command that must work."""
    given = {"TERM": "xterm-256color", "COLUMNS": "120", "NO_COLOR": NO_COLOR}
    return Terminal(*words, cwd=cwd, **given).all_said()


@pytest.mark.parametrize("no_color", ["", "1"])
def test_a_terminal_sees_colours_unless_they_are_unwanted(no_color: str, made: Path) -> None:
    new = ("--set", f"student.weight_decay=1e-{5 + len(no_color)}")  # so that there is something to train
    seen = on_terminal("student", *TINY, *new, cwd=made, NO_COLOR=no_color)
    assert "\x1b[2K" in seen, "a bar was drawn"
    assert "weight file" in seen
    assert bool(colours(seen)) is not bool(no_color)
    for words in (["objectives"], ["cache", "ls"], ["--help"], ["student", "--help"]):
        assert not (no_color and colours(on_terminal(*words, cwd=made, NO_COLOR=no_color)))
