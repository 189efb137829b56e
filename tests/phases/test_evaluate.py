"""Measured again from the files, networks are what their results say."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.cache import Store
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.evaluate import evaluate_runs
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.runs.result import find_results
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
