"""Distillation losses: pure functions of (student_logits, teacher_logits, labels).

Logits are (B, C), raw, of any float dtype; labels are (B,) int64, with −1 where there is none. Every loss is
the mean over the batch, a scalar, computed in float32, or in float64 where the logits are.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from pipeline.samples import NO_LABEL
from pipeline.settings import KD, CEPlusKL, LogitMSE, Objective

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(student_logits, teacher_logits, labels) → loss."""


def build(settings: Objective, label_smoothing: float = 0.0) -> Loss:
    """The loss that a recipe's `[student.objective]` describes."""

    def loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        pair = student_logits, teacher_logits
        match settings:
            case KD():
                return kd(*pair, labels, settings.alpha, settings.temperature, label_smoothing)
            case CEPlusKL():
                return ce_plus_kl(*pair, labels, settings.weight, settings.temperature, label_smoothing)
            case LogitMSE():
                return logit_mse(*pair, labels, settings.alpha, label_smoothing)

    return loss


def cross_entropy(logits: Tensor, labels: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean of −log softmax(logits)[label] over the samples that have a label; 0 where none has."""
    labelled = (labels != NO_LABEL).sum().clamp(min=1)
    total = functional.cross_entropy(
        _wide(logits), labels, ignore_index=NO_LABEL, label_smoothing=label_smoothing, reduction="sum"
    )
    return total / labelled


def softened_kl(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T²·KL(softmax(t/T) ‖ softmax(s/T)): Hinton, Vinyals, Dean (2015), section 2; T² keeps the gradient's
    size.
    """
    student = functional.log_softmax(_wide(student_logits) / temperature, dim=1)
    teacher = functional.log_softmax(_wide(teacher_logits) / temperature, dim=1)
    return functional.kl_div(student, teacher, reduction="batchmean", log_target=True) * temperature**2


def kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 − α)·CE + α·T²·KL: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network" (2015)."""
    hard = cross_entropy(student_logits, labels, label_smoothing)
    return (1 - alpha) * hard + alpha * softened_kl(student_logits, teacher_logits, temperature)


def ce_plus_kl(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    weight: float = 1.0,
    temperature: float = 4.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """CE + λ·T²·KL: the same two terms with the teacher's weighed against a whole cross-entropy."""
    hard = cross_entropy(student_logits, labels, label_smoothing)
    return hard + weight * softened_kl(student_logits, teacher_logits, temperature)


def logit_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
) -> Tensor:
    """(1 − α)·CE + α·mean (s − t)²: Ba, Caruana, "Do Deep Nets Really Need to be Deep?" (2014), eq. 2."""
    soft = functional.mse_loss(_wide(student_logits), _wide(teacher_logits))
    return (1 - alpha) * cross_entropy(student_logits, labels, label_smoothing) + alpha * soft


def _wide(logits: Tensor) -> Tensor:
    """In float32 at least."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
