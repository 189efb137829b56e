"""What the functions that build networks have in common: the shapes that they take, and the weights they begin with."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from decant.pipeline.errors import ModelError

Shape = tuple[int, ...]
"""Of one input without the batch: (C, H, W) or (F,)."""

Builder = Callable[..., nn.Module]
"""(input_shape, num_classes, *, the network's own arguments) → the network."""


def image_channels(input_shape: Shape, smallest: int = 1) -> int:
    """C of an image shape (C, H, W). Raises ModelError where it is no image, or a side is under `smallest` pixels."""
    if len(input_shape) != 3:
        raise ModelError(f"needs images (C, H, W), the data has inputs of shape {input_shape}")
    channels, height, width = input_shape
    if min(height, width) < smallest:
        raise ModelError(
            f"needs images of at least {smallest} × {smallest} pixels, the data's are {height} × {width}"
        )
    return channels


def initialise_convolutions(network: nn.Module) -> None:
    """Draws the weights of every 2-D convolution from a normal distribution with variance 2 / (k² · channels out), and
    sets its biases to zero: He, Zhang, Ren, Sun, "Delving deep into rectifiers" (2015), equation 14.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
