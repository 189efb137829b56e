"""Whether a network in evaluation mode gives a sample the same outputs again: alone, and in another batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from decant.pipeline.training.device import Inputs

_FEWEST, _FEW, _PART = 2, 8, 4
"""Samples of the other batch: a quarter, as a mean over few is far from that over many, but enough to see noise in."""
_SHARE = 0.05
"""Of the spread of the outputs: far more than rounding makes of them, in bfloat16 too."""


def doubt_of_outputs(call: Callable[[Inputs], Tensor], inputs: Inputs) -> str | None:
    """Why the outputs (B, C) of `call(inputs)` are no answers that can be kept; None where they are.

    >>> inputs = torch.rand(8, 4)
    >>> doubt_of_outputs(lambda x: 2 * x, inputs)
    >>> doubt_of_outputs(lambda x: x - x.mean(dim=0), inputs).partition(":")[0]
    'its outputs for a sample depend on the others of a batch'
    """
    outputs = call(inputs)
    few = max(_FEWEST, min(_FEW, len(outputs) // _PART))
    is_batch = len(outputs) > few
    if is_batch and not _differ(call(_first(inputs, few)), outputs, few):
        return None
    if _differ(call(inputs), outputs):
        return (
            "its outputs for the same batch are others each time: dropout or noise that stays on in evaluation mode, "
            "as functional.dropout without training=self.training"
        )
    # Of as many samples as before, as kernels of another batch size may round otherwise.
    if is_batch and _differ(call(_repeated(inputs, few, len(outputs))), outputs, few):
        return (
            "its outputs for a sample depend on the others of a batch: batch normalisation that stays in training "
            "mode, or another mean over the batch"
        )
    return None


def _first(inputs: Inputs, count: int) -> Inputs:
    return (
        {name: value[:count] for name, value in inputs.items()}
        if isinstance(inputs, dict)
        else inputs[:count]
    )


def _repeated(inputs: Inputs, few: int, count: int) -> Inputs:
    """The first few again and again, `count` in all."""
    if isinstance(inputs, dict):
        return {name: value[torch.arange(count, device=value.device) % few] for name, value in inputs.items()}
    return inputs[torch.arange(count, device=inputs.device) % few]


def _differ(found: Tensor, expected: Tensor, count: int | None = None) -> bool:
    """Whether outputs are not those expected, the first `count` of which are compared."""
    found, expected = found.float(), expected.float()
    spread = (expected - expected.mean(dim=0)).abs().mean()
    return bool(
        (found[:count] - expected[:count]).abs().mean() > _SHARE * spread + torch.finfo(torch.float32).tiny
    )
