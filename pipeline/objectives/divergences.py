"""Softmaxes at a temperature, compared class by class: KL, cross-entropy, Jensen–Shannon, and the objectives that
weigh one of them against the labels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.hard_labels import cross_entropy, mean_of_rows, weigh_samples
from decant.pipeline.objectives.terms import Terms, at_least_float32, between, prepare_softmaxes, tempered


def kl_rows(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """(B,) KL(softmax(t/T) ‖ softmax(s/T))."""
    student, teacher = _log_softmaxes(student_logits, teacher_logits, temperature)
    return functional.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=1)


def cross_entropy_rows(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """(B,) −Σ softmax(t/T)·log softmax(s/T)."""
    student, teacher = _log_softmaxes(student_logits, teacher_logits, temperature)
    return -(teacher.exp() * student).sum(dim=1)


def softened_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float, sample_weights: Tensor | None = None
) -> Tensor:
    """T²·KL(softmax(t/T) ‖ softmax(s/T)): Hinton, Vinyals, Dean (2015), section 2; T² keeps the gradient's
    size.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> round(float(softened_kl(student, teacher, temperature=4.0)), 4)
    0.1023
    >>> float(softened_kl(teacher, teacher, temperature=4.0))
    0.0
    """
    rows = kl_rows(student_logits, teacher_logits, temperature)
    return mean_of_rows(rows, sample_weights) * temperature**2


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    *,
    class_weights: Sequence[float] | None = None,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·T²·KL: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015).

    With `class_weights` w (C,), both terms are weighted means over the samples: a sample weighs Σ y·w by its label
    y, or Σ p·w by the teacher's softmax p at T = 1 where it has none. Weighing whole samples, unlike weighing
    classes within the KL, leaves each one's minimum at the teacher. Equal weights change nothing.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> total, hard, soft = kd(student, teacher, labels)
    >>> [round(float(term), 4) for term in (total, hard, soft)]
    [0.1328, 0.4076, 0.1023]
    >>> torch.isclose(total, 0.1 * hard + 0.9 * soft)
    tensor(True)
    """
    student, teacher = prepare_softmaxes(student_logits, teacher_logits, standardize)
    if class_weights is not None:
        if len(class_weights) != teacher.shape[1]:
            raise RecipeError(
                f"student.objective.class_weights: expected one a class, {teacher.shape[1]}, found "
                f"{len(class_weights)}"
            )
        sample_weights = weigh_samples(class_weights, labels, teacher_logits)
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    soft = temperature**2 * mean_of_rows(kl_rows(student, teacher, temperature), sample_weights)
    return between(alpha, hard, soft)


def ce_plus_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    weight: float = 1.0,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """CE + λ·T²·KL: the same two terms with the teacher's weighed against a whole cross-entropy.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> total, hard, soft = ce_plus_kl(student, teacher, labels, weight=2.0)
    >>> torch.isclose(total, hard + 2 * soft)
    tensor(True)
    """
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    soft = softened_kl(
        *prepare_softmaxes(student_logits, teacher_logits, standardize), temperature, sample_weights
    )
    return Terms(hard + weight * soft, hard, soft)


def soft_ce(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE − α·T²·Σ softmax(t/T)·log softmax(s/T): Hinton, Vinyals, Dean (2015), section 2, as written there.

    It is `kd` plus the teacher's entropy, which no gradient sees; its minimum is that entropy.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> round(float(soft_ce(student, teacher, labels).soft), 4)
    17.5635
    >>> round(float(soft_ce(teacher, teacher, labels).soft), 4)
    17.4612
    """
    student, teacher = prepare_softmaxes(student_logits, teacher_logits, standardize)
    soft = mean_of_rows(cross_entropy_rows(student, teacher, temperature), sample_weights) * temperature**2
    return between(alpha, cross_entropy(student_logits, labels, label_smoothing, sample_weights), soft)


def js(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·T²·(½·KL(p ‖ m) + ½·KL(q ‖ m)), where p and q are the softmaxes of teacher and student at T and
    m = ½·(p + q): Lin, "Divergence Measures Based on the Shannon Entropy" (1991), equation 4.1 with equal weights;
    in distillation Agarwal et al. (2024). Symmetric, and between 0 and T²·ln 2.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> torch.equal(js(student, teacher, labels).soft, js(teacher, student, labels).soft)
    True
    """
    student, teacher = _log_softmaxes(
        *prepare_softmaxes(student_logits, teacher_logits, standardize), temperature
    )
    middle = torch.logaddexp(student, teacher) - math.log(2)
    rows = teacher.exp() * (teacher - middle) + student.exp() * (student - middle)
    soft = mean_of_rows(rows.sum(dim=1), sample_weights) / 2 * temperature**2
    return between(alpha, cross_entropy(student_logits, labels, label_smoothing, sample_weights), soft)


def rkl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·T²·KL(softmax(s/T) ‖ softmax(t/T)), the KL reversed: Gu et al., "MiniLLM" (2024), section 2.1,
    there over sequences. The student pays for classes that the teacher holds unlikely, not for those it leaves out.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> torch.equal(rkl(student, teacher, labels).soft, softened_kl(teacher, student, 4.0))
    True
    """
    student, teacher = prepare_softmaxes(student_logits, teacher_logits, standardize)
    soft = softened_kl(teacher, student, temperature, sample_weights)
    return between(alpha, cross_entropy(student_logits, labels, label_smoothing, sample_weights), soft)


def _log_softmaxes(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    student = functional.log_softmax(tempered(at_least_float32(student_logits), temperature), dim=1)
    return student, functional.log_softmax(tempered(at_least_float32(teacher_logits), temperature), dim=1)
