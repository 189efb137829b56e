"""Phase zero: a teacher is trained once, or taken as its weights are."""

from __future__ import annotations

import contextlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from decant.pipeline.errors import DataError, PipelineError, WeightsError
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import require_trainable
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import WEIGHTS
from decant.pipeline.runs.saved_logits import TEST_LOGITS
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.notices import forget_what_was_said
from decant.pipeline.training.epoch_log import METRICS
from decant.pipeline.training.evaluation import predict
from tests.helpers.small import CPU, recipe, teach


def test_a_teacher_is_made_once_and_then_found(tmp_path: Path) -> None:
    first, found = make_teacher(Plan.of(recipe(), tmp_path), CPU)
    assert not found
    again, found = make_teacher(Plan.of(recipe(), tmp_path), CPU)
    assert found
    assert again == first


def test_it_leaves_its_logits_on_the_test_part(tmp_path: Path) -> None:
    result = teach(tmp_path)
    left = np.load(result.folder / TEST_LOGITS)
    test = Splits.load(recipe().settings).test
    assert left.shape == (360, 10)
    torch.testing.assert_close(torch.from_numpy(left), predict(load_network(result), test, CPU))
    assert result.metrics["top1"] == pytest.approx(float((left.argmax(1) == test.data.labels).mean()))


def test_given_weights_are_taken_as_they_are_with_no_epochs(tmp_path: Path) -> None:
    trained = teach(tmp_path)
    given = f"teacher.weights={str(trained.folder / WEIGHTS)!r}"
    taken = teach(tmp_path, given, "teacher.epochs=0")
    assert taken.weights_sha256 == trained.weights_sha256
    assert taken.folder != trained.folder
    assert not (taken.folder / METRICS).exists()


def test_given_weights_are_trained_further_with_epochs(tmp_path: Path) -> None:
    trained = teach(tmp_path)
    given = f"teacher.weights={str(trained.folder / WEIGHTS)!r}"
    further = teach(tmp_path, given, "teacher.epochs=2", "teacher.lr=0.001")
    assert further.weights_sha256 != trained.weights_sha256
    assert further.metrics["loss"] < trained.metrics["loss"]


def test_weights_that_do_not_fit_are_refused_and_leave_nothing_that_looks_finished(tmp_path: Path) -> None:
    trained = teach(tmp_path)
    given = f"teacher.weights={str(trained.folder / WEIGHTS)!r}"
    with pytest.raises(WeightsError, match="does not fit this network"):
        teach(tmp_path / "other", given, "teacher.network.width=5")
    assert not list((tmp_path / "other").glob("**/result.json"))


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("student.network='nope'", "network 'nope': unknown"),
        ("student.network={name='mlp', hiden=3}", "unknown argument 'hiden'"),
        ("student.network='no_module:build'", "network 'no_module:build': cannot be imported"),
        ("student.class_weights=[1, 2]", "student.class_weights: 2 numbers, and the data have 10 classes"),
        ("student.weights='none.pth'", "none.pth: "),
        ("student.weights='teacher'", None),  # which is not there yet
    ],
)
def test_that_the_students_of_a_recipe_cannot_be_trained_is_said_before_its_teacher_is(
    tmp_path: Path,
    setting: str,
    said: str | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    forget_what_was_said()
    plan, state = Plan.of(recipe(setting), tmp_path), torch.random.get_rng_state()
    with monkeypatch.context() as patch, contextlib.suppress(PipelineError):
        patch.setattr(torch.cuda, "device_count", lambda: 2)  # GPUs that are left alone
        require_trainable(plan)
    assert torch.equal(torch.random.get_rng_state(), state)
    make_teacher(plan, CPU)
    untrainable, err = "the recipe's own students cannot be trained: ", capsys.readouterr().err
    assert err.count(untrainable) == (said is not None), err
    assert said is None or said in err.partition(untrainable)[2]


def test_a_teacher_is_not_trained_without_a_label(tmp_path: Path) -> None:
    plan = Plan.of(recipe(), tmp_path)
    plan.splits.teacher_train.data.labels[:] = -1
    with pytest.raises(DataError, match="no sample has a label"):
        make_teacher(plan, CPU)


def test_a_teacher_that_is_no_better_than_chance_as_it_is_taken_is_doubted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = teach(tmp_path).folder / WEIGHTS
    as_it_is = "teacher.epochs=0"
    teach(tmp_path, f"teacher.weights={str(weights)!r}", as_it_is)
    assert "chance" not in capsys.readouterr().err
    state = load_file(weights)
    for name, value in state.items():
        if value.shape[:1] == (10,):  # the last layer, with its classes in another order
            state[name] = value.roll(1, dims=0)
    save_file(state, other := tmp_path / "rolled.safetensors")
    teach(tmp_path, f"teacher.weights={str(other)!r}", as_it_is)
    assert "and chance is" in capsys.readouterr().err
