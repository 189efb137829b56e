"""Logits of hidden states: scale·(hidden·weightᵀ) + bias, and cap·tanh(z/cap) with a soft cap."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LastLayer:
    """What a last layer does beside its product.

    >>> LastLayer(scale=2.0).logits(torch.tensor([[1.0, 4.0]]), torch.eye(3, 2), None).tolist()
    [[2.0, 8.0, 0.0]]
    """

    scale: float = 1.0
    soft_cap: float | None = None

    def __post_init__(self) -> None:
        if not math.isfinite(self.scale):
            raise ValueError(f"logit_scale: expected a number, found {self.scale}")
        if self.soft_cap is not None and not 0 < self.soft_cap < math.inf:
            raise ValueError(f"soft_cap: expected a number above 0, found {self.soft_cap}")

    def logits(self, hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """(n, C), in float32 at least, from (n, d), (C, d) and (C,)."""
        made = (hidden @ weight.t()).to(torch.promote_types(hidden.dtype, torch.float32))
        if self.scale != 1.0:
            made *= self.scale
        if bias is not None:
            made += bias
        cap = self.soft_cap
        return made if cap is None else made.div_(cap).tanh_().mul_(cap)

    def slope(self, logits: Tensor) -> Tensor | None:
        """(n, C): by how much the logits grow with the product plus bias; None where it is 1."""
        return None if self.soft_cap is None else 1 - (logits / self.soft_cap).square()
