"""The last layer of a student and its loss on sparse rows in one: logits exist for a chunk of positions at a time.

Loss and gradients of a chunk are computed together, in the forward pass, from one product of hidden states and weights:
three products in all, as a cross-entropy and its backward pass have, and memory for one chunk instead of (Q, C) floats
several times. Softmaxes are in float32, whatever the layer computes in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

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
from decant.pipeline.objectives.terms import Terms

_CHUNK = 1 << 24  # logits that exist at once: 64 MiB in float32


def fused_kd(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
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
    """`sparse_kd` of the logits that a last layer makes of hidden states, without ever holding these logits.

    hidden: (Q, d), weight: (C, d), bias: (C,). The logits are z = logit_scale·(hidden·weightᵀ) + bias, and
    cap·tanh(z/cap) with a `soft_cap`. labels: (Q,) int64, negative for none. sample_weights: (Q,), 0 for positions that
    do not count. Gradients go to hidden, weight and bias; `hard` and `soft` of the terms are values without one. Under
    autocast the products are in its dtype. chunk_rows: positions at a time, by default what makes 64 MiB of logits.
    Raises what `sparse_kd` does, and RecipeError for shapes that do not fit.

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
    layer = _Layer(logit_scale, soft_cap, _rows_at_once(chunk_rows, len(weight)))
    return _fused(
        hidden,
        weight,
        bias,
        targets,
        labels,
        (1 - alpha, alpha),
        temperature,
        layer,
        tail,
        interpolate,
        sample_weights,
    )


def fused_ce_plus_kl(
    hidden: Tensor,
    weight: Tensor,
    targets: SparseTargets,
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
    """`sparse_ce_plus_kl` in the same way: CE + λ·T²·KL. With `kl_weight` 0 it is a plain cross-entropy of labels.

    >>> import torch
    >>> from decant.objectives import SparseTargets
    >>> targets = SparseTargets.of([[0], [1]], torch.tensor([[0.9], [0.8]]).log(), num_outputs=3)
    >>> terms = fused_ce_plus_kl(torch.randn(2, 4), torch.randn(3, 4), targets, torch.tensor([0, 1]), kl_weight=2.0)
    >>> torch.isclose(terms.total, terms.hard + 2 * terms.soft)
    tensor(True)
    """
    layer = _Layer(logit_scale, soft_cap, _rows_at_once(chunk_rows, len(weight)))
    return _fused(
        hidden,
        weight,
        bias,
        targets,
        labels,
        (1.0, kl_weight),
        temperature,
        layer,
        tail,
        interpolate,
        sample_weights,
    )


def _rows_at_once(given: int | None, outputs: int) -> int:
    """Raises ValueError for none."""
    if given is not None and given < 1:
        raise ValueError(f"chunk_rows: expected 1 or more, found {given}")
    return given or max(1, _CHUNK // max(1, outputs))


@dataclass(frozen=True)
class _Layer:
    """How logits are made of products, and how many rows at a time."""

    scale: float
    cap: float | None
    rows: int

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"logit_scale: expected a number, found {self.scale}")
        if self.cap is not None and not 0 < self.cap < math.inf:
            raise ValueError(f"soft_cap: expected a number above 0, found {self.cap}")

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(n, C) float32 at least."""
        made = (hidden @ weight.t()).to(torch.promote_types(hidden.dtype, torch.float32))
        if self.scale != 1.0:
            made *= self.scale
        if bias is not None:
            made += bias
        return made if self.cap is None else made.div_(self.cap).tanh_().mul_(self.cap)

    def before(self, gradients: Tensor, logits: Tensor) -> Tensor:
        """Gradients of the products plus bias from those of the logits, in place."""
        if self.cap is not None:
            gradients *= 1 - (logits / self.cap).square()
        return gradients


@dataclass(frozen=True)
class _Batch:
    """What the loss compares with, for all rows or for a chunk."""

    ids: Tensor
    shares: Shares
    labels: Tensor
    hard_weights: Tensor
    """(n,) what each row's cross-entropy counts in their mean."""
    soft_weights: Tensor
    """(n,) what each row's divergence counts in their mean, T² included."""
    factors: tuple[float, float]
    """Of the two means in the total."""
    temperature: float

    def chunk(self, rows: slice) -> _Batch:
        log_probs, weights, log_tail = self.shares
        shares = Shares(log_probs[rows], weights[rows], None if log_tail is None else log_tail[rows])
        return _Batch(
            self.ids[rows],
            shares,
            self.labels[rows],
            self.hard_weights[rows],
            self.soft_weights[rows],
            self.factors,
            self.temperature,
        )


def _fused(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    targets: SparseTargets,
    labels: Tensor,
    factors: tuple[float, float],
    temperature: float,
    layer: _Layer,
    tail: Tail | None,
    interpolate: bool,
    sample_weights: Tensor | None,
) -> Terms:
    require_targets(targets)
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
    require_outputs(len(weight), targets)
    for name, given, expected in (("bias", bias, len(weight)), ("sample_weights", sample_weights, rows)):
        if given is not None and given.shape != (expected,):
            raise RecipeError(f"{name}: expected ({expected},), found {tuple(given.shape)}")
    if labels.is_floating_point():
        raise RecipeError(f"labels: expected integers, negative for none, found {labels.dtype}")
    shares = targets.shares(temperature, tail, interpolate=interpolate)
    counted = (
        torch.ones_like(shares.weights[:, 0]) if sample_weights is None else sample_weights.to(shares.weights)
    )
    labelled = (labels >= 0) * counted
    batch = _Batch(
        targets.ids,
        shares,
        labels.clamp(min=0),
        _normalised(labelled),
        temperature**2 * _normalised(counted),
        factors,
        temperature,
    )
    return Terms(*_Fused.apply(hidden, weight, bias, batch, layer))


def _normalised(weights: Tensor) -> Tensor:
    mass = weights.sum()
    return weights / torch.where(mass > 0, mass, 1.0)


class _Fused(torch.autograd.Function):
    """(total, hard, soft) of weighted sums over rows; gradients are made with them, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, batch: _Batch, layer: _Layer
    ) -> tuple[Tensor, Tensor, Tensor]:
        device = hidden.device.type
        dtype = torch.promote_types(hidden.dtype, weight.dtype)
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            needed = [ctx.needs_input_grad[place] for place in range(3)]
            sums, gradients = _pass(hidden.to(dtype), weight.to(dtype), bias, batch, layer, needed)
        inputs = (hidden, weight, bias)
        kept = [
            None if one is None else one.to(of.dtype)
            for one, of in zip(gradients, inputs, strict=True)
            if of is not None
        ]
        ctx.save_for_backward(*kept, *([None] if bias is None else []))
        ctx.mark_non_differentiable(sums[0], sums[1])
        return batch.factors[0] * sums[0] + batch.factors[1] * sums[1], *sums

    @staticmethod
    def backward(ctx: Any, total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        return (
            *(None if one is None else one * total.to(one.dtype) for one in ctx.saved_tensors),
            None,
            None,
        )


def _pass(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, batch: _Batch, layer: _Layer, needed: list[bool]
) -> tuple[tuple[Tensor, Tensor], list[Tensor | None]]:
    """((hard, soft), gradients of hidden, weight and bias where they are needed), a chunk of rows after another."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    hard = soft = torch.zeros((), dtype=wide, device=hidden.device)
    of_hidden = torch.empty_like(hidden) if needed[0] else None
    of_weight = torch.zeros_like(weight, dtype=wide) if needed[1] else None
    of_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needed[2] else None
    for first in range(0, len(hidden), layer.rows):
        rows = slice(first, first + layer.rows)
        some, part = hidden[rows], batch.chunk(rows)
        logits = layer.logits(some, weight, bias)
        more_hard, more_soft, gradients = _chunk(logits, part, keep_logits=layer.cap is not None)
        hard, soft = hard + more_hard, soft + more_soft
        if not any(needed):
            continue
        gradients = layer.before(gradients, logits)
        if of_bias is not None:
            of_bias += gradients.sum(dim=0)
        narrow = gradients.to(hidden.dtype)
        if of_hidden is not None:
            torch.mm(narrow, weight, out=of_hidden[rows])
        if of_weight is None:
            continue
        if of_weight.dtype == narrow.dtype:
            of_weight.addmm_(narrow.t(), some)
        else:
            of_weight += narrow.t() @ some
    if layer.scale != 1.0:
        for one in (of_hidden, of_weight):
            if one is not None:
                one *= layer.scale
    return (hard, soft), [of_hidden, of_weight, of_bias]


def _chunk(logits: Tensor, batch: _Batch, keep_logits: bool) -> tuple[Tensor, Tensor, Tensor]:
    """(hard, soft, gradients (n, C) of the total) of weighted sums over the rows of (n, C) logits, which are used up
    unless they are to be kept.
    """
    hard_rows = batch.factors[0] * batch.hard_weights[:, None]
    soft_rows = batch.factors[1] / batch.temperature * batch.soft_weights[:, None]
    labels = batch.labels[:, None]
    of_label = logits.gather(1, labels)
    whole = logits.logsumexp(dim=1, keepdim=True)
    hard = (batch.hard_weights[:, None] * (whole - of_label)).sum()
    if batch.temperature == 1.0:
        gradients = logits.clone() if keep_logits else logits
        soft = _soft(gradients, whole, batch, hard_rows, soft_rows)
    else:
        gradients = logits / batch.temperature
        soft = _soft(
            gradients, gradients.logsumexp(dim=1, keepdim=True), batch, torch.zeros_like(hard_rows), soft_rows
        )
        gradients += hard_rows * (logits - whole).exp_()
    gradients.scatter_add_(1, labels, -hard_rows)
    return hard, soft, gradients


def _soft(tempered: Tensor, whole: Tensor, batch: _Batch, hard_rows: Tensor, soft_rows: Tensor) -> Tensor:
    """The weighted sum of the rows' divergences. Turns logits (n, C), divided by T already, into its gradients by the
    logits themselves, plus softmaxes of these with weights `hard_rows`.
    """
    log_p, weights, log_tail = batch.shares
    of_stored = tempered.gather(1, batch.ids)
    log_q = of_stored - whole
    rows = (weights * (log_p - log_q)).sum(dim=1)
    mass = weights.sum(dim=1, keepdim=True)
    if log_tail is None:
        torch.sub(tempered, whole, out=tempered).exp_().mul_(hard_rows + soft_rows * mass)
        tempered.scatter_add_(1, batch.ids, -soft_rows * weights)
        return (batch.soft_weights * rows).sum()
    others = tempered.scatter_(1, batch.ids, -math.inf).logsumexp(dim=1, keepdim=True)
    log_rho, tail = others - whole, log_tail.exp()[:, None]
    rows = rows + (tail * (log_tail[:, None] - log_rho))[:, 0]
    # Of an output that is not stored, e^(s − others) is its share of them: no quotient of two masses can overflow.
    both = hard_rows + soft_rows * (mass + tail)
    tempered.sub_(others).exp_().mul_(both * log_rho.exp() - soft_rows * tail)
    tempered.scatter_(1, batch.ids, both * log_q.exp() - soft_rows * weights)
    return (batch.soft_weights * rows).sum()
