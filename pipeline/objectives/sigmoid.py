"""Losses of outputs that have a sigmoid each: one logit of a binary task, or C of a multi-label task.

Student and teacher logits are (B, C) raw, labels (B, C) floats: 0, 1, or NaN for an unknown one. Every loss is the mean
over all entries, as that of `torch.nn.BCEWithLogitsLoss`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from decant.pipeline.errors import DataError
from decant.pipeline.objectives.hard_labels import weighted_mean
from decant.pipeline.objectives.terms import (
    Terms,
    at_least_float32,
    between,
    kind_of_labels,
    prepare_logits,
    tempered,
)

_ROUNDING = 1e-4  # of labels that are sums, as means of several annotators' answers are


def binary_cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean of −y·log σ(z) − (1 − y)·log σ(−z) over the labels that are known; 0 where none is.

    With smoothing ε a label y counts as (1 − ε)·y + ε/2. Raises DataError for labels of another shape or kind, or
    outside 0 to 1: −1 would be an answer that the loss rewards without end.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 5.0]])
    >>> round(float(binary_cross_entropy(logits, torch.tensor([[1.0, float("nan")]]))), 4)  # ln 2
    0.6931
    """
    if labels.shape != logits.shape or not labels.is_floating_point():
        raise DataError(
            f"labels of sigmoid outputs must be floats of shape {tuple(logits.shape)}, found "
            f"{kind_of_labels(labels, logits)}"
        )
    if not labels.is_cuda and not torch.compiler.is_compiling():  # a GPU would have to be waited for
        _require_0_to_1(labels)
    logits = at_least_float32(logits)
    known = ~labels.isnan()
    targets = labels.nan_to_num().to(logits.dtype) * (1 - label_smoothing) + label_smoothing / 2
    entries = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return weighted_mean(entries.flatten(), known.to(logits.dtype).flatten())


def _require_0_to_1(labels: Tensor) -> None:
    outside = (labels < -_ROUNDING) | (labels > 1 + _ROUNDING)
    try:
        found = bool(outside.any())
    except RuntimeError:  # under torch.func.vmap, where values cannot be read
        return
    if found:
        place = tuple(outside.nonzero()[0].tolist())
        raise DataError(
            f"labels: row {place[0]}: expected 0 to 1 for each output, and NaN where it is not known, found "
            f"{float(labels[place]):.4g}"
        )


def binary_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """(B, C) KL of the two-class distributions (σ(t/T), σ(−t/T)) and (σ(s/T), σ(−s/T)), entry by entry.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    >>> binary_kl(student, teacher, temperature=1.0)
    tensor([[0.0000, 0.4338]])
    """
    student, teacher = tempered(student_logits, temperature), tempered(teacher_logits, temperature)
    terms = [
        torch.sigmoid(sign * teacher)
        * (functional.logsigmoid(sign * teacher) - functional.logsigmoid(sign * student))
        for sign in (1, -1)
    ]
    return terms[0] + terms[1]


def sigmoid_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """(1 − α)·BCE + α·T²·KL of each class's two-class distribution, the mean over samples and classes.

    The soft term is the multi-label logits distillation (MLD) of Yang et al., "Multi-Label Knowledge Distillation"
    (2023), section 3, which sums over the classes and has T = 1; T and T² are those of Hinton, Vinyals, Dean (2015).
    The teacher speaks of every class, labels only of those that are known.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[0.0, 2.0]]), torch.tensor([[0.0, 0.0]])
    >>> total, hard, soft = sigmoid_kd(student, teacher, torch.tensor([[1.0, 1.0]]), alpha=0.5, temperature=1.0)
    >>> [round(float(term), 4) for term in (total, hard, soft)]
    [0.3135, 0.41, 0.2169]
    """
    student, teacher = prepare_logits(student_logits, teacher_logits)
    hard = binary_cross_entropy(student_logits, labels, label_smoothing)
    soft = binary_kl(student, teacher, temperature).mean() * temperature**2
    return between(alpha, hard, soft)


def sigmoid_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
) -> Terms:
    """(1 − α)·BCE + α·mean (s − t)²: Ba, Caruana, "Do Deep Nets Really Need to be Deep?" (2014), eq. 2, with the
    cross-entropy of sigmoids.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0]])
    >>> sigmoid_mse(student, teacher, torch.tensor([[1.0, 0.0]])).total
    tensor(0.5000)
    """
    hard = binary_cross_entropy(student_logits, labels, label_smoothing)
    soft = functional.mse_loss(*prepare_logits(student_logits, teacher_logits))
    return between(alpha, hard, soft)
