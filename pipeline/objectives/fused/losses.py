"""`fused_kd` and `fused_ce_plus_kl`: a student's last layer and its loss in one, for any kind of teacher's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.chunked import PendingLogits, chunked
from decant.pipeline.objectives.fused.batch import Batch
from decant.pipeline.objectives.fused.hidden_targets import HiddenTargets
from decant.pipeline.objectives.fused.last_layer import LastLayer
from decant.pipeline.objectives.fused.teachers import DenseTeacher, HiddenTeacher, SparseTeacher, Teacher
from decant.pipeline.objectives.sparse.targets import (
    SparseTargets,
    Tail,
    require_outputs,
    require_temperature,
)
from decant.pipeline.objectives.terms import Terms

FusedTargets: TypeAlias = SparseTargets | HiddenTargets | Tensor
"""Sparse rows, hidden states with the layer that makes logits of them, or logits (Q, C)."""


def fused_kd(
    hidden: Tensor,
    weight: Tensor,
    targets: FusedTargets,
    labels: Tensor,
    alpha: float = 0.9,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    soft_cap: float | None = None,
    tail: Tail | None = None,
    interpolate: bool = False,
    sample_weights: Tensor | None = None,
    chunk_rows: int | None = None,
) -> Terms:
    """`sparse_kd`, or `kd`, of the logits that a last layer makes of hidden states, without ever holding these logits.

    targets: sparse rows (`SparseTargets`), a teacher's hidden states (`HiddenTargets`), whose logits are made for some
    positions at a time and never exist together either, or logits (Q, C). Of the latter two every temperature is exact,
    and they have no `tail`; a teacher's logits are in float32, or float64 where the student's are.

    hidden: (Q, d), weight: (C, d), bias: (C,). The logits are z = logit_scale·(hidden·weightᵀ) + bias, and
    cap·tanh(z/cap) with a `soft_cap`. labels: (Q,) int64, negative for none. sample_weights: (Q,), 0 for positions that
    do not count. Gradients go to hidden, weight and bias; `hard` and `soft` of the terms are values without one. Under
    autocast the products are in its dtype. chunk_rows: positions at a time, by default what makes 64 MiB of logits,
    and 256 MiB on a GPU.
    Raises what `sparse_kd` does, RecipeError for shapes that do not fit, and TypeError for other targets.

    >>> import torch
    >>> from decant.objectives import SparseTargets, sparse_kd
    >>> hidden, layer = torch.randn(6, 8, requires_grad=True), torch.nn.Linear(8, 20, bias=False)
    >>> targets = SparseTargets.of(torch.arange(12).view(6, 2), torch.full((6, 2), 0.4).log(), num_outputs=20)
    >>> labels = torch.tensor([3, -1, 0, 5, 5, 19])
    >>> loss = fused_kd(hidden, layer.weight, targets, labels).total
    >>> bool(torch.isclose(loss, sparse_kd(layer(hidden), targets, labels).total))
    True
    >>> loss.backward()
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha: expected a number from 0 to 1, found {alpha}")
    layer = LastLayer(logit_scale, soft_cap)
    rows = _Rows(targets, labels, temperature, tail, interpolate, sample_weights)
    return rows.compare(hidden, weight, bias, layer, chunk_rows, (1 - alpha, alpha))


def fused_ce_plus_kl(
    hidden: Tensor,
    weight: Tensor,
    targets: FusedTargets,
    labels: Tensor,
    kl_weight: float = 1.0,
    temperature: float = 1.0,
    *,
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    soft_cap: float | None = None,
    tail: Tail | None = None,
    interpolate: bool = False,
    sample_weights: Tensor | None = None,
    chunk_rows: int | None = None,
) -> Terms:
    """`sparse_ce_plus_kl`, or `ce_plus_kl`, in the same way: CE + λ·T²·KL. With `kl_weight` 0 it is a plain
    cross-entropy of labels.

    >>> import torch
    >>> from decant.objectives import SparseTargets
    >>> targets = SparseTargets.of([[0], [1]], torch.tensor([[0.9], [0.8]]).log(), num_outputs=3)
    >>> terms = fused_ce_plus_kl(torch.randn(2, 4), torch.randn(3, 4), targets, torch.tensor([0, 1]), kl_weight=2.0)
    >>> torch.isclose(terms.total, terms.hard + 2 * terms.soft)
    tensor(True)
    """
    layer = LastLayer(logit_scale, soft_cap)
    rows = _Rows(targets, labels, temperature, tail, interpolate, sample_weights)
    return rows.compare(hidden, weight, bias, layer, chunk_rows, (1.0, kl_weight))


@dataclass(frozen=True)
class _Rows:
    """What a student's logits (Q, C) are compared with, and how."""

    targets: FusedTargets
    labels: Tensor
    temperature: float
    tail: Tail | None
    interpolate: bool
    sample_weights: Tensor | None

    def compare(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        layer: LastLayer,
        chunk_rows: int | None,
        factors: tuple[float, float],
    ) -> Terms:
        """The terms of the logits that a last layer makes of hidden states; factors: of both means in the total."""
        labels, weights = self.labels, self.sample_weights
        _require_shapes(hidden, weight, bias, self.targets, labels, weights)
        if chunk_rows is not None and chunk_rows < 1:
            raise ValueError(f"chunk_rows: expected 1 or more, found {chunk_rows}")
        dtype = torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)
        teacher = _teacher(self.targets, self.temperature, self.tail, self.interpolate, dtype)
        counted = torch.ones(len(hidden), dtype=dtype, device=hidden.device)
        if weights is not None:
            counted = weights.to(counted)
        batch = Batch(
            teacher,
            labels.clamp(min=0),
            _normalised((labels >= 0) * counted),
            self.temperature**2 * _normalised(counted),
            factors,
            self.temperature,
        )
        device = hidden.device.type
        autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        return chunked(PendingLogits(hidden, weight, bias, layer, autocast), batch.compare, chunk_rows)


def _teacher(
    targets: FusedTargets, temperature: float, tail: Tail | None, interpolate: bool, dtype: torch.dtype
) -> Teacher:
    """Raises ValueError for a `tail` of rows that leave nothing out."""
    if isinstance(targets, SparseTargets):
        return SparseTeacher(targets.ids, targets.shares(temperature, tail, interpolate=interpolate))
    require_temperature(temperature)
    if tail is not None:
        raise ValueError(
            f"tail: is of sparse rows, and these leave nothing out: leave it out, found {tail!r}"
        )
    if isinstance(targets, HiddenTargets):
        return HiddenTeacher(targets, temperature, dtype)
    return DenseTeacher(targets, temperature)


def _require_shapes(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: FusedTargets,
    labels: Tensor,
    sample_weights: Tensor | None,
) -> None:
    """Raises RecipeError for shapes that do not fit, and TypeError for other targets."""
    if isinstance(targets, Tensor) and (targets.ndim != 2 or not targets.is_floating_point()):
        raise RecipeError(f"targets: expected logits (Q, C), found {tuple(targets.shape)} {targets.dtype}")
    if not isinstance(targets, SparseTargets | HiddenTargets | Tensor):
        raise TypeError(
            f"targets: expected SparseTargets, HiddenTargets or logits, found {type(targets).__name__}; `read` "
            "of these classes takes rows of a cache"
        )
    rows = len(targets)
    if (
        hidden.ndim != 2
        or weight.ndim != 2
        or hidden.shape != (rows, weight.shape[1])
        or labels.shape != (rows,)
    ):
        raise RecipeError(
            f"fused loss: expected hidden ({rows}, d), weight (C, d) and labels ({rows},), found "
            f"{tuple(hidden.shape)}, {tuple(weight.shape)} and {tuple(labels.shape)}"
        )
    require_outputs(len(weight), targets.shape[1] if isinstance(targets, Tensor) else targets.num_outputs)
    for name, given, expected in (("bias", bias, len(weight)), ("sample_weights", sample_weights, rows)):
        if given is not None and given.shape != (expected,):
            raise RecipeError(f"{name}: expected ({expected},), found {tuple(given.shape)}")
    if labels.is_floating_point():
        raise RecipeError(f"labels: expected integers, negative for none, found {labels.dtype}")


def _normalised(weights: Tensor) -> Tensor:
    mass = weights.sum()
    return weights / torch.where(mass > 0, mass, 1.0)
