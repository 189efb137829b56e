"""A network's last layer and a loss of its logits in one: logits exist for some rows at a time.

Loss and gradients of these rows are computed together, in the forward pass, so that (Q, C) never exists: three products
of hidden states and weights in all, as a cross-entropy and its backward pass have. Any loss that is a mean over rows
can be computed so; `fused` has those of `kd` and `ce+kl`, with fewer passes over the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor

from decant.pipeline.objectives.fused.last_layer import LastLayer
from decant.pipeline.objectives.fused.teachers import exponentials
from decant.pipeline.objectives.terms import Terms

CHUNK = 1 << 24
"""Logits that exist at once: 64 MiB in float32."""
_ON_A_DEVICE = 4  # as many, since all weights are read, and their gradients added to, once a chunk
_BLOCK = 1 << 22  # of these, what is looked at together on a processor: temporaries of that size exist
_ROOM = 32  # by which hidden states are divided, so that products over a chunk stay within float16


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
"""(logits (n, C) of some rows, in float32 at least, which rows these are) → what they add to each term, and the
gradient (n, C) of the total by the logits, which may be used up.
"""


def chunked(pending: PendingLogits, compare: Compare, rows_at_once: int | None = None) -> Terms:
    """The terms of all rows; a gradient of the total flows to hidden states, weight and bias.

    rows_at_once: by default what makes 64 MiB of logits, and 256 MiB on a GPU.
    """
    rows = rows_at_once or _usual_rows_at_once(pending.hidden, len(pending.weight))
    return Terms(*_Chunked.apply(pending.hidden, pending.weight, pending.bias, pending, compare, rows))


def chunked_cross_entropy(pending: PendingLogits, labels: Tensor) -> Terms:
    """The mean cross-entropy with labels (Q,) int64, each of which is an output.

    >>> hidden, weight = torch.randn(6, 8, requires_grad=True), torch.randn(20, 8)
    >>> labels = torch.tensor([3, 1, 0, 5, 5, 19])
    >>> loss = chunked_cross_entropy(PendingLogits(hidden, weight), labels).total
    >>> whole = torch.nn.functional.cross_entropy(hidden @ weight.t(), labels)
    >>> bool(torch.isclose(loss, whole))
    True
    >>> loss.backward()
    """

    def compare(logits: Tensor, rows: slice) -> tuple[Terms, Tensor]:
        at, count = labels[rows, None], max(1, len(pending))
        of_label = logits.gather(1, at)
        sums = []
        for block in logits.split(rows_of_block(logits)):
            whole, total = exponentials(block)
            block.div_(total * count)
            sums.append(whole)
        logits.scatter_add_(1, at, torch.full_like(of_label, -1 / count))
        return Terms((torch.cat(sums) - of_label).sum() / count), logits

    return chunked(pending, compare)


def chunked_mean(pending: PendingLogits, loss: Callable[[Tensor, slice], Terms]) -> Terms:
    """Any loss (logits of some rows, which these are) → terms that are means over these rows, by autograd."""

    def compare(logits: Tensor, rows: slice) -> tuple[Terms, Tensor]:
        share = len(logits) / max(1, len(pending))
        with torch.enable_grad():
            leaf = logits.detach().requires_grad_()
            terms = loss(leaf, rows)
            (gradient,) = torch.autograd.grad(terms.total, leaf)
        more = (None if term is None else share * term.detach() for term in terms[1:])
        return Terms(share * terms.total.detach(), *more), gradient if share == 1 else gradient.mul_(share)

    return chunked(pending, compare)


class _Chunked(torch.autograd.Function):
    """(total, hard, soft); hard and soft are values without a gradient, None where there are none. Gradients are made
    with them, and scaled in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        pending: PendingLogits,
        compare: Compare,
        rows: int,
    ) -> tuple[Tensor | None, ...]:
        with torch.autocast(hidden.device.type, enabled=False):
            needed = [ctx.needs_input_grad[place] for place in range(3)]
            found, gradients = _pass(pending, compare, rows, needed)
        ctx.save_for_backward(*gradients)
        ctx.dtypes = [None if one is None else one.dtype for one in (hidden, weight, bias)]
        ctx.mark_non_differentiable(*(term for term in found[1:] if term is not None))
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, total: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled() and not torch.compiler.is_compiling():
            raise RuntimeError(
                "create_graph=True: this loss makes its gradients in the forward pass, and these have no gradients: "
                "compute all logits, and a loss of these"
            )
        as_it_is = total.device.type == "cpu" and float(total) == 1.0  # the usual case, which takes no memory
        made = (
            None if one is None else (one if as_it_is else one * total.to(one.dtype)).to(dtype)
            for one, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*made, None, None, None)


def _pass(
    pending: PendingLogits, compare: Compare, rows: int, needed: list[bool]
) -> tuple[list[Tensor | None], list[Tensor | None]]:
    """The terms, and the gradients that are needed, a chunk of rows after another."""
    hidden, weight = pending.hidden.to(pending.dtype), pending.weight.to(pending.dtype)
    bias, layer = pending.bias, pending.layer
    wide = torch.promote_types(hidden.dtype, torch.float32)  # of what is a sum over chunks
    is_half = hidden.dtype == torch.float16
    of_hidden = torch.empty_like(hidden, dtype=wide if is_half else None) if needed[0] else None
    of_weight = torch.zeros_like(weight, dtype=wide) if needed[1] else None
    of_bias = torch.zeros_like(bias, dtype=wide) if bias is not None and needed[2] else None
    sums: list[Tensor | None] = [None, None, None]
    for first in range(0, max(1, len(hidden)), rows):
        some = slice(first, first + rows)
        part = hidden[some]
        logits = layer.logits(part, weight, bias)
        slope = layer.slope(logits)
        terms, gradient = compare(logits, some)
        del logits  # they may not be where the gradient is, and the products need room
        if slope is not None:
            gradient = slope.mul_(gradient)
        for place, (before, term) in enumerate(zip(sums, terms, strict=True)):
            sums[place] = term if before is None or term is None else before + term
        if of_bias is not None:
            of_bias += gradient.sum(dim=0)
        if is_half:
            _add_products_of_half(
                gradient, part, weight, None if of_hidden is None else of_hidden[some], of_weight
            )
            continue
        narrow = gradient.to(hidden.dtype)
        if of_hidden is not None:
            torch.mm(narrow, weight, out=of_hidden[some])
        if of_weight is not None and narrow.dtype == of_weight.dtype:
            of_weight.addmm_(narrow.t(), part)
        elif of_weight is not None:
            of_weight += narrow.t() @ part
    for one in (of_hidden, of_weight):
        if one is not None and layer.scale != 1:
            one *= layer.scale
    inputs = (pending.hidden, pending.weight, bias)
    gradients = [
        # Those of float16 stay wide until they are scaled: most vanish before, and a scale of 65,536 is infinite in it.
        one if one is None or of is None or of.dtype == torch.float16 else one.to(of.dtype)
        for one, of in zip((of_hidden, of_weight, of_bias), inputs, strict=True)
    ]
    return sums, gradients


def _add_products_of_half(
    gradient: Tensor, hidden: Tensor, weight: Tensor, of_hidden: Tensor | None, of_weight: Tensor | None
) -> None:
    """Fills the gradient of hidden states (n, d), and adds to that of weights (C, d), by products in float16.

    A mean over thousands of rows has gradients (n, C) below 6·10⁻⁸, the least number of float16, so they are divided by
    the largest before.
    """
    if not len(gradient):  # of which there is no largest
        return
    largest = torch.linalg.vector_norm(gradient, torch.inf).clamp(min=torch.finfo(torch.float32).tiny)
    narrow = torch.div(gradient, largest, out=torch.empty_like(gradient, dtype=torch.float16))
    if of_hidden is not None:
        torch.mul((narrow @ weight).to(of_hidden.dtype), largest, out=of_hidden)
    if of_weight is not None:
        of_weight.addcmul_(narrow.t() @ (hidden / _ROOM), _ROOM * largest)


def _usual_rows_at_once(hidden: Tensor, outputs: int) -> int:
    chunk = CHUNK if hidden.device.type == "cpu" else _ON_A_DEVICE * CHUNK
    return max(1, chunk // max(1, outputs))


def rows_of_block(logits: Tensor) -> int:
    """How many rows of a chunk are looked at together."""
    if logits.device.type != "cpu":
        return max(1, len(logits))
    return max(1, _BLOCK // max(1, logits.shape[1]))
