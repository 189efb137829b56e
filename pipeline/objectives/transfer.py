"""Soft transfer in three parts: of the teacher's knowledge, of the data that it confirms, and of both to a model.

T is 0.5 unless the recipe says otherwise, which sharpens the softmaxes. No term has T².
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from decant.pipeline.objectives.divergences import cross_entropy_rows
from decant.pipeline.objectives.hard_labels import (
    cross_entropy,
    labelled,
    likeliest_label,
    mean_of_rows,
    weighted_mean,
)
from decant.pipeline.objectives.terms import Terms, prepare_softmaxes, tempered


def transfer_knowledge(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 0.5,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """−Σ softmax(t/T)·log softmax(s/T), the mean over all samples; labels have no part.

    The soft target of Hinton, Vinyals, Dean (2015) without their T²: the gradient grows with 1/T.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> round(float(transfer_knowledge(student, teacher, torch.tensor([-1])).total), 4)
    0.782
    """
    rows = cross_entropy_rows(*prepare_softmaxes(student_logits, teacher_logits, standardize), temperature)
    soft = mean_of_rows(rows, sample_weights)
    return Terms(soft, None, soft)


def transfer_data(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    temperature: float = 0.5,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """−(1/L)·Σ [argmax t = y]·log softmax(s/T)[y] over the L samples that have a label y.

    The label's negative log-likelihood at T, counted only where the teacher's likeliest class is that label: 0
    where it is not, and L counts both. Of a mixed label y is the class of the largest share. 0 where there is no
    label at all.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student = teacher = torch.tensor([[2.0, 0.0], [2.0, 0.0]])
    >>> labels = torch.tensor([0, 1])  # the teacher confirms the first alone
    >>> round(float(transfer_data(student, teacher, labels).total), 4)
    0.0091
    """
    student, teacher = prepare_softmaxes(student_logits, teacher_logits, standardize)
    label = likeliest_label(labels)
    likelihood = functional.log_softmax(tempered(student, temperature), dim=1).gather(1, label[:, None])[:, 0]
    confirmed = teacher.argmax(dim=1) == label
    counted = labelled(labels).to(student.dtype)
    counted = counted if sample_weights is None else counted * sample_weights
    soft = weighted_mean(-likelihood * confirmed, counted)
    return Terms(soft, None, soft)


def transfer_model(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    weight: float = 0.5,
    temperature: float = 0.5,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """λ·CE + (1 − λ)·data: the label's cross-entropy, at T = 1, and `transfer_data`, at T.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> labels = torch.tensor([0])
    >>> total, hard, soft = transfer_model(student, teacher, labels, weight=0.25)
    >>> torch.isclose(total, 0.25 * hard + 0.75 * soft)
    tensor(True)
    """
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    soft = transfer_data(
        student_logits,
        teacher_logits,
        labels,
        temperature,
        standardize=standardize,
        sample_weights=sample_weights,
    ).total
    return Terms(weight * hard + (1 - weight) * soft, hard, soft)
