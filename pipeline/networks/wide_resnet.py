"""Wide residual networks (Zagoruyko, Komodakis, 2016): few layers, many channels, pre-activation blocks.

`wrn-DEPTH-WIDEN`, without dropout. Names of parameters are those of the published checkpoints of
RepDistiller.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from decant.pipeline.networks.builders import Builder, Shape, image_channels, initialise_convolutions


class PreActivationBlock(nn.Module):
    """norm, ReLU, conv, twice, plus the shortcut: (B, in, H, W) → (B, out, H / stride, W / stride).

    The shortcut is the raw input where the width stays, else a 1 × 1 convolution of the activated input.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.convShortcut = None  # spelt as the checkpoints spell it
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        activated = F.relu(self.bn1(x), inplace=True)
        shortcut = x if self.convShortcut is None else self.convShortcut(activated)
        x = F.relu(self.bn2(self.conv1(activated)), inplace=True)
        return self.conv2(x) + shortcut


class Stage(nn.Module):
    """`blocks` blocks, the first of which changes width and resolution; a module of its own for its name."""

    def __init__(self, blocks: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        first = PreActivationBlock(in_channels, out_channels, stride)
        rest = (PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
        self.layer = nn.Sequential(first, *rest)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class WideResNet(nn.Module):
    """Normalised images (B, in_channels, H, W) → logits (B, num_classes); `depth` is 6n + 4."""

    def __init__(self, depth: int, widen: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        blocks = (depth - 4) // 6
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = Stage(blocks, 16, 16 * widen, stride=1)
        self.block2 = Stage(blocks, 16 * widen, 32 * widen, stride=2)
        self.block3 = Stage(blocks, 32 * widen, 64 * widen, stride=2)
        self.bn1 = nn.BatchNorm2d(64 * widen)
        self.fc = nn.Linear(64 * widen, num_classes)
        initialise_convolutions(self)
        nn.init.zeros_(self.fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        x = F.relu(self.bn1(x), inplace=True)
        return self.fc(x.mean(dim=(2, 3)))


def _builder(depth: int, widen: int) -> Builder:
    def build(input_shape: Shape, num_classes: int) -> nn.Module:
        return WideResNet(depth, widen, image_channels(input_shape), num_classes)

    return build


NETWORKS: dict[str, Builder] = {
    f"wrn-{depth}-{widen}": _builder(depth, widen) for depth in (16, 40) for widen in (1, 2)
}
