"""Losses of sigmoid outputs against plain arithmetic in double precision, and where they have their least value."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from decant.pipeline.config.objectives import DKD, KD, LogitMSE
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.objectives import build, from_labels
from decant.pipeline.objectives.sigmoid import binary_cross_entropy, binary_kl, sigmoid_kd, sigmoid_mse

NAN = math.nan
STUDENT = [[0.3, -1.2, 4.0], [2.0, 0.0, -0.7]]
TEACHER = [[1.1, -3.0, 0.5], [-2.5, 0.4, 6.0]]
LABELS = [[1.0, 0.0, NAN], [0.0, 1.0, 1.0]]


def tensors() -> tuple[Tensor, Tensor, Tensor]:
    student, teacher, labels = (torch.tensor(one, dtype=torch.float64) for one in (STUDENT, TEACHER, LABELS))
    return student, teacher, labels


def sigma(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def hard(smoothing: float = 0.0) -> float:
    """The mean over the labels that are known."""
    found = []
    for scores, labels in zip(STUDENT, LABELS, strict=True):
        for z, y in zip(scores, labels, strict=True):
            if not math.isnan(y):
                y = (1 - smoothing) * y + smoothing / 2
                found.append(-y * math.log(sigma(z)) - (1 - y) * math.log(1 - sigma(z)))
    return sum(found) / len(found)


def soft(temperature: float) -> float:
    """T² times the mean over all entries of the divergence of two classes."""
    found = []
    for ours, theirs in zip(STUDENT, TEACHER, strict=True):
        for s, t in zip(ours, theirs, strict=True):
            p, q = sigma(t / temperature), sigma(s / temperature)
            found.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
    return temperature**2 * sum(found) / len(found)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_kd_of_sigmoids_is_the_formula(temperature: float, smoothing: float) -> None:
    found = sigmoid_kd(*tensors(), alpha=0.7, temperature=temperature, label_smoothing=smoothing)
    assert found.hard is not None
    assert found.soft is not None
    assert float(found.hard) == pytest.approx(hard(smoothing), rel=1e-12)
    assert float(found.soft) == pytest.approx(soft(temperature), rel=1e-12)
    assert float(found.total) == pytest.approx(0.3 * hard(smoothing) + 0.7 * soft(temperature), rel=1e-12)


def test_mse_of_logits_is_the_formula() -> None:
    squares = [(s - t) ** 2 for a, b in zip(STUDENT, TEACHER, strict=True) for s, t in zip(a, b, strict=True)]
    found = sigmoid_mse(*tensors(), alpha=0.4)
    assert float(found.total) == pytest.approx(0.6 * hard() + 0.4 * sum(squares) / 6, rel=1e-12)


def test_what_is_unknown_has_no_part_and_no_gradient() -> None:
    student, _, labels = tensors()
    student.requires_grad_()
    binary_cross_entropy(student, labels).backward()
    assert student.grad is not None
    assert student.grad[0, 2] == 0
    assert bool((student.grad[1] != 0).all())
    assert float(binary_cross_entropy(student, torch.full_like(labels, NAN)).detach()) == 0


def test_the_divergence_is_zero_where_both_agree_and_finite_where_neither_doubts() -> None:
    _, teacher, _ = tensors()
    assert float(binary_kl(teacher, teacher, 2.0).abs().max()) == 0
    sure = torch.tensor([[500.0, -500.0]])
    assert bool(binary_kl(sure, -sure, 1.0).isfinite().all())


def test_one_logit_is_half_a_softmax_of_two() -> None:
    """σ(z) is the softmax of (0, z): its divergence is the KL of those two classes."""
    student, teacher, _ = (one[:, :1] for one in tensors())
    two = [torch.cat([torch.zeros_like(one), one], 1) for one in (student, teacher)]
    kl = build(KD(name="kd", alpha=1.0, temperature=3.0))(*two, torch.tensor([0, 1]))
    one = build(KD(name="kd", alpha=1.0, temperature=3.0), task="binary")(student, teacher, student.sigmoid())
    assert float(one.total) == pytest.approx(float(kl.total), rel=1e-12)


def test_a_recipe_gets_the_loss_of_its_task() -> None:
    student, teacher, labels = tensors()
    found = build(KD(name="kd"), task="multilabel")(student, teacher, labels)
    assert float(found.total) == float(sigmoid_kd(student, teacher, labels).total)
    found = build(LogitMSE(name="mse"), task="multilabel")(student, teacher, labels)
    assert float(found.total) == float(sigmoid_mse(student, teacher, labels).total)
    assert float(from_labels(0.1, task="binary")(student, labels)) == pytest.approx(hard(0.1))


def test_what_is_of_softmaxes_is_refused_with_what_fits() -> None:
    with pytest.raises(RecipeError, match=r"'dkd': compares softmaxes, and a multilabel task .* kd, mse"):
        build(DKD(name="dkd"), task="multilabel")
    for given in ({"standardize": True}, {"class_weights": (1.0, 2.0)}):
        with pytest.raises(RecipeError, match=rf"objective.{next(iter(given))}: is of softmaxes"):
            build(KD(name="kd", **given), task="binary")


@pytest.mark.parametrize("label", [-1.0, 2.0, -1e-3])
def test_a_label_outside_0_to_1_is_refused_with_its_row(label: float) -> None:
    """The cross-entropy of −1 falls without end."""
    student, teacher, labels = tensors()
    labels[1, 2] = label
    with pytest.raises(DataError, match=rf"labels: row 1: expected 0 to 1 .* found {label:.4g}"):
        sigmoid_kd(student, teacher, labels)
    shares = torch.tensor([[0.25, 0.0, NAN], [1.0, 0.5, 0.75]])
    assert bool(binary_cross_entropy(student, shares).isfinite())
    of_ten = sum(torch.full((2, 3), 0.1) for _ in range(10))  # answers of annotators, each yes
    assert isinstance(of_ten, torch.Tensor)
    assert of_ten.max() > 1
    assert bool(binary_cross_entropy(student, of_ten).isfinite())


@pytest.mark.parametrize(
    "labels", [torch.tensor([0, 1]), torch.zeros(2, 1), torch.zeros(2, 3, dtype=torch.long)]
)
def test_labels_of_another_form_are_refused(labels: Tensor) -> None:
    with pytest.raises(DataError, match=r"must be floats of shape \(2, 3\)"):
        binary_cross_entropy(torch.zeros(2, 3), labels)
