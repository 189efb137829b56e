"""The arguments and the result that all objectives have in common.

Student logits are (B, C), raw, of any float dtype, and teacher logits too, or (B, K, C) where several caches
are told apart. Labels are (B,) int64 with −1 for none, or (B, C) mixed labels: rows of shares that sum to 1, or of
zeros for none. Everything is computed in float32, or in float64 where the logits are, and is a mean over the batch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from decant.pipeline.errors import RecipeError

_LEAST_DEVIATION = 1e-3


class Terms(NamedTuple):
    """The value of an objective and its two terms, scalars."""

    total: Tensor
    """The loss, which is minimised."""
    hard: Tensor | None = None
    """The term of the labels, before its weight; None where the objective has none."""
    soft: Tensor | None = None
    """The term of the teacher, before its weight; None where the objective has none."""


Loss = Callable[..., Terms]
"""(student_logits, teacher_logits, labels, progress=0.0) → Terms; `progress` is the share of the training done."""


def at_least_float32(logits: Tensor) -> Tensor:
    """The logits in float32, or in float64 where they are that."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def between(alpha: float, hard: Tensor, soft: Tensor) -> Terms:
    """(1 − α)·hard + α·soft, with both terms. Raises ValueError for an α outside of 0 to 1."""
    if isinstance(alpha, int | float) and not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, found {alpha}")
    return Terms((1 - alpha) * hard + alpha * soft, hard, soft)


def kind_of_labels(labels: Tensor, outputs: Tensor) -> str:
    """The dtype and shape of labels that are not those of the outputs (B, T), and what makes them so of (B,) and T = 1.

    >>> kind_of_labels(torch.tensor([1, 0]), torch.zeros(2, 1))
    'int64 of shape (2,); labels[:, None].float() is of that shape'
    """
    found = f"{str(labels.dtype).removeprefix('torch.')} of shape {tuple(labels.shape)}"
    column = labels.ndim == 1 and outputs.shape == (len(labels), 1)
    return f"{found}; labels[:, None].float() is of that shape" if column else found


def tempered(logits: Tensor, temperature: float) -> Tensor:
    """Logits / T. Raises ValueError for a temperature that is not above 0.

    >>> tempered(torch.tensor([2.0]), 4.0)
    tensor([0.5000])
    """
    if isinstance(temperature, int | float) and not temperature > 0:
        raise ValueError(f"temperature: expected a number above 0, found {temperature}")
    return logits / temperature


def prepare_logits(
    student_logits: Tensor, teacher_logits: Tensor, standardize: bool = False
) -> tuple[Tensor, Tensor]:
    """Both (B, C) in float32 at least, as z-scores where `standardize` is true. Raises RecipeError for other
    shapes, TypeError for what is no tensor.
    """
    _require_tensors(student_logits=student_logits, teacher_logits=teacher_logits)
    if teacher_logits.shape != student_logits.shape or student_logits.ndim != 2:
        others = student_logits.ndim == teacher_logits.ndim == 2 and len(student_logits) == len(
            teacher_logits
        )
        raise RecipeError(
            "student.objective: expected one row of teacher logits a sample, of shape "
            f"{tuple(student_logits.shape)}, found {tuple(teacher_logits.shape)}; "
            + (
                "the student needs an output for each of the teacher's"
                if others
                else "several caches are averaged first for every objective but general"
            )
        )
    student, teacher = at_least_float32(student_logits), at_least_float32(teacher_logits)
    return (standardized(student), standardized(teacher)) if standardize else (student, teacher)


def prepare_softmaxes(
    student_logits: Tensor, teacher_logits: Tensor, standardize: bool = False
) -> tuple[Tensor, Tensor]:
    """The same of outputs that are compared by their softmax. Raises RecipeError also for one output, (B, 1).

    >>> prepare_softmaxes(torch.zeros(2, 1), torch.ones(2, 1))
    Traceback (most recent call last):
    ...
    decant.pipeline.errors.RecipeError: student.objective: the softmax of one output is 1 whatever it is, ...
    """
    student, teacher = prepare_logits(student_logits, teacher_logits, standardize)
    if student.shape[1] == 1:
        raise RecipeError(
            "student.objective: the softmax of one output is 1 whatever it is, so that nothing would be learnt: of the "
            "logit of two classes take sigmoid_kd (SigmoidKD), of a number regression (Regression), with labels that "
            "are floats (B, 1)"
        )
    return student, teacher


def _require_tensors(**given: object) -> None:
    for name, value in given.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            instead = (
                "give its logits" if hasattr(value, "logits") else "torch.from_numpy makes one of an array"
            )
            if kind == "SparseTargets":
                instead = (
                    "sparse_kd (SparseKD) and its kin take these, and targets.dense() makes logits of them"
                )
            raise TypeError(f"{name}: expected a tensor (B, C), found {kind}: {instead}")


def standardized(logits: Tensor) -> Tensor:
    """(z − mean z) / σ(z) of each row, σ² being the mean square over its C logits: Sun et al., "Logit
    Standardization in Knowledge Distillation" (2024), algorithm 1.

    Comes before the temperature, so that T is the paper's base temperature: a row's own is T·σ(z), and T² scales the
    loss as it does without. σ counts as 0.001 at least, so that a row of equal logits is a row of zeros.

    >>> import torch
    >>> standardized(torch.tensor([[2.0, 4.0], [5.0, 5.0]]))
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    centred = logits - logits.mean(dim=-1, keepdim=True)
    variance = centred.square().mean(dim=-1, keepdim=True)
    return centred / variance.clamp(min=_LEAST_DEVIATION**2).sqrt()
