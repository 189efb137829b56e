"""Measured again from the files, networks are what their results say."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decant.cache import Store
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.evaluate import evaluate_runs
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.report.subject import of_recipe
from decant.pipeline.runs import saved_recipe
from decant.pipeline.runs.result import RESULT, find_results
from decant.pipeline.runs.saved_recipe import read_saved_recipe
from tests.helpers.small import CPU, build_cache, recipe, teach


def test_every_network_is_measured_as_it_was_when_it_was_made(tmp_path: Path) -> None:
    build_cache(tmp_path)
    list(train_students(Plan.of(recipe(), tmp_path / "runs", Store(tmp_path / "caches")), CPU))
    said = {result.folder: result for result in find_results(tmp_path / "runs")}
    measured = list(evaluate_runs(Plan.of(recipe(), tmp_path / "runs"), CPU))
    assert len(measured) == 3
    for result in measured:
        for name in ("top1", "top5", "loss", "ece"):
            assert result.metrics[name] == pytest.approx(said[result.folder].metrics[name], abs=1e-4)  # type: ignore[literal-required]
    distilled = measured[-1]
    assert distilled.kind == "distilled"
    assert distilled.metrics["agreement"] == pytest.approx(
        said[distilled.folder].metrics["agreement"], abs=0.01
    )


def test_with_nothing_finished_the_command_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotMadeError, match="run: decant teacher"):
        list(evaluate_runs(Plan.of(recipe(), tmp_path), CPU))


def test_networks_of_other_data_are_left_out(tmp_path: Path) -> None:
    teach(tmp_path, "views.size=12")
    ours = teach(tmp_path)
    assert [result.folder for result in evaluate_runs(Plan.of(recipe(), tmp_path / "runs"), CPU)] == [
        ours.folder
    ]


def test_networks_of_classes_in_another_order_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After a folder of images was renamed, labels were other outputs', and top-1 fell from 89 % to 32 %."""
    result = json.loads((path := teach(tmp_path).folder / RESULT).read_text())
    path.write_text(
        json.dumps({**result, "classes": [*result["classes"][:8], *reversed(result["classes"][8:])]})
    )
    with pytest.raises(NotMadeError):
        list(evaluate_runs(Plan.of(recipe(), tmp_path / "runs"), CPU))
    assert "left out: its class 8 is '9', and that of the data is '8'\n" in capsys.readouterr().err


def test_after_the_data_were_moved_all_their_networks_are_found_and_those_of_another_test_part_are_not(
    tmp_path: Path,
) -> None:
    """`status` said that all was done, and what it then named, `decant report`, that nothing was finished."""
    build_cache(tmp_path)
    dkd = "student.objective=dkd"
    for words in ((), (dkd,)):
        list(train_students(Plan.of(recipe(*words), tmp_path / "runs", Store(tmp_path / "caches")), CPU))
    before = {result.folder: read_saved_recipe(result.folder) for result in find_results(tmp_path / "runs")}
    other = teach(tmp_path, "teacher.seed=7").folder
    result = (other / RESULT).read_text()
    (other / RESULT).write_text(result.replace('"test_sha256": "', '"test_sha256": "of another part '))
    for where in ("moved", "moved again"):
        moved = recipe(f"data.root={where}")
        assert not list(find_results(tmp_path / "runs", moved.settings.data))
        report = of_recipe(moved, tmp_path / "runs", Store(tmp_path / "caches"), CPU)
        assert {result.folder for result in report.results} == before.keys()
        assert len(report.splits.test), "and the data are read where they are now"
        measured = evaluate_runs(Plan.of(moved, tmp_path / "runs"), CPU)
        assert {result.folder for result in measured} == before.keys()
    for folder, saved in before.items():
        assert saved is not None
        assert read_saved_recipe(folder) == {**saved, "data": {**saved["data"], "root": "moved again"}}
    assert Plan.of(recipe("data.validation=0.25"), tmp_path / "runs").finished() == (), "these are other data"


def test_networks_of_moved_data_are_found_where_nothing_may_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in the runs of another person, which `status` finds too."""

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    made, moved = teach(tmp_path).folder, recipe("data.root=moved")
    monkeypatch.setattr(saved_recipe, "write_atomically", refuse)
    report = of_recipe(moved, tmp_path / "runs", Store(tmp_path / "caches"), CPU)
    assert [result.folder for result in report.results] == [made]
    assert report.focus.recipe.settings.data.root == "moved"
    assert len(report.splits.test)
    measured = evaluate_runs(Plan.of(moved, tmp_path / "runs"), CPU)
    assert [result.folder for result in measured] == [made]
