"""Loss and gradients of a chunk of positions after another, in the forward pass.

Three products of hidden states and weights in all, as a cross-entropy and its backward pass have, and memory for one
chunk instead of (Q, C) floats several times. Of a row one exponential of each logit is taken, in place. Softmaxes are
in float32, whatever the layer computes in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from decant.pipeline.objectives.fused.last_layer import LastLayer
from decant.pipeline.objectives.fused.teachers import Teacher, exponentials

CHUNK = 1 << 24
"""Logits that exist at once: 64 MiB in float32."""
_ON_A_DEVICE = 4  # as many, since all weights are read, and their gradients added to, once a chunk
_BLOCK = 1 << 22  # of these, what is looked at together on a processor: temporaries of that size exist


@dataclass(frozen=True)
class Batch:
    """What a loss compares with, of Q rows."""

    teacher: Teacher
    labels: Tensor
    """(Q,) int64, of which those without weight count for nothing."""
    hard_weights: Tensor
    """(Q,) what each row's cross-entropy counts in their mean."""
    soft_weights: Tensor
    """(Q,) what each row's divergence counts in their mean, T² included."""
    factors: tuple[float, float]
    """Of the two means in the total."""
    temperature: float

    def chunk(self, rows: slice) -> Batch:
        """Some rows."""
        weights = self.hard_weights[rows], self.soft_weights[rows]
        return Batch(self.teacher.chunk(rows), self.labels[rows], *weights, self.factors, self.temperature)


class Fused(torch.autograd.Function):
    """(total, hard, soft) of weighted sums over rows; gradients are made with them, and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        batch: Batch,
        layer: LastLayer,
        rows_at_once: int,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """hidden: (Q, d), weight: (C, d), bias: (C,)."""
        device = hidden.device.type
        dtype = torch.promote_types(hidden.dtype, weight.dtype)
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            needed = ctx.needs_input_grad[:3]
            wanted = Gradients.of(hidden.to(dtype), weight.to(dtype), bias, needed)
            sums = _pass(hidden.to(dtype), weight.to(dtype), bias, batch, layer, rows_at_once, wanted)
        inputs = (hidden, weight, bias)
        kept = [
            None if one is None or of is None else one.to(of.dtype)
            for one, of in zip(wanted, inputs, strict=True)
        ]
        ctx.save_for_backward(*kept)
        ctx.mark_non_differentiable(sums[0], sums[1])
        return batch.factors[0] * sums[0] + batch.factors[1] * sums[1], *sums

    @staticmethod
    def backward(ctx: Any, total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by hidden, weight and bias."""
        as_it_is = total.device.type == "cpu" and float(total) == 1.0  # the usual case, which takes no memory
        return (
            *(one if one is None or as_it_is else one * total.to(one.dtype) for one in ctx.saved_tensors),
            None,
            None,
            None,
        )


class Gradients(NamedTuple):
    """By hidden states (Q, d), weight (C, d) and bias (C,), where they are needed."""

    hidden: Tensor | None
    weight: Tensor | None
    bias: Tensor | None

    @classmethod
    def of(cls, hidden: Tensor, weight: Tensor, bias: Tensor | None, needed: tuple[bool, ...]) -> Gradients:
        """Those of weight and bias are sums over chunks, in float32 at least."""
        wide = torch.promote_types(hidden.dtype, torch.float32)
        return cls(
            torch.empty_like(hidden) if needed[0] else None,
            torch.zeros_like(weight, dtype=wide) if needed[1] else None,
            torch.zeros_like(bias, dtype=wide) if bias is not None and needed[2] else None,
        )


def _pass(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    batch: Batch,
    layer: LastLayer,
    rows_at_once: int,
    wanted: Gradients,
) -> tuple[Tensor, Tensor]:
    """(hard, soft), scalars. Fills the gradients that are wanted, a chunk of rows after another."""
    wide = torch.promote_types(hidden.dtype, torch.float32)
    entropies, divergences = hidden.new_zeros(2, len(hidden), dtype=wide).unbind()
    for first in range(0, len(hidden), rows_at_once):
        rows = slice(first, first + rows_at_once)
        some, part = hidden[rows], batch.chunk(rows)
        gradients = layer.logits(some, weight, bias)
        for begin in range(0, len(some), rows_of_block(gradients)):
            block = slice(begin, begin + rows_of_block(gradients))
            entropies[rows][block], divergences[rows][block] = _block(
                gradients[block], part.chunk(block), layer
            )
        _add(wanted, rows, gradients, some, weight)
    if layer.scale != 1.0:
        for one in wanted[:2]:
            if one is not None:
                one *= layer.scale
    return (batch.hard_weights * entropies).sum(), (batch.soft_weights * divergences).sum()


def _add(wanted: Gradients, rows: slice, gradients: Tensor, hidden: Tensor, weight: Tensor) -> None:
    """What the gradients (n, C) by the logits of some rows make of each that is wanted."""
    if wanted.bias is not None:
        wanted.bias.add_(gradients.sum(dim=0))
    narrow = gradients.to(hidden.dtype)
    if wanted.hidden is not None:
        torch.mm(narrow, weight, out=wanted.hidden[rows])
    if wanted.weight is None:
        return
    if wanted.weight.dtype == narrow.dtype:
        wanted.weight.addmm_(narrow.t(), hidden)
    else:
        wanted.weight.add_(narrow.t() @ hidden)


def rows_at_once(hidden: Tensor, outputs: int) -> int:
    """How many rows are a chunk where nobody says it."""
    chunk = CHUNK if hidden.device.type == "cpu" else _ON_A_DEVICE * CHUNK
    return max(1, chunk // max(1, outputs))


def rows_of_block(logits: Tensor) -> int:
    """How many rows of a chunk are looked at together."""
    if logits.device.type != "cpu":
        return max(1, len(logits))
    return max(1, _BLOCK // max(1, logits.shape[1]))


def _block(logits: Tensor, batch: Batch, layer: LastLayer) -> tuple[Tensor, Tensor]:
    """Cross-entropies (n,) and divergences (n,) of the rows of logits (n, C), which become the gradients of the total
    by the product plus bias.
    """
    hard_rows = batch.factors[0] * batch.hard_weights[:, None]
    soft_rows = batch.factors[1] / batch.temperature * batch.soft_weights[:, None]
    labels, slope = batch.labels[:, None], layer.slope(logits)
    of_label = logits.gather(1, labels)
    if batch.temperature == 1.0:
        whole, divergences = batch.teacher.compare(logits, hard_rows, soft_rows)
    else:
        tempered = logits / batch.temperature
        _, divergences = batch.teacher.compare(tempered, torch.zeros_like(hard_rows), soft_rows)
        whole, total = exponentials(logits)
        logits.mul_(hard_rows / total).add_(tempered)
    logits.scatter_add_(1, labels, -hard_rows)
    if slope is not None:
        logits.mul_(slope)
    return (whole - of_label)[:, 0], divergences
