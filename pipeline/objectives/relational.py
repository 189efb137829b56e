"""Relations instead of values: DIST."""

from __future__ import annotations

from torch import Tensor

from decant.pipeline.objectives.hard_labels import cross_entropy, mean_of_rows
from decant.pipeline.objectives.terms import Terms, prepare_softmaxes, tempered

_FADING = 1e-8


def dist(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    beta: float = 2.0,
    gamma: float = 2.0,
    temperature: float = 4.0,
    ce_weight: float = 1.0,
    label_smoothing: float = 0.0,
    *,
    standardize: bool = False,
    sample_weights: Tensor | None = None,
) -> Terms:
    """CE + T²·(β·inter + γ·intra): Huang et al., "Knowledge Distillation from A Stronger Teacher" (2022), equations 8
    to 10.

    inter is the mean of 1 − ρ over the samples, ρ being Pearson's correlation of the two networks' softmaxes at T over
    the classes; intra the mean of 1 − ρ over the classes, the correlation being over the batch. The second is no mean
    over samples: a larger batch is another, better estimate, and sample weights have no part in it. As in the authors'
    code 1e-8 is added to the product of the norms that ρ is divided by, so that ρ fades to 0 where a row or column
    hardly varies.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> teacher = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 1.0]])
    >>> labels = torch.tensor([0, 1])
    >>> round(float(dist(teacher + 5, teacher, labels).soft), 2)  # only relations count
    0.0
    >>> round(float(dist(teacher.flip(1), teacher, labels).soft), 2)
    11.98
    """
    pairs = prepare_softmaxes(student_logits, teacher_logits, standardize)
    student, teacher = (tempered(logits, temperature).softmax(dim=1) for logits in pairs)
    inter = 1 - mean_of_rows(_correlations(student, teacher), sample_weights)
    intra = 1 - _correlations(student.T, teacher.T).mean()
    soft = temperature**2 * (beta * inter + gamma * intra)
    hard = cross_entropy(student_logits, labels, label_smoothing, sample_weights)
    return Terms(ce_weight * hard + soft, hard, soft)


def _correlations(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's ρ of each row of one with that of the other."""
    one, other = (values - values.mean(dim=1, keepdim=True) for values in (one, other))
    norms = one.norm(dim=1) * other.norm(dim=1)
    return (one * other).sum(dim=1) / (norms + _FADING)
