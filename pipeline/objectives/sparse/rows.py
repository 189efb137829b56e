"""The divergence of one row, from the stored outputs of a teacher and the mass of all others: (Q,) from (Q, C).

Stored outputs and, with tail = "bucket", all others as one: both distributions on that partition of the outputs.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.sparse.targets import (
    Shares,
    SparseTargets,
    Tail,
    require_outputs,
    require_targets,
)
from decant.pipeline.objectives.terms import at_least_float32, tempered


class Split(NamedTuple):
    """A student's log softmax on the same outputs."""

    log_probs: Tensor
    """(Q, k)."""
    log_tail: Tensor | None
    """(Q,) log mass of all others; None where they are not counted as one."""


def compared(
    student_logits: Tensor,
    targets: SparseTargets,
    temperature: float,
    tail: Tail | None,
    interpolate: bool,
) -> tuple[Split, Shares]:
    """Student and teacher on the outputs of each row. Raises RecipeError for shapes that do not fit."""
    require_targets(targets)
    if student_logits.ndim != 2 or len(student_logits) != len(targets):
        raise RecipeError(
            f"student.objective: expected student logits ({len(targets)}, {targets.num_outputs}), one row for each of "
            f"the targets, found {tuple(student_logits.shape)}"
        )
    require_outputs(student_logits.shape[1], targets.num_outputs)
    shares = targets.shares(temperature, tail, interpolate=interpolate)
    logits = tempered(at_least_float32(student_logits), temperature)
    whole = logits.logsumexp(dim=1)
    stored = logits.gather(1, targets.ids) - whole[:, None]
    if shares.log_tail is None:
        return Split(stored, None), shares
    others = logits.scatter(1, targets.ids, -math.inf).logsumexp(dim=1)
    return Split(stored, others - whole), shares


def kl_rows(student: Split, teacher: Shares) -> Tensor:
    """(Q,) Σ w·log(p/q) + r·log(r/ρ): with "bucket" at most KL(p ‖ q), and equal to it where every output is stored;
    with "draws" unbiased for it.
    """
    rows = (teacher.weights * (teacher.log_probs - student.log_probs)).sum(dim=1)
    if teacher.log_tail is None or student.log_tail is None:
        return rows
    return rows + teacher.log_tail.exp() * (teacher.log_tail - student.log_tail)


def cross_entropy_rows(student: Split, teacher: Shares) -> Tensor:
    """(Q,) −Σ w·log q − r·log ρ."""
    rows = -(teacher.weights * student.log_probs).sum(dim=1)
    if teacher.log_tail is None or student.log_tail is None:
        return rows
    return rows - teacher.log_tail.exp() * student.log_tail


def reversed_kl_rows(student: Split, teacher: Shares) -> Tensor:
    """(Q,) Σ q·log(q/p) + ρ·log(ρ/r)."""
    q, p = _joined(student.log_probs, student.log_tail), _joined(teacher.log_probs, teacher.log_tail)
    return (q.exp() * (q - p)).sum(dim=1)


def js_rows(student: Split, teacher: Shares) -> Tensor:
    """(Q,) ½·KL(p ‖ m) + ½·KL(q ‖ m) with m = ½·(p + q)."""
    q, p = _joined(student.log_probs, student.log_tail), _joined(teacher.log_probs, teacher.log_tail)
    middle = torch.logaddexp(p, q) - math.log(2)
    return (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(dim=1) / 2


def _joined(stored: Tensor, tail: Tensor | None) -> Tensor:
    """(Q, k + 1), or (Q, k) without a tail."""
    return stored if tail is None else torch.cat([stored, tail[:, None]], dim=1)
