"""MobileNetV2 at half width for small images (Sandler, Howard, Zhu, Zhmoginov, Chen, 2018).

The second stage keeps its resolution, every ReLU is a plain one, and every block expands, the first by one;
so knowledge distillation benchmarks use it. Names of parameters are those of the checkpoints of
RepDistiller.
"""

from __future__ import annotations

from torch import Tensor, nn

from decant.pipeline.networks.builders import Builder, Shape, image_channels, initialise_convolutions

_WIDTH = 0.5
_FEATURES = 1280  # not scaled by the width when that is under one (section 5 of the paper)
_STAGES = (  # expansion, channels at full width, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand 1 × 1, filter 3 × 3 by channel, project 1 × 1; the input is added where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.residual = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *_conv_norm_relu(in_channels, hidden, kernel=1),
            *_conv_norm_relu(hidden, hidden, kernel=3, stride=stride, groups=hidden),
            nn.Conv2d(hidden, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


class MobileNetV2(nn.Module):
    """Normalised images (B, in_channels, H, W) → logits (B, num_classes); H and W shrink to a sixteenth."""

    def __init__(self, in_channels: int, num_classes: int) -> None:
        super().__init__()
        channels = int(32 * _WIDTH)
        self.conv1 = _conv_norm_relu(in_channels, channels, kernel=3, stride=2)
        self.blocks = nn.ModuleList()
        for expansion, full_width, blocks, stride in _STAGES:
            out_channels = int(full_width * _WIDTH)
            stage = [InvertedResidual(channels, out_channels, expansion, stride)]
            stage += [InvertedResidual(out_channels, out_channels, expansion, 1) for _ in range(blocks - 1)]
            self.blocks.append(nn.Sequential(*stage))
            channels = out_channels
        self.conv2 = _conv_norm_relu(channels, _FEATURES, kernel=1)
        head = nn.Linear(_FEATURES, num_classes)
        self.classifier = nn.Sequential(head)
        initialise_convolutions(self)
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        for stage in self.blocks:
            x = stage(x)
        return self.classifier(self.conv2(x).mean(dim=(2, 3)))


def _conv_norm_relu(
    in_channels: int, out_channels: int, *, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(inplace=True),
    )


def _build(input_shape: Shape, num_classes: int) -> nn.Module:
    return MobileNetV2(image_channels(input_shape), num_classes)


NETWORKS: dict[str, Builder] = {"mobilenetv2": _build}
