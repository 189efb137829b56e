"""Squared differences: of logits, and of outputs that are numbers and not classes."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from decant.pipeline.errors import DataError
from decant.pipeline.objectives.hard_labels import cross_entropy, weighted_mean
from decant.pipeline.objectives.terms import Terms, at_least_float32, between, kind_of_labels, prepare_logits


def squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of (output − target)² over the targets that are not NaN; 0 where all are. Both are (B, T).

    Raises DataError for targets of another shape or kind.

    >>> import torch
    >>> outputs = torch.tensor([[1.0], [4.0]])
    >>> squared_error(outputs, torch.tensor([[3.0], [float('nan')]]))  # NaN is no target
    tensor(4.)
    """
    if targets.shape != outputs.shape or not targets.is_floating_point():
        raise DataError(
            f"targets of a regression must be floats of shape {tuple(outputs.shape)}, found "
            f"{kind_of_labels(targets, outputs)}"
        )
    known = ~targets.isnan()
    difference = at_least_float32(outputs) - targets.nan_to_num()
    return weighted_mean(difference.square().flatten(), known.to(difference.dtype).flatten())


def logit_mse(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    alpha: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    sample_weights: Tensor | None = None,
) -> Terms:
    """(1 − α)·CE + α·mean (s − t)²: Ba, Caruana, "Do Deep Nets Really Need to be Deep?" (2014), eq. 2.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> logit_mse(student, teacher, torch.tensor([0])).total
    tensor(0.6667)
    """
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    student, teacher = prepare_logits(student_logits, teacher_logits)
    if sample_weights is None:
        soft = functional.mse_loss(student, teacher)
    else:
        soft = weighted_mean((student - teacher).square().mean(dim=1), sample_weights)
    return between(alpha, hard, soft)


def regression(
    student_outputs: Tensor, teacher_outputs: Tensor, targets: Tensor, weight: float = 1.0
) -> Terms:
    """mean (s − t)² + λ·mean (s − y)²: the distillation of `logit_mse`, and the same of targets y. All are (B, T);
    a target that is NaN is none. Raises DataError for targets of another shape or kind.

    >>> import torch
    >>> student, teacher, targets = torch.tensor([[1.0]]), torch.tensor([[2.0]]), torch.tensor([[4.0]])
    >>> regression(student, teacher, targets, weight=0.5)
    Terms(total=tensor(5.5000), hard=tensor(9.), soft=tensor(1.))
    """
    hard = squared_error(student_outputs, targets)
    soft = functional.mse_loss(*prepare_logits(student_outputs, teacher_outputs))
    return Terms(soft + weight * hard, hard, soft)
