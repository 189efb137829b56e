"""Every objective against its formula written out in float64, and the properties that theory gives it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.objectives import Terms, kd, regression, squared_error
from tests.helpers import longhand
from tests.helpers.problems import CLASSIFYING, DEFAULTS, SMOOTHED, SOFTMAX, WEIGHTS, found, mixed, problem


def same(terms: Terms, expected: longhand.Found, tolerance: float = 1e-6) -> None:
    for field, ours, theirs in zip(Terms._fields, terms, expected, strict=True):
        assert (ours is None) == (theirs is None), field
        if ours is not None:
            assert ours.ndim == 0
            assert ours.item() == pytest.approx(theirs, rel=tolerance, abs=tolerance), field


def against_longhand(name: str, batch: tuple[Tensor, Tensor, Tensor], **settings: Any) -> None:
    expected = longhand.objective(name, *(part.numpy() for part in batch), **{**DEFAULTS[name], **settings})
    same(found(name, *batch, **settings), expected)
    student, teacher, labels = batch
    same(found(name, student.float(), teacher.float(), labels, **settings), expected, tolerance=2e-5)


# The formulas


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
@pytest.mark.parametrize("name", SOFTMAX)
def test_it_is_its_formula_at_any_temperature(name: str, temperature: float) -> None:
    against_longhand(name, problem(name), temperature=temperature)


@pytest.mark.parametrize("name", CLASSIFYING)
def test_it_is_its_formula_with_weights_at_their_ends(name: str) -> None:
    keys = sorted(WEIGHTS & DEFAULTS[name].keys())
    for values in itertools.product([0.0, 0.3, 1.0], repeat=len(keys)):
        against_longhand(name, problem(name), **dict(zip(keys, values, strict=True)))


@pytest.mark.parametrize("name", CLASSIFYING)
def test_it_is_its_formula_with_mixed_labels(name: str) -> None:
    student, teacher, labels = problem(name)
    against_longhand(name, (student, teacher, mixed(labels)))
    against_longhand(name, (student, teacher, mixed(labels, share=0.3)))


@pytest.mark.parametrize("name", SOFTMAX)
def test_it_is_its_formula_of_z_scores_when_standardized(name: str) -> None:
    student, teacher, labels = problem(name)
    against_longhand(name, (student, teacher, labels), standardize=True)
    scaled = found(name, student, 7 * teacher - 3, labels, standardize=True)
    expected = found(name, student, teacher, labels, standardize=True)
    assert scaled.total.item() == pytest.approx(expected.total.item(), rel=1e-9), (
        "the teacher's scale is gone"
    )


@pytest.mark.parametrize("name", SMOOTHED)
def test_it_is_its_formula_with_label_smoothing(name: str) -> None:
    student, teacher, labels = problem(name)
    against_longhand(name, (student, teacher, labels), label_smoothing=0.1)
    against_longhand(name, (student, teacher, mixed(labels)), label_smoothing=0.1)


@pytest.mark.parametrize(("one", "other"), list(itertools.product(["kl", "ce"], repeat=2)))
def test_general_takes_either_divergence_of_either_cache(one: str, other: str) -> None:
    against_longhand(
        "general", problem("general"), teacher_divergence=one, knowledge_divergence=other, alpha=0.2
    )


def test_class_weights_weigh_samples() -> None:
    student, teacher, labels = problem()
    weights = (0.5, 1.0, 2.0, 0.0, 7.0)
    against_longhand("kd", (student, teacher, labels), class_weights=weights)
    against_longhand("kd", (student, teacher, mixed(labels)), class_weights=weights)
    against_longhand("kd", (student, teacher, labels), class_weights=weights, standardize=True)
    hard = kd(student, teacher, labels, class_weights=weights).hard
    theirs = torch.nn.functional.cross_entropy(
        student, labels, torch.tensor(weights).double(), ignore_index=-1
    )
    assert hard is not None
    assert hard.item() == pytest.approx(theirs.item(), rel=1e-9)
    equal = kd(student, teacher, labels, class_weights=[3.0] * 5)
    assert equal.total.item() == pytest.approx(kd(student, teacher, labels).total.item(), rel=1e-12)
    with pytest.raises(RecipeError, match="class_weights: expected one a class, 5, found 2"):
        kd(student, teacher, labels, class_weights=(1.0, 2.0))


@pytest.mark.parametrize("classes", [2, 1000])
@pytest.mark.parametrize("name", CLASSIFYING)
def test_any_number_of_classes_will_do(name: str, classes: int) -> None:
    student, teacher, labels = problem(name, batch=6, classes=classes)
    against_longhand(name, (student, teacher, labels))
    against_longhand(name, (student, teacher, mixed(labels, classes)))


def test_one_class_has_no_others() -> None:
    for name in ("dkd", "nkd"):
        with pytest.raises(RecipeError, match="there is only one"):
            found(name, torch.zeros(2, 1), torch.zeros(2, 1), torch.tensor([0, 0]))


def test_regression_is_two_mean_squares() -> None:
    student, teacher, _ = problem()
    targets = torch.linspace(-1, 1, student.numel(), dtype=torch.float64).view_as(student).clone()
    targets[3] = math.nan
    keep = [row for row in range(len(student)) if row != 3]
    hard = ((student - targets)[keep] ** 2).mean().item()
    soft = ((student - teacher) ** 2).mean().item()
    same(regression(student, teacher, targets, 0.3), (soft + 0.3 * hard, hard, soft), 1e-12)
    same(regression(student, teacher, torch.full_like(targets, math.nan)), (soft, 0.0, soft), 1e-12)
    with pytest.raises(DataError, match=r"floats of shape \(12, 5\), found int64 of shape \(12,\)"):
        squared_error(student, torch.zeros(12, dtype=torch.int64))
    with pytest.raises(DataError, match=r"found float64 of shape \(12, 1\)"):
        squared_error(student, targets[:, :1])
