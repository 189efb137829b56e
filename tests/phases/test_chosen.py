"""Networks of a recipe with a validation part: what each figure is of, what their folders depend on, what is left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from decant.pipeline.networks.build import specify_network
from decant.pipeline.phases.job import MeasuredOn, load_result_on, train_network
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.soft_labels import open_cache
from decant.pipeline.phases.student import jobs_for_seed
from decant.pipeline.phases.training_dataset import training_dataset
from decant.pipeline.report import compare, format_cells, headings
from decant.pipeline.runs.result import RESULT, Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.runs.saved_recipe import RECIPE
from decant.pipeline.training.epoch_log import read_epochs
from decant.pipeline.training.evaluation import evaluate
from tests.helpers.small import CPU, build_cache, plan, students

HELD_OUT = ("data.validation=0.2", "student.epochs=3", "student.evaluate_every=1")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chosen")
    build_cache(folder, *HELD_OUT)
    return folder


def test_epochs_are_measured_on_the_validation_part_and_the_test_part_once_at_the_end(base: Path) -> None:
    chosen = (*HELD_OUT, "student.keep=best", "student.average=ema", "student.ema_decay=0.9")
    made = students(base, *chosen)
    splits = plan(base, *chosen).splits
    assert splits.validation is not None
    for result in made:
        lines = read_epochs(result.folder)
        assert [("test" in line, "validation" in line) for line in lines] == [(False, True)] * 3
        network = load_network(result)
        assert result.validation == evaluate(network, splits.validation, CPU)
        measured = evaluate(network, splits.test, CPU)
        assert {name: result.metrics[name] for name in measured} == measured  # type: ignore[literal-required]
        assert result.validation_sha256 == splits.validation.data.digest()
        best = max(line["validation"]["top1"] for line in lines)
        assert result.kept_epoch is not None
        assert lines[result.kept_epoch - 1]["validation"]["top1"] == best == result.validation["top1"]
    rows = compare(base / "runs", made)
    assert headings(rows)[4:6] == ("test top-1", "validation top-1")
    assert format_cells(rows[-1], True)[5] == f"{100 * made[1].validation['top1']:.2f} %"  # type: ignore[index]


def folder_of(base: Path, *overrides: str) -> str:
    return plan(base, *HELD_OUT, *overrides).student_folder("labels").name


def test_what_chooses_decides_the_folder_and_what_only_measures_does_not(base: Path) -> None:
    plain = folder_of(base)
    assert folder_of(base, "student.evaluate_every=3") == plain
    best = folder_of(base, "student.keep=best")
    assert best != plain
    assert folder_of(base, "student.keep=best", "student.evaluate_every=3") != best
    assert folder_of(base, "student.patience=2") not in (plain, best)
    assert folder_of(base, "student.average=ema") != plain
    assert folder_of(base, "student.keep=last") == plain
    assert folder_of(base, "data.validation.seed=1") != plain


def trial(base: Path, planned: Plan) -> Result:
    """A distilled student that was trained without a look at the test part."""
    cache = open_cache(planned)
    spec = specify_network(planned.settings.student.network, planned.data.student_train)
    data = training_dataset(planned, cache, "sample", CPU)
    job = jobs_for_seed(planned, cache, spec, data, 0)[1]
    result, _ = train_network(job, planned.recipe, MeasuredOn(None, planned.data.validation), CPU)
    return result


def test_a_network_that_was_not_measured_on_the_test_part_is_when_somebody_asks(base: Path) -> None:
    overrides = (*HELD_OUT, "student.lr=0.02")
    made = trial(base, plan(base, *overrides))
    assert not made.is_tested
    assert made.metrics == {}
    assert {path.name for path in made.folder.iterdir()} == {
        *(RESULT, RECIPE, "metrics.jsonl", "weights.safetensors")
    }
    untouched = load_result_on(made.folder, MeasuredOn(None), CPU)
    assert untouched == made
    alone, found = students(base, *overrides)
    assert alone.kind == "labels"
    assert found.folder == made.folder
    assert found.is_tested
    assert found.weights_sha256 == made.weights_sha256
    assert found.metrics["top1"] > 0.2


def test_results_without_a_validation_part_are_written_as_before(tmp_path: Path) -> None:
    build_cache(tmp_path)
    written = json.loads((students(tmp_path)[0].folder / RESULT).read_text())
    assert not {"validation", "validation_sha256", "kept_epoch"} & written.keys()
