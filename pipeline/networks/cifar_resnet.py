"""Residual networks for small images (He, Zhang, Ren, Sun, 2016: "Deep residual learning", section 4.2).

Three stages of basic blocks, the first at full resolution. The `x4` networks have four times the width,
which knowledge distillation benchmarks use (Tian, Krishnan, Isola, 2020). Downsampling shortcuts are 1 × 1
convolutions. Names of parameters are those of the published checkpoints of RepDistiller.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from decant.pipeline.networks.builders import Builder, Shape, image_channels, initialise_convolutions


class BasicBlock(nn.Module):
    """conv, norm, ReLU, conv, norm, plus the shortcut: (B, in, H, W) → (B, out, H / stride, W / stride)."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(x)) + shortcut, inplace=True)


class CifarResNet(nn.Module):
    """Normalised images (B, in_channels, H, W) → logits (B, num_classes); `depth` is 6n + 2."""

    def __init__(
        self, depth: int, widths: tuple[int, int, int, int], in_channels: int, num_classes: int
    ) -> None:
        super().__init__()
        stem, first, second, third = widths
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = _stage(blocks, stem, first, stride=1)
        self.layer2 = _stage(blocks, first, second, stride=2)
        self.layer3 = _stage(blocks, second, third, stride=2)
        self.fc = nn.Linear(third, num_classes)
        initialise_convolutions(self)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(dim=(2, 3)))


def _stage(blocks: int, in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1)))


def _builder(depth: int, widths: tuple[int, int, int, int]) -> Builder:
    def build(input_shape: Shape, num_classes: int) -> nn.Module:
        return CifarResNet(depth, widths, image_channels(input_shape), num_classes)

    return build


_THIN = (16, 16, 32, 64)
_WIDE = (32, 64, 128, 256)
NETWORKS: dict[str, Builder] = {
    **{f"resnet{depth}": _builder(depth, _THIN) for depth in (8, 14, 20, 32, 44, 56, 110)},
    **{f"resnet{depth}x4": _builder(depth, _WIDE) for depth in (8, 32)},
}
