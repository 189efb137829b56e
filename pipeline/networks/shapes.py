"""What an input must look like for a network to take it."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from decant.pipeline.errors import ModelError

Shape = tuple[int, ...]  # one input without the batch: (C, H, W) or (F,)
Builder = Callable[..., nn.Module]  # (input_shape, num_classes, *, the network's own arguments)


def image_channels(input_shape: Shape, smallest: int = 1) -> int:
    """C of an image shape (C, H, W); raises ModelError when it is no image or a side is under `smallest`."""
    if len(input_shape) != 3:
        raise ModelError(f"needs images (C, H, W), the data has inputs of shape {input_shape}")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ModelError(
            f"needs images of at least {smallest} × {smallest} pixels, the data's are {height} × {width}"
        )
    return channels
