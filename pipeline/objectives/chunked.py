"""A network's last layer and a loss of its logits in one: logits exist for some rows at a time.

Loss and gradient of these rows are computed together, in the forward pass, so that (Q, C) never exists. Any loss that
is a mean over rows can be computed so; `fused` has the sparse ones, with fewer passes over the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from decant.pipeline.objectives.fused.chunks import rows_at_once as usual_rows_at_once
from decant.pipeline.objectives.fused.chunks import rows_of_block
from decant.pipeline.objectives.fused.last_layer import LastLayer
from decant.pipeline.objectives.fused.teachers import exponentials
from decant.pipeline.objectives.terms import Terms


@dataclass(frozen=True)
class PendingLogits:
    """Logits (Q, C) that are not computed yet."""

    hidden: Tensor
    """(Q, d)."""
    weight: Tensor
    """(C, d)."""
    bias: Tensor | None = None
    """(C,)."""
    layer: LastLayer = field(default=LastLayer())
    """Scale and soft cap."""
    autocast: torch.dtype | None = None
    """What products are computed in; None takes the dtype of hidden states and weight."""

    def __len__(self) -> int:
        """Q."""
        return len(self.hidden)

    @property
    def dtype(self) -> torch.dtype:
        """That of the products."""
        return self.autocast or torch.promote_types(self.hidden.dtype, self.weight.dtype)


Compare: TypeAlias = Callable[[Tensor, slice], tuple[Terms, Tensor]]
"""(logits (n, C) float32 of some rows, which rows these are) → the terms, each a mean over these rows, and the gradient
(n, C) of the total. The logits may be used up.
"""


def chunked(pending: PendingLogits, compare: Compare, rows_at_once: int | None = None) -> Terms:
    """The terms of the mean over all rows; a gradient flows to hidden states, weight and bias.

    rows_at_once: by default what makes 64 MiB of logits, and 256 MiB on a GPU.

    >>> hidden, weight = torch.randn(6, 8, requires_grad=True), torch.randn(20, 8)
    >>> labels = torch.tensor([3, 1, 0, 5, 5, 19])
    >>> loss = chunked(PendingLogits(hidden, weight), of_labels(labels), rows_at_once=4).total
    >>> whole = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels)
    >>> bool(torch.isclose(loss, whole))
    True
    >>> loss.backward()
    """
    rows = rows_at_once or usual_rows_at_once(pending.hidden, len(pending.weight))
    total, hard, soft = _Chunked.apply(pending.hidden, pending.weight, pending.bias, pending, compare, rows)
    return Terms(total, hard, soft)


def of_labels(labels: Tensor) -> Compare:
    """The mean cross-entropy with labels (Q,) int64, each of which is an output."""

    def compare(logits: Tensor, rows: slice) -> tuple[Terms, Tensor]:
        at, count = labels[rows, None], len(logits)
        of_label = logits.gather(1, at)
        sums = []
        for block in logits.split(rows_of_block(logits)):
            whole, total = exponentials(block)
            block.div_(total * count)
            sums.append(whole)
        logits.scatter_add_(1, at, torch.full_like(of_label, -1 / count))
        return Terms((torch.cat(sums) - of_label).mean()), logits

    return compare


def by_autograd(loss: Callable[[Tensor, slice], Terms]) -> Compare:
    """Any loss (logits of some rows, which these are) → terms that are means over these rows."""

    def compare(logits: Tensor, rows: slice) -> tuple[Terms, Tensor]:
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            terms = loss(leaf, rows)
            (gradient,) = torch.autograd.grad(terms.total, leaf)
        return terms, gradient

    return compare


class _Chunked(torch.autograd.Function):
    """(total, hard, soft); hard and soft are values without a gradient, None where there are none."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pending: PendingLogits,
        compare: Compare,
        rows: int,
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        with torch.autocast(hidden.device.type, enabled=False):
            needed = [ctx.needs_input_grad[place] for place in range(3)]
            found, gradients = _pass(pending, compare, rows, needed)
        ctx.save_for_backward(*gradients)
        ctx.mark_non_differentiable(*(term for term in found[1:] if term is not None))
        return found

    @staticmethod
    def backward(ctx: Any, total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        as_it_is = total.device.type == "cpu" and float(total) == 1.0  # the usual case, which takes no memory
        made = (one if one is None or as_it_is else one * total.to(one.dtype) for one in ctx.saved_tensors)
        return (*made, None, None, None)


def _pass(
    pending: PendingLogits, compare: Compare, rows: int, needed: list[bool]
) -> tuple[tuple[Tensor, Tensor | None, Tensor | None], list[Tensor | None]]:
    hidden, weight = (one.detach().to(pending.dtype) for one in (pending.hidden, pending.weight))
    bias, layer = None if pending.bias is None else pending.bias.detach().float(), pending.layer
    of_hidden = torch.empty_like(hidden) if needed[0] else None
    of_weight = torch.zeros_like(weight, dtype=torch.float32) if needed[1] else None
    of_bias = torch.zeros_like(bias) if bias is not None and needed[2] else None
    sums: list[Tensor | None] = [None, None, None]
    for first in range(0, len(hidden), rows):
        some = slice(first, first + rows)
        part = hidden[some]
        logits = layer.logits(part, weight, bias)
        slope = layer.slope(logits)
        terms, gradient = compare(logits, some)
        share = len(part) / len(hidden)
        for place, term in enumerate(terms):
            if term is not None:
                before = sums[place]
                sums[place] = share * term.detach() + (0 if before is None else before)
        if slope is not None:
            gradient = gradient * slope
        narrow = (gradient if share == 1 else gradient.mul_(share)).to(hidden.dtype)
        if of_bias is not None:
            of_bias += narrow.sum(dim=0, dtype=torch.float32)
        if of_hidden is not None:
            torch.mm(narrow, weight, out=of_hidden[some])
        if of_weight is not None and narrow.dtype == of_weight.dtype:
            of_weight.addmm_(narrow.t(), part)
        elif of_weight is not None:
            of_weight += narrow.t() @ part
    for one in (of_hidden, of_weight):
        if one is not None and layer.scale != 1:
            one *= layer.scale
    total, hard, soft = sums
    assert total is not None, "a batch has rows"
    inputs = (pending.hidden, pending.weight, pending.bias)
    gradients = [
        None if one is None or of is None else one.to(of.dtype)
        for one, of in zip((of_hidden, of_weight, of_bias), inputs, strict=True)
    ]
    return (total, hard, soft), gradients
