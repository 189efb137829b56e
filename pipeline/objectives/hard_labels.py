"""The cross-entropy with labels, and what every objective does with labels: mixed ones, missing ones, weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from decant.pipeline.data.samples import NO_LABEL
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.objectives.terms import Terms, at_least_float32

_ROUNDING = 0.02
"""How far shares that were rounded, as to bfloat16, may be from 1."""


def cross_entropy(
    logits: Tensor, labels: Tensor, label_smoothing: float = 0.0, sample_weights: Tensor | None = None
) -> Tensor:
    """Mean of −log softmax(logits)[label] over the samples that have a label; 0 where none has.

    Of a mixed label it is −Σ label·log softmax(logits). `sample_weights` (B,) make it a weighted mean. Raises DataError
    for floats that are no shares of classes.

    >>> import torch
    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    >>> round(float(cross_entropy(logits, torch.tensor([0, -1]))), 4)  # −1 is no label
    0.1269
    >>> round(float(cross_entropy(logits, torch.tensor([[0.5, 0.5], [0.0, 1.0]]))), 4)  # mixed labels
    0.6269
    """
    labels = as_labels(labels)
    if labels.is_floating_point():
        require_shares(labels, logits, read=not labels.is_cuda and not torch.compiler.is_compiling())
        labels = labels.to(at_least_float32(logits).dtype)
    rows = functional.cross_entropy(
        at_least_float32(logits),
        labels,
        ignore_index=NO_LABEL,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    counted = labelled(labels).to(rows.dtype)
    return weighted_mean(rows, counted if sample_weights is None else counted * sample_weights)


def require_shares(labels: Tensor, logits: Tensor, read: bool = True) -> None:
    """Raises DataError for labels that are floats and no shares of the classes of `logits` (B, C): of another shape, or
    with a row that adds up neither to 1 nor, where there is no label, to 0. Sums are left out without `read`, as of
    labels on a GPU, which would have to be waited for.

    >>> import torch
    >>> require_shares(torch.tensor([[1.0, 1.0, 0.0]]), torch.zeros(1, 3))
    Traceback (most recent call last):
    ...
    decant.pipeline.errors.DataError: labels: row 0 adds up to 2, and shares of classes to 1: ...
    """
    if labels.shape != logits.shape:
        raise DataError(
            f"labels: expected shares of the classes, {tuple(logits.shape)}, found {tuple(labels.shape)}"
        )
    if not read:
        return
    sums = labels.sum(dim=1)
    wrong = ~(((sums - 1).abs() < _ROUNDING) | (labels == 0).all(dim=1))
    try:
        found = bool(wrong.any())
    except RuntimeError:  # under torch.func.vmap, where values cannot be read
        return
    if found:
        row = int(wrong.nonzero()[0])
        raise DataError(
            f"labels: row {row} adds up to {float(sums[row]):.4g}, and shares of classes to 1: the cross-entropy of "
            "softmaxes is not of these. Several classes a sample take sigmoid_kd (SigmoidKD), numbers regression "
            "(Regression)"
        )


def smoothed_labels(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    smoothing: float = 0.1,
    *,
    sample_weights: Tensor | None = None,
) -> Terms:
    """−Σ ((1 − ε)·y + ε/C)·log softmax(s): Szegedy et al., "Rethinking the Inception Architecture" (2016),
    section 7. Nothing of the teacher is looked at, and samples without a label have no part.

    Shapes, dtypes and errors are those of all losses: see `decant.objectives`.

    >>> import torch
    >>> student, teacher = torch.tensor([[2.0, 0.0, 1.0]]), torch.tensor([[1.0, 0.0, 0.0]])
    >>> round(float(smoothed_labels(student, teacher, torch.tensor([0]), smoothing=0.1).total), 4)
    0.5076
    """
    return Terms(
        cross_entropy(student_logits, labels, smoothing, sample_weights),
        cross_entropy(student_logits, labels, 0.0, sample_weights),
    )


def as_labels(labels: Tensor) -> Tensor:
    """Ids of classes (B,) int64, of integers of any size or booleans, (B,) or (B, 1); shares of classes (B, C) as they
    are. Raises DataError for anything else.

    >>> import torch
    >>> as_labels(torch.tensor([[2], [0]], dtype=torch.uint8))
    tensor([2, 0])
    """
    if labels.dtype == torch.int64 and labels.ndim == 1:
        return labels
    shares = labels.is_floating_point()
    if labels.ndim == 2 and (shares or labels.shape[1] == 1):
        return labels if shares else labels[:, 0].long()
    if labels.ndim == 1 and not shares:
        return labels.long()
    raise DataError(
        "labels: expected ids of classes (B,), integers, or shares of classes (B, C), floats, found "
        f"{str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}"
    )


def labelled(labels: Tensor) -> Tensor:
    """(B,) whether a sample has a label."""
    labels = as_labels(labels)
    return labels != NO_LABEL if labels.ndim == 1 else (labels != 0).any(dim=1)


def weighted_mean(rows: Tensor, weights: Tensor) -> Tensor:
    """Σ weights·rows / Σ weights, both (B,); 0 where nothing weighs. Raises RecipeError for other shapes."""
    if weights.shape != rows.shape:
        raise RecipeError(f"sample_weights: expected {tuple(rows.shape)}, found {tuple(weights.shape)}")
    mass = weights.sum()
    return (rows * weights).sum() / torch.where(mass > 0, mass, 1.0)


def mean_of_rows(rows: Tensor, sample_weights: Tensor | None = None) -> Tensor:
    """The mean of (B,), weighted where there are weights (B,); 0 of no rows, as of samples that have no positions."""
    if sample_weights is not None:
        return weighted_mean(rows, sample_weights)
    return rows.mean() if len(rows) else rows.sum()


def weigh_samples(
    class_weights: Sequence[float], labels: Tensor, teacher_logits: Tensor | None = None
) -> Tensor:
    """(B,) how much each sample counts: Σ y·w, where y is its label, which may be mixed; without a label
    Σ p·w, where p is the teacher's softmax at T = 1, or the mean softmax of several, (B, K, C); 0 without a teacher.

    >>> import torch
    >>> weigh_samples([1.0, 3.0], torch.tensor([1, 0, -1]), torch.zeros(3, 2))
    tensor([3., 1., 2.])
    """
    labels = as_labels(labels)
    dtype = torch.float32 if teacher_logits is None else at_least_float32(teacher_logits).dtype
    weights = torch.tensor(list(class_weights), dtype=dtype, device=labels.device)
    if teacher_logits is None:
        guessed = torch.zeros(len(labels), device=labels.device)
    else:
        shares = at_least_float32(teacher_logits).softmax(dim=-1)
        guessed = ((shares if shares.ndim == 2 else shares.mean(dim=1)) * weights).sum(dim=1)
    if labels.ndim == 1:
        return torch.where(labels == NO_LABEL, guessed, weights[labels.clamp(min=0)])
    return torch.where(labelled(labels), (labels.to(weights.dtype) * weights).sum(dim=1), guessed)


def likeliest_label(labels: Tensor) -> Tensor:
    """(B,) the label; of a mixed one the class of the largest share. Any class where there is none."""
    labels = as_labels(labels)
    return labels.clamp(min=0) if labels.ndim == 1 else labels.argmax(dim=1)


def target_classes(labels: Tensor, teacher_logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(rows, classes, shares), each (P,): the classes that an objective takes for right.

    A label is its class. A mixed label is every class that has a share, so that Σ shares·value is the expectation
    over it. Where there is no label it is the teacher's likeliest class, the best guess there is.
    """
    labels, guess = as_labels(labels), teacher_logits.argmax(dim=1)
    if labels.ndim == 1:
        rows = torch.arange(len(labels), device=labels.device)
        ones = torch.ones(len(labels), dtype=teacher_logits.dtype, device=labels.device)
        return rows, torch.where(labels == NO_LABEL, guess, labels), ones
    guessed = functional.one_hot(guess, teacher_logits.shape[1])
    mixed = torch.where(labelled(labels)[:, None], labels, guessed).to(teacher_logits.dtype)
    rows, classes = mixed.nonzero(as_tuple=True)  # waits for the device, as plain labels do not
    return rows, classes, mixed[rows, classes]
