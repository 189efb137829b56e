"""LeNet for colour images, as PyTorch's CIFAR-10 tutorial has it (after LeCun, Bottou, Bengio, Haffner, 1998), and a
smaller one with the same convolutions. Names of parameters are the tutorial's, so that its state dict fits.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from decant.pipeline.networks.builders import Builder, Shape, image_channels

_SMALLEST = 16  # each side that the convolutions and pools leave 1 × 1 of


class LeNet(nn.Module):
    """Normalised images (B, C, H, W) → logits (B, num_classes); of 32 × 32 the convolutions leave 400 features."""

    def __init__(self, input_shape: Shape, num_classes: int, hidden: tuple[int, ...]) -> None:
        """`hidden` are the widths of the layers between features and logits: fc1, fc2, …"""
        super().__init__()
        channels = image_channels(input_shape, smallest=_SMALLEST)
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        height, width = (((side - 4) // 2 - 4) // 2 for side in input_shape[1:])
        widths = (16 * height * width, *hidden, num_classes)
        self.names = [f"fc{layer + 1}" for layer in range(len(hidden) + 1)]
        for layer, name in enumerate(self.names):
            self.add_module(name, nn.Linear(widths[layer], widths[layer + 1]))

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2).flatten(1)
        *hidden, last = (self.get_submodule(name) for name in self.names)
        for layer in hidden:
            x = F.relu(layer(x))
        logits: Tensor = last(x)
        return logits


def _lenet(input_shape: Shape, num_classes: int) -> nn.Module:
    return LeNet(input_shape, num_classes, (120, 84))


def _lenet_small(input_shape: Shape, num_classes: int) -> nn.Module:
    return LeNet(input_shape, num_classes, (84,))


NETWORKS: dict[str, Builder] = {"lenet": _lenet, "lenet-small": _lenet_small}
