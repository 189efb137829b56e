"""VGG networks with batch normalisation (Simonyan, Zisserman, 2015; Ioffe, Szegedy, 2015), for small images.

One linear layer after global average pooling stands in for the three of the paper; `vgg8` has one
convolution a stage. Names of parameters are those of the published checkpoints of RepDistiller.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from decant.pipeline.networks.builders import Builder, Shape, image_channels, initialise_convolutions

_WIDTHS = (64, 128, 256, 512, 512)
_DEPTHS = {  # convolutions in each of the five stages
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}


class Vgg(nn.Module):
    """Normalised images (B, in_channels, H, W), of 8 × 8 or more → logits (B, num_classes)."""

    def __init__(self, depths: tuple[int, ...], in_channels: int, num_classes: int) -> None:
        super().__init__()
        incoming = (in_channels, *_WIDTHS[:-1])
        stages = [_stage(*stage) for stage in zip(depths, incoming, _WIDTHS, strict=True)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = stages
        self.classifier = nn.Linear(_WIDTHS[-1], num_classes)
        initialise_convolutions(self)
        nn.init.normal_(self.classifier.weight, std=0.01)
        nn.init.zeros_(self.classifier.bias)

    def forward(self, x: Tensor) -> Tensor:
        for stage in (self.block0, self.block1, self.block2):
            x = F.max_pool2d(F.relu(stage(x), inplace=True), 2)
        x = F.relu(self.block3(x), inplace=True)
        if min(x.shape[2:]) >= 8:  # images of 64 × 64 and more; 32 × 32 stay at 4 × 4 for the last two stages
            x = F.max_pool2d(x, 2)
        x = F.relu(self.block4(x), inplace=True)
        return self.classifier(x.mean(dim=(2, 3)))


def _stage(depth: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """`depth` convolutions, each normalised, with a ReLU between them but none at the end."""
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [
            nn.Conv2d(in_channels, out_channels, 3, padding=1),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(True),
        ]
        in_channels = out_channels
    return nn.Sequential(*layers[:-1])


def _builder(depths: tuple[int, ...]) -> Builder:
    def build(input_shape: Shape, num_classes: int) -> nn.Module:
        return Vgg(depths, image_channels(input_shape, smallest=8), num_classes)

    return build


NETWORKS: dict[str, Builder] = {name: _builder(depths) for name, depths in _DEPTHS.items()}
