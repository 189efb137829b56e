"""A regression from data to report, through the real functions: errors in place of softmaxes everywhere."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from numpy.typing import NDArray
from sklearn.metrics import mean_absolute_error, mean_squared_error, r2_score

from decant.cache import LogitCache, MismatchError, SoftLabelDataset, Store
from decant.pipeline.cli.main import decant
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.evaluate import evaluate_runs
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.soft_labels import open_cache
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.report.output import make_report
from decant.pipeline.report.subject import of_recipe
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_logits import TEST_LOGITS
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.epoch_log import METRICS
from tests.helpers.small import CPU

SMALL = ("teacher.epochs=2", "student.epochs=2", "student.seeds=2")
WHOLE = ("teacher.batch_size=400", "student.batch_size=400")
"""Of which one is an epoch."""


def recipe(*overrides: str) -> Recipe:
    return load_recipe("regression", [*SMALL, *overrides])


def teach(folder: Path, *overrides: str) -> Result:
    return make_teacher(Plan.of(recipe(*overrides), folder / "runs"), CPU)[0]


def build_cache(folder: Path, *overrides: str) -> LogitCache:
    teach(folder, *overrides)
    return cache_logits(
        Plan.of(recipe(*overrides), folder / "runs", Store(folder / "caches")), CPU, print
    ).cache


def students(folder: Path, *overrides: str) -> list[Result]:
    made = train_students(
        Plan.of(recipe(*overrides), folder / "runs", Store(folder / "caches")), CPU, check_inputs="all"
    )
    return [result for result, _ in made]


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LogitCache, list[Result]]:
    folder = tmp_path_factory.mktemp("regression")
    return folder, build_cache(folder), students(folder)


def outputs(weights: dict[str, torch.Tensor], inputs: NDArray[Any]) -> NDArray[np.float64]:
    """(N, 1) of features → hidden, ReLU → 1, written out."""
    held = {name: value.double().numpy() for name, value in weights.items()}
    values = (inputs.astype(np.float64) - held["preprocess.mean"]) / held["preprocess.std"]
    hidden = np.maximum(values @ held["body.1.weight"].T + held["body.1.bias"], 0)
    return np.asarray(hidden @ held["body.3.weight"].T + held["body.3.bias"])


def first_epoch(result: Result) -> dict[str, float]:
    line: dict[str, float] = json.loads((result.folder / METRICS).read_text("utf-8").splitlines()[0])
    return line


def test_the_recipe_is_the_system_to_the_number() -> None:
    shipped = load_recipe("regression").settings
    sizes = {
        part: [tuple(tensor.shape) for name, tensor in built.state_dict().items() if name.endswith("weight")]
        for part, built in (
            (
                "teacher",
                build_network(specify_network(shipped.teacher.network, Splits.load(shipped).student_train)),
            ),
            (
                "student",
                build_network(specify_network(shipped.student.network, Splits.load(shipped).student_train)),
            ),
        )
    }
    assert sizes == {"teacher": [(20, 10), (1, 20)], "student": [(10, 10), (1, 10)]}
    for training in (shipped.teacher, shipped.student):
        assert (training.optimizer, training.lr, training.weight_decay) == ("adam", 0.001, 0.0)
    assert shipped.student.objective.model_dump() == {"name": "regression", "weight": 0.5}


def test_the_cache_holds_the_teachers_outputs_and_the_targets(
    chain: tuple[Path, LogitCache, list[Result]],
) -> None:
    folder, cache, _ = chain
    data = Splits.load(recipe().settings).student_train.data
    teacher = load_network(teach(folder)).state_dict()
    assert (cache.num_samples, cache.num_outputs, cache.manifest.num_targets) == (353, 1, 1)
    assert np.allclose(cache.logits(slice(None)), outputs(teacher, data.raw(np.arange(353))), atol=1e-5)
    assert np.array_equal(cache.labels, data.labels)


def test_the_first_loss_of_each_network_is_worked_out_longhand(tmp_path: Path) -> None:
    """One batch an epoch: the loss of the first is that of the initial weights, whatever the order."""
    cache = build_cache(tmp_path, *WHOLE)
    settings = recipe(*WHOLE).settings
    splits = Splits.load(settings)
    inputs, targets = (
        splits.student_train.data.raw(np.arange(353)),
        splits.student_train.data.labels.astype(np.float64),
    )
    found = {result.kind: result for result in students(tmp_path, *WHOLE, "student.seeds=1")}
    initial = {
        kind: outputs(build_network(specify_network(network, splits.student_train), 0).state_dict(), inputs)
        for kind, network in (("teacher", settings.teacher.network), ("student", settings.student.network))
    }
    hard = np.mean((initial["student"] - targets) ** 2)
    soft = np.mean((initial["student"] - cache.logits(slice(None)).astype(np.float64)) ** 2)
    assert first_epoch(teach(tmp_path, *WHOLE))["loss"] == pytest.approx(
        np.mean((initial["teacher"] - targets) ** 2), rel=1e-5
    )
    assert first_epoch(found["labels"])["loss"] == pytest.approx(hard, rel=1e-5)
    distilled = first_epoch(found["distilled"])
    assert distilled["soft"] == pytest.approx(soft, rel=1e-5)
    assert distilled["hard"] == pytest.approx(hard, rel=1e-5)
    assert distilled["loss"] == pytest.approx(soft + 0.5 * hard, rel=1e-5)


def test_what_is_measured_is_what_scikit_learn_says(chain: tuple[Path, LogitCache, list[Result]]) -> None:
    folder, _, made = chain
    targets = Splits.load(recipe().settings).test.data.labels
    for result in [teach(folder), *made]:
        found = np.load(result.folder / TEST_LOGITS)
        assert result.metrics == {
            "mse": pytest.approx(mean_squared_error(targets, found), rel=1e-5),
            "mae": pytest.approx(mean_absolute_error(targets, found), rel=1e-5),
            "r2": pytest.approx(r2_score(targets, found), rel=1e-4),
        }
    again = list(evaluate_runs(Plan.of(recipe(), folder / "runs"), CPU))
    assert [result.metrics for result in again] == [result.metrics for result in [teach(folder), *made]][
        :1
    ] + [result.metrics for kind in ("labels", "distilled") for result in made if result.kind == kind]


def test_what_a_person_reads_speaks_of_errors_alone(chain: tuple[Path, LogitCache, list[Result]]) -> None:
    folder, cache, made = chain
    subject = of_recipe(recipe(), folder / "runs", Store(folder / "caches"), CPU)
    report = make_report(subject, folder / "runs")
    text = report.table.read_text("utf-8")
    r2 = [result.metrics["r2"] for result in made if result.kind == "distilled"]
    assert f"| {statistics.fmean(r2):.4f} ± {statistics.stdev(r2):.4f} (n = 2) |" in text
    assert "| test R² |" in text
    assert re.search(r"R² (over|below) labels only \(standard error ", text)
    said = CliRunner().invoke(decant, ["cache", "info", str(cache.path)]).output
    assert "the teacher's R² " in said
    for word in ("top-1", "points", "entropy", "confidence"):
        assert word not in text + said


def test_a_target_that_has_changed_is_found(chain: tuple[Path, LogitCache, list[Result]]) -> None:
    _, cache, _ = chain
    train = Splits.load(recipe().settings).student_train
    train.data.labels[7] += 0.5
    with pytest.raises(MismatchError, match="sample 7: its label is"):
        SoftLabelDataset(train, cache).batch([6, 7, 8])


def test_caches_of_several_teachers_given_by_path_are_averaged_as_they_are(tmp_path: Path) -> None:
    caches = [build_cache(tmp_path, f"teacher.seed={seed}") for seed in (0, 1)]
    given = f"cache.from={[str(cache.path) for cache in caches]!r}"
    together = open_cache(Plan.of(recipe(given), tmp_path, Store(tmp_path / "caches")))
    mean = np.mean([cache.logits(slice(None)) for cache in caches], axis=0)
    assert np.allclose(together.logits(slice(None)), mean, atol=1e-6)


class TwoTargets:
    """Features with two targets, one of which is not always known."""

    def __init__(self, length: int) -> None:
        self.inputs = np.random.default_rng(length).normal(size=(length, 3)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], Any]:
        row = self.inputs[index]
        return row, None if index == 5 else [float(row.sum()), float("nan") if index % 3 else float(row[0])]


def two_targets(root: str, split: str) -> TwoTargets:
    return TwoTargets(60 if split == "train" else 30)


def classes_and_targets(root: str, split: str) -> list[tuple[Any, Any]]:
    return [([0.0, 1.0], 0.5 if split == "train" else 1)] * 4


def features(root: str, split: str) -> list[tuple[Any, float]]:
    return [(np.zeros((3, 8, 8), np.uint8), 0.5)] * 4


def test_a_persons_own_targets_may_be_several_and_unknown(tmp_path: Path) -> None:
    own = (f"data.name={__name__}:two_targets", "student.seeds=1")
    cache = build_cache(tmp_path, *own)
    assert (cache.num_outputs, cache.manifest.num_targets) == (2, 2)
    assert np.isnan(cache.labels).sum() == 2 + 39
    assert not np.isnan(cache.labels[::3][[0, 1, 3]]).any()
    for result in students(tmp_path, *own):
        assert set(result.metrics) == {"mse", "mae", "r2"}
        assert np.load(result.folder / TEST_LOGITS).shape == (30, 2)


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        (
            "regression",
            ("student.objective=kd",),
            "student.objective 'kd': is for classification; diabetes is a regression, as its labels are floats "
            "(353, 1): set it to regression (or package.module:function)",
        ),
        (
            "regression",
            ("student.objective=mse",),
            "student.objective 'mse': is for classification",
        ),
        (
            "digits",
            ("student.objective=regression",),
            "student.objective 'regression': is for regression; digits is a classification, as its labels are "
            "integers (1437,): set it to kd, ce+kl, ",
        ),
        (
            "regression",
            ("teacher.label_smoothing=0.1",),
            "teacher.label_smoothing: smooths classes; diabetes is a regression",
        ),
    ],
)
def test_a_loss_that_is_not_for_such_labels_is_refused(name: str, overrides: Any, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Splits.load(load_recipe(name, overrides).settings)
    assert str(caught.value).startswith(says)


def test_parts_of_two_tasks_do_not_belong_together() -> None:
    with pytest.raises(DataError, match=r"train labels are floats \(4, 1\), test labels integers \(4,\)"):
        Splits.load(recipe(f"data.name={__name__}:classes_and_targets").settings)


def test_targets_are_not_mixed() -> None:
    mixed = (f"data.name={__name__}:features", "views.count=2", 'views.augment=[{op="mixup"}]')
    with pytest.raises(DataError, match="mixup and cutmix mix class labels"):
        Splits.load(recipe(*mixed).settings)
