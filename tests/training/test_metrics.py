"""What is measured of a network, against each figure counted by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax
from sklearn import metrics as scores

from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Task
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.objectives import NO_LABEL
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.metrics import (
    averages_over_classes,
    calibration_error,
    decisions,
    measure,
    top_k,
)
from tests.helpers.small import CPU, recipe


def answers(count: int = 500, classes: int = 12, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that favour the label, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    logits = 2 * random.normal(size=(count, classes))
    logits[np.arange(count), labels] += 2
    return torch.from_numpy(logits.astype(np.float32)), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [1, 4])
def test_decisions_are_scikit_learns_scores_of_the_labels_that_are_known(classes: int) -> None:
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, (300, classes)).astype(np.float32)
    logits = torch.from_numpy((random.normal(size=labels.shape) + labels).astype(np.float32))
    teacher_logits = torch.from_numpy(random.normal(size=labels.shape).astype(np.float32))
    said, likely = (logits.numpy() > 0).astype(int), expit(logits.numpy().astype(np.float64))
    task: Task = "binary" if classes == 1 else "multilabel"
    expected = {
        "loss": scores.log_loss(labels.ravel(), likely.ravel()),
        "agreement": float(((logits > 0) == (teacher_logits > 0)).double().mean()),
    }
    if task == "binary":
        expected |= {
            "accuracy": scores.accuracy_score(labels, said),
            "f1": scores.f1_score(labels.ravel(), said.ravel()),
            "auc": scores.roc_auc_score(labels, logits),
            "ap": scores.average_precision_score(labels, logits),
            "ece": calibration_error(
                torch.cat([torch.zeros_like(logits), logits], 1), torch.tensor(labels[:, 0])
            ),
        }
    else:
        expected |= {
            "f1_micro": scores.f1_score(labels, said, average="micro"),
            "f1_macro": scores.f1_score(labels, said, average="macro"),
            "exact_match": scores.accuracy_score(labels, said),
            "map": scores.average_precision_score(labels, logits, average="macro"),
        }
    assert decisions(logits, torch.from_numpy(labels), teacher_logits, task) == pytest.approx(expected)
    unknown = torch.full((7, classes), torch.nan)
    more = torch.cat([logits, torch.ones(7, classes)]), torch.cat([torch.from_numpy(labels), unknown])
    del expected["agreement"]
    assert decisions(*more, task=task) == pytest.approx(expected)
    assert decisions(torch.ones(7, classes), unknown, task=task) == {}


@pytest.mark.parametrize("k", [1, 2, 5, 12, 100])
def test_top_k_counts_the_labels_among_the_k_largest(k: int) -> None:
    logits, labels = answers()
    hits = sum(int(label) in np.argsort(-row)[:k] for row, label in zip(logits.numpy(), labels, strict=True))
    assert top_k(logits, labels, k) == hits / len(labels)


def longhand_ece(logits: np.ndarray, labels: np.ndarray, bins: int) -> float:
    """Σ over bins ((b/B, (b+1)/B]) of the share of samples in it × |accuracy − mean confidence|."""
    shares = softmax(logits.astype(np.float64), axis=1)
    confidence, right = shares.max(1), shares.argmax(1) == labels
    total = 0.0
    for place in range(bins):
        inside = (confidence > place / bins) & (confidence <= (place + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("seed", range(5))
def test_the_calibration_error_is_its_definition(bins: int, seed: int) -> None:
    logits, labels = answers(seed=seed)
    expected = longhand_ece(logits.numpy(), labels.numpy(), bins)
    assert calibration_error(logits, labels, bins) == pytest.approx(expected, abs=1e-6)


def test_a_confidence_on_the_edge_belongs_to_the_bin_below() -> None:
    logits = torch.tensor([[0.0, 0.0], [9.0, 0.0]])  # 1/2, and about 1: right, and wrong
    expected = (0.5 + float(softmax([9.0, 0.0])[0])) / 2
    assert calibration_error(logits, torch.tensor([0, 1]), bins=2) == pytest.approx(expected)


def test_a_sure_classifier_is_off_by_its_mistakes() -> None:
    logits = 100 * torch.eye(4)
    assert calibration_error(logits, torch.tensor([0, 1, 2, 3])) == 0.0
    assert calibration_error(logits, torch.tensor([0, 1, 2, 0])) == pytest.approx(0.25)
    assert calibration_error(logits, torch.tensor([3, 2, 1, 0])) == pytest.approx(1.0)


def test_a_classifier_that_knows_nothing_and_says_so_is_calibrated() -> None:
    logits, labels = torch.zeros(4, 4), torch.tensor([0, 1, 2, 3])
    assert calibration_error(logits, labels) == pytest.approx(0.0, abs=1e-7)


def test_measure_gives_every_figure_of_the_labelled_and_agreement_of_all() -> None:
    logits, labels = answers()
    teacher, _ = answers(seed=1)
    labels[:100] = NO_LABEL
    found = measure(logits, labels, teacher)
    rows, known = logits.double().numpy(), labels.numpy() >= 0
    logarithms = log_softmax(rows[known], axis=1)[np.arange(400), labels[100:].numpy()]
    assert set(found) == {"top1", "top5", "balanced_accuracy", "macro_f1", "loss", "ece", "agreement"}
    assert found["top1"] == np.mean(rows[known].argmax(1) == labels.numpy()[known])
    assert found["top5"] == top_k(logits[100:], labels[100:], 5) > found["top1"]
    assert found["loss"] == pytest.approx(-logarithms.mean(), rel=1e-6)
    assert found["ece"] == calibration_error(logits[100:], labels[100:])
    assert found["agreement"] == np.mean(rows.argmax(1) == teacher.numpy().argmax(1))


def test_a_network_agrees_with_itself() -> None:
    logits, labels = answers()
    assert measure(logits, labels, 3 * logits + 1)["agreement"] == 1.0


def test_without_labels_there_is_agreement_alone() -> None:
    logits, labels = answers()
    none = torch.full_like(labels, NO_LABEL)
    assert measure(logits, none, logits) == {"agreement": 1.0}
    assert measure(logits, none) == {}


def test_without_a_teacher_there_is_no_agreement() -> None:
    assert "agreement" not in measure(*answers())


def test_figures_are_plain_numbers_whatever_the_logits_are() -> None:
    logits, labels = answers()
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        found = measure(logits.to(dtype), labels, logits.to(dtype))
        assert all(type(value) is float for value in found.values())
        assert found["loss"] == pytest.approx(measure(logits, labels)["loss"], rel=1e-2)


def test_fewer_than_five_classes_are_all_among_the_top_five() -> None:
    logits, labels = answers(classes=3)
    assert measure(logits, labels)["top5"] == 1.0


def test_of_targets_errors_are_measured_and_nothing_of_classes() -> None:
    outputs = torch.tensor([[1.0, 0.0], [2.0, 0.0], [3.0, 5.0]])
    targets = torch.tensor([[1.0, float("nan")], [4.0, float("nan")], [1.0, float("nan")]])
    found = measure(outputs, targets, outputs)
    assert found == {"mse": pytest.approx(8 / 3), "mae": pytest.approx(4 / 3), "r2": pytest.approx(1 - 8 / 6)}
    assert all(type(value) is float for value in found.values())
    assert measure(outputs, torch.full_like(targets, float("nan"))) == {}
    assert measure(outputs.bfloat16(), targets)["mse"] == found["mse"]
    assert measure(outputs, torch.ones_like(targets)) == {
        "mse": pytest.approx(23 / 6),
        "mae": pytest.approx(9 / 6),
    }


# The logits that are measured


def test_predictions_are_in_the_order_of_the_samples_whatever_the_batch() -> None:
    test = Splits.load(recipe().settings).test
    network = build_network(specify_network(Training(network={"name": "conv"}, epochs=1).network, test))
    whole = predict(network, test, CPU, batch_size=360)
    torch.testing.assert_close(predict(network, test, CPU, batch_size=7), whole, rtol=1e-4, atol=1e-5)
    network.eval()
    with torch.inference_mode():
        torch.testing.assert_close(network(test[123][0][None])[0], whole[123], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
def test_the_metrics_averages_over_classes_are_those_of_scikit_learn(seed: int) -> None:
    reference = pytest.importorskip("sklearn.metrics")
    logits, labels = answers(seed=seed)
    labels[labels > 8] = 0  # classes without labels, which are answered all the same
    predicted = logits.argmax(1)
    balanced, f1 = averages_over_classes(logits, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert balanced == pytest.approx(reference.balanced_accuracy_score(labels, predicted))
    assert f1 == pytest.approx(reference.f1_score(labels, predicted, average="macro"))
