"""The head of a causal language model: which layer it is, and what is done to its outputs.

A network does not say which of its layers makes the logits. So the outputs of a small batch are looked at: the head is
the layer whose outputs are the logits, once what the configuration speaks of is done to them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from decant.pipeline.support.modules import RAISED

_ROUNDING = {torch.float32: 2**-16, torch.float64: 2**-16, torch.float16: 2**-9}
"""How far the logits of fewer positions may be from those of all, as a share of the largest; bfloat16 has 2⁻⁶."""

_CAPS = ("final_logit_softcapping", "logits_soft_cap", "softcap")
_SCALES = ("logits_scaling", "logit_scale", "lm_head_multiplier", "output_multiplier")
"""What configurations call a soft cap of the logits, and what they are multiplied with or divided by."""


@dataclass(frozen=True)
class After:
    """What is done to the outputs of a head: cap·tanh(scale·outputs/cap)."""

    words: str = "nothing"
    scale: float = 1.0
    cap: float | None = None
    divides: bool = False
    """Whether outputs are divided by 1/scale, which rounds otherwise."""

    def __call__(self, outputs: Tensor) -> Tensor:
        if self.scale != 1:
            outputs = outputs / (1 / self.scale) if self.divides else outputs * self.scale
        return outputs if self.cap is None else torch.tanh(outputs / self.cap) * self.cap


def candidates(network: nn.Module, seen: dict[nn.Module, Tensor], logits: Tensor) -> list[nn.Module]:
    """Layers that may be the head: the one that transformers names first, of those with outputs (B, L, R)."""
    named: nn.Module | None = getattr(network, "get_output_embeddings", lambda: None)()
    fitting = [layer for layer, output in seen.items() if output.shape == logits.shape]
    return sorted(fitting, key=lambda layer: layer is not named)


def afters(network: nn.Module) -> Iterator[After]:
    """What may be done to the outputs of a head, by what configurations call it."""
    config = getattr(network, "config", None)
    config = getattr(config, "text_config", config)
    scales = [After()]
    for name in _SCALES:
        if (scale := _number(config, name)) not in (None, 0, 1):
            scales[:0] = [
                After(f"times {scale:g}", scale),
                After(f"divided by {scale:g}", 1 / scale, divides=True),
            ]
    for cap in filter(None, [_number(config, name) for name in _CAPS]):
        for after in scales:
            scaled = "" if after.scale == 1 else f"{after.words}, "
            yield replace(after, words=f"{scaled}soft cap {cap:g}", cap=cap)
    yield from scales  # last: of small logits a soft cap leaves no trace


def _number(config: object, name: str) -> float | None:
    found = getattr(config, name, None)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def plain_layer(head: nn.Module, given: Callable[[], Tensor], dtype: torch.dtype) -> nn.Linear | None:
    """The head, where its outputs are the product with its weight alone: a class of its own may scale them, as may
    a hook, or keep the weight in another form. given: what the head is applied to.
    """
    if not isinstance(head, nn.Linear):
        return None
    states = given()
    try:
        found = functional.linear(states, head.weight, head.bias)
    except RAISED:
        return None
    return head if are_close(found, head(states), dtype) else None


@contextmanager
def recorded(network: nn.Module, seen: dict[nn.Module, Tensor]) -> Iterator[None]:
    """Fills `seen` with the output of each layer that has a weight (R, d) of its own."""

    def record(layer: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            seen[layer] = output

    layers = [layer for layer in network.modules() if getattr(getattr(layer, "weight", None), "ndim", 0) == 2]
    handles = [layer.register_forward_hook(record) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def inner_layer(head: nn.Module, seen: dict[nn.Module, Tensor]) -> nn.Module:
    """The linear layer whose output a head that wraps one hands on as it is; the head itself where there is none."""
    handed_on = (layer for layer, output in seen.items() if output is seen[head])
    return next((layer for layer in handed_on if isinstance(layer, nn.Linear)), head)


def are_close(found: Tensor, expected: Tensor, dtype: torch.dtype | None = None) -> bool:
    """Whether two tensors of logits are the same up to the rounding of their dtype."""
    if found.shape != expected.shape:
        return False
    share = _ROUNDING.get(dtype or expected.dtype, 2**-6)
    found, expected = found.float(), expected.float()
    return bool((found - expected).abs().max() <= share * expected.abs().max().clamp(min=1e-6))
