"""Networks for small problems: digits of 8 × 8 pixels, feature vectors, a first try.

`conv` is three convolutions, the family in which a wide teacher and a narrow student differ by one number;
`conv-pool` two of them with biases and max-pools, and a hidden layer.
"""

from __future__ import annotations

import math

from torch import nn

from decant.pipeline.errors import ModelError
from decant.pipeline.networks.builders import Builder, Shape, image_channels, initialise_convolutions

_MOST_LAYERS = 1_000


def _conv(input_shape: Shape, num_classes: int, *, width: int = 16) -> nn.Module:
    """Images of 8 × 8 or more; `width`, 2 and 4 times `width` channels at full, half and quarter size."""
    channels = image_channels(input_shape, smallest=8)
    _check_positive(width=width)
    network = nn.Sequential(
        *_conv_norm_relu(channels, width, stride=1),
        *_conv_norm_relu(width, 2 * width, stride=2),
        *_conv_norm_relu(2 * width, 4 * width, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, num_classes),
    )
    initialise_convolutions(network)
    return network


def _conv_norm_relu(in_channels: int, out_channels: int, stride: int) -> tuple[nn.Module, ...]:
    convolution = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
    return convolution, nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True)


def _conv_pool(input_shape: Shape, num_classes: int, *, width: int = 32, hidden: int = 128) -> nn.Module:
    """Images of 4 × 4 or more; `width` and 2 times `width` channels, each halved in size, then `hidden` units."""
    channels = image_channels(input_shape, smallest=4)
    _check_positive(width=width, hidden=hidden)
    height, breadth = (side // 4 for side in input_shape[1:])
    return nn.Sequential(
        *_conv_relu_pool(channels, width),
        *_conv_relu_pool(width, 2 * width),
        nn.Flatten(),
        nn.Linear(2 * width * height * breadth, hidden),
        nn.ReLU(inplace=True),
        nn.Linear(hidden, num_classes),
    )


def _conv_relu_pool(in_channels: int, out_channels: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)


def _linear(input_shape: Shape, num_classes: int) -> nn.Module:
    """Images or feature vectors; logits are an affine function of the flattened input."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_classes))


def _mlp(input_shape: Shape, num_classes: int, *, hidden: int = 128, layers: int = 2) -> nn.Module:
    """Images or feature vectors; `layers` hidden layers of `hidden` units with ReLU between."""
    _check_positive(hidden=hidden, layers=layers)
    if layers > _MOST_LAYERS:
        raise ModelError(f"layers must be at most {_MOST_LAYERS:,}, got {layers}")
    features = math.prod(input_shape)
    modules: list[nn.Module] = [nn.Flatten()]
    for _ in range(layers):
        modules += [nn.Linear(features, hidden), nn.ReLU(inplace=True)]
        features = hidden
    return nn.Sequential(*modules, nn.Linear(features, num_classes))


def _check_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ModelError(f"{name} must be 1 or more, got {size}")


NETWORKS: dict[str, Builder] = {
    "conv": _conv,
    "conv-pool": _conv_pool,
    "linear": _linear,
    "mlp": _mlp,
}
"""By the name that a recipe gives."""
