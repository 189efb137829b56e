"""Inputs of a network: a tensor of images or features, or a dictionary of tensors, as texts are."""

from __future__ import annotations

import torch
from torch import Tensor

Inputs = Tensor | dict[str, Tensor]
"""(B, …), or {name: (B, L)} of token ids and their mask."""


def to_device(inputs: Inputs, device: torch.device, channels_last: bool = False) -> Inputs:
    """The same on a device, which may still be copying; images with their channels last in memory if asked."""
    if isinstance(inputs, dict):
        return {name: value.to(device, non_blocking=True) for name, value in inputs.items()}
    moved = inputs.to(device, non_blocking=True)
    if channels_last and moved.ndim == 4:
        return moved.contiguous(memory_format=torch.channels_last)
    return moved
