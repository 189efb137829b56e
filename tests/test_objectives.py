"""Distillation losses against the formulas written out in float64, and the properties that theory gives them."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import log_softmax
from torch import Tensor
from torch.nn import functional

from pipeline.objectives import (
    NO_LABEL,
    build,
    ce_plus_kl,
    cross_entropy,
    kd,
    logit_mse,
    softened_kl,
)
from pipeline.settings import KD, CEPlusKL, LogitMSE

Array = NDArray[np.float64]
LOSSES: dict[str, Callable[..., Tensor]] = {"kd": kd, "ce+kl": ce_plus_kl, "mse": logit_mse}


def problem(
    batch: int = 32, classes: int = 10, spread: float = 3.0, seed: int = 0
) -> tuple[Tensor, Tensor, Tensor]:
    """Student and teacher logits, float32, and labels of which the third is missing."""
    random = np.random.default_rng(seed)
    student, teacher = (spread * random.normal(size=(2, batch, classes))).astype(np.float32)
    labels = random.integers(0, classes, batch)
    labels[2:3] = NO_LABEL
    return torch.from_numpy(student), torch.from_numpy(teacher), torch.from_numpy(labels)


# The formulas, a sample at a time


def longhand_ce(logits: Array, labels: NDArray[np.int64], smoothing: float = 0.0) -> float:
    terms = []
    for row, label in zip(logits, labels, strict=True):
        if label != -1:
            logarithms = log_softmax(row)
            target = np.full(len(row), smoothing / len(row))
            target[label] += 1 - smoothing
            terms.append(-(target * logarithms).sum())
    return float(np.mean(terms)) if terms else 0.0


def longhand_kl(student: Array, teacher: Array, temperature: float) -> float:
    terms = []
    for ours, theirs in zip(student / temperature, teacher / temperature, strict=True):
        p = np.exp(theirs - theirs.max())
        p /= p.sum()
        q = np.exp(ours - ours.max())
        q /= q.sum()
        terms.append((p * (np.log(p) - np.log(q))).sum())
    return temperature**2 * float(np.mean(terms))


def longhand(
    name: str, student: Array, teacher: Array, labels: Any, weight: float, temperature: float
) -> float:
    hard = longhand_ce(student, labels)
    match name:
        case "kd":
            return (1 - weight) * hard + weight * longhand_kl(student, teacher, temperature)
        case "ce+kl":
            return hard + weight * longhand_kl(student, teacher, temperature)
        case _:
            return (1 - weight) * hard + weight * float(np.mean((student - teacher) ** 2))


def arguments(name: str, weight: float, temperature: float) -> dict[str, float]:
    if name == "mse":
        return {"alpha": weight}
    return {"weight" if name == "ce+kl" else "alpha": weight, "temperature": temperature}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.9, 1.0])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_a_loss_is_its_formula(name: str, weight: float, temperature: float) -> None:
    student, teacher, labels = problem()
    expected = longhand(
        name, student.double().numpy(), teacher.double().numpy(), labels.numpy(), weight, temperature
    )
    given = arguments(name, weight, temperature)
    in_double = LOSSES[name](student.double(), teacher.double(), labels, **given).item()
    in_single = LOSSES[name](student, teacher, labels, **given).item()
    assert in_double == pytest.approx(expected, rel=1e-12, abs=1e-12)
    assert in_single == pytest.approx(expected, rel=2e-6, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_defaults_are_those_of_a_recipe(name: str) -> None:
    settings = {"kd": KD(name="kd"), "ce+kl": CEPlusKL(name="ce+kl"), "mse": LogitMSE(name="mse")}[name]
    batch = problem()
    assert torch.equal(build(settings)(*batch), LOSSES[name](*batch))


def test_build_hands_on_what_the_recipe_says() -> None:
    batch = problem()
    for settings, expected in [
        (KD(name="kd", alpha=0.2, temperature=3), kd(*batch, 0.2, 3.0, 0.1)),
        (CEPlusKL(name="ce+kl", weight=7, temperature=3), ce_plus_kl(*batch, 7.0, 3.0, 0.1)),
        (LogitMSE(name="mse", alpha=0.2), logit_mse(*batch, 0.2, 0.1)),
    ]:
        assert torch.equal(build(settings, label_smoothing=0.1)(*batch), expected), settings


# What theory gives


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_is_that_of_the_loss(name: str) -> None:
    student, teacher, labels = problem(batch=4, classes=5)
    inputs = student.double().requires_grad_(), teacher.double(), labels
    assert torch.autograd.gradcheck(lambda s, t, y: LOSSES[name](s, t, y, 0.6), inputs)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_soft_part_is_zero_and_flat_where_the_student_is_the_teacher(temperature: float) -> None:
    _, teacher, labels = problem()
    for loss in (
        lambda s: softened_kl(s, teacher.double(), temperature),
        lambda s: logit_mse(s, teacher.double(), labels, alpha=1.0),
        lambda s: kd(s, teacher.double(), labels, alpha=1.0, temperature=temperature),
    ):
        student = teacher.double().requires_grad_()
        value = loss(student)
        value.backward()
        assert abs(value.item()) < 1e-14
        assert student.grad is not None
        assert student.grad.abs().max() < 1e-14


def test_the_soft_part_is_positive_anywhere_else() -> None:
    for seed in range(50):
        student, teacher, _ = problem(batch=1, seed=seed)
        assert softened_kl(student, teacher, 2.0) > 0


@pytest.mark.parametrize("name", ["kd", "ce+kl"])
def test_a_constant_added_to_a_samples_logits_changes_nothing(name: str) -> None:
    student, teacher, labels = (value.double() if value.is_floating_point() else value for value in problem())
    shift = torch.linspace(-50, 50, len(student), dtype=torch.float64)[:, None]
    expected = LOSSES[name](student, teacher, labels).item()
    assert LOSSES[name](student + shift, teacher - 2 * shift, labels).item() == pytest.approx(
        expected, rel=1e-12
    )


def test_matching_logits_notices_a_constant() -> None:
    student, teacher, labels = problem()
    assert logit_mse(teacher + 3, teacher, labels).item() == pytest.approx(9, rel=1e-5)
    assert logit_mse(student, teacher, labels) != logit_mse(student + 3, teacher, labels)


def test_t_squared_keeps_the_gradients_size() -> None:
    """For high T it nears that of matching centred logits, (s − t) / (B·C): Hinton et al. (2015), equation 4."""
    student, teacher, _ = (value.double() for value in problem(spread=1.0))
    expected = (
        student - student.mean(1, keepdim=True) - teacher + teacher.mean(1, keepdim=True)
    ) / student.numel()
    sizes = []
    for temperature in (1.0, 4.0, 10_000.0):
        leaf = student.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(softened_kl(leaf, teacher, temperature), leaf)
        sizes.append(gradient.norm().item())
    assert (gradient - expected).abs().max() < 1e-3 * expected.abs().max()
    assert max(sizes) < 3 * min(sizes), sizes


# Weights at their ends


@pytest.mark.parametrize("name", LOSSES)
def test_weights_at_their_ends_leave_one_part_alone(name: str) -> None:
    student, teacher, labels = problem()
    hard = cross_entropy(student, labels)
    soft = functional.mse_loss(student, teacher) if name == "mse" else softened_kl(student, teacher, 4.0)
    assert torch.equal(LOSSES[name](student, teacher, labels, 0.0), hard)
    assert torch.equal(LOSSES[name](student, teacher, labels, 1.0), hard + soft if name == "ce+kl" else soft)


# Labels


def test_cross_entropy_is_torchs_with_any_smoothing() -> None:
    student, _, labels = problem()
    for smoothing in (0.0, 0.1, 0.5):
        expected = functional.cross_entropy(student, labels, ignore_index=-1, label_smoothing=smoothing)
        found = cross_entropy(student, labels, smoothing)
        assert found.item() == pytest.approx(expected.item(), rel=1e-6), smoothing
        by_hand = longhand_ce(student.double().numpy(), labels.numpy(), smoothing)
        assert found.item() == pytest.approx(by_hand, rel=1e-6), smoothing


@pytest.mark.parametrize("name", LOSSES)
def test_a_sample_without_a_label_learns_from_the_teacher_alone(name: str) -> None:
    student, teacher, labels = problem()
    student.requires_grad_()
    hard, soft = cross_entropy(student, labels), LOSSES[name](student, teacher, labels, 0.5)
    (of_hard,) = torch.autograd.grad(hard, student)
    (of_both,) = torch.autograd.grad(soft, student)
    assert not of_hard[2].any()
    assert of_both[2].any()
    keep = labels != NO_LABEL
    assert cross_entropy(student[keep], labels[keep]).item() == pytest.approx(hard.item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_without_any_label_the_hard_part_is_zero_and_not_nan(name: str) -> None:
    student, teacher, labels = problem()
    student.requires_grad_()
    none = torch.full_like(labels, NO_LABEL)
    loss = LOSSES[name](student, teacher, none, 0.5)
    soft = functional.mse_loss(student, teacher) if name == "mse" else softened_kl(student, teacher, 4.0)
    assert cross_entropy(student, none, 0.1).item() == 0.0
    assert loss.item() == pytest.approx(0.5 * soft.item())
    loss.backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


# Numbers


@pytest.mark.parametrize("name", LOSSES)
def test_huge_logits_give_no_nan_in_loss_or_gradient(name: str) -> None:
    extremes = torch.tensor(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)))
    student = extremes.repeat_interleave(len(extremes), 0).requires_grad_()
    teacher, labels = extremes.repeat(len(extremes), 1), torch.arange(len(extremes) ** 2) % 3
    for temperature in (0.5, 1.0, 20.0):
        loss = LOSSES[name](student, teacher, labels, **arguments(name, 0.9, temperature))
        (gradient,) = torch.autograd.grad(loss, student)
        assert loss.isfinite(), f"T = {temperature}: {loss}"
        assert gradient.isfinite().all(), f"T = {temperature}"


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_float32(name: str, dtype: torch.dtype) -> None:
    student, teacher, labels = problem()
    low, wide = (student.to(dtype), teacher.to(dtype)), (student.to(dtype).float(), teacher.to(dtype).float())
    found = LOSSES[name](*low, labels)
    assert found.dtype == torch.float32
    assert torch.equal(found, LOSSES[name](*wide, labels))
    mixed = LOSSES[name](wide[0], low[1], labels)
    assert torch.equal(mixed, found), "as a float16 cache gives them to a float32 student"


@pytest.mark.parametrize("name", LOSSES)
def test_float64_logits_stay_so(name: str) -> None:
    student, teacher, labels = problem()
    assert LOSSES[name](student.double(), teacher.double(), labels).dtype == torch.float64


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_leaves_its_inputs_as_they_are(name: str) -> None:
    given = problem()
    LOSSES[name](*given)
    for found, expected in zip(given, problem(), strict=True):
        assert torch.equal(found, expected)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_a_mean_over_the_batch(name: str) -> None:
    student, teacher, labels = (value.double() if value.is_floating_point() else value for value in problem())
    labels = labels.clamp(min=0)
    alone = [
        LOSSES[name](student[i : i + 1], teacher[i : i + 1], labels[i : i + 1]).item() for i in range(32)
    ]
    assert LOSSES[name](student, teacher, labels).item() == pytest.approx(np.mean(alone), rel=1e-12)
