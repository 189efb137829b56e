"""A small dataset of pictures and a teacher, as somebody with a training loop has them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

N, CLASSES = 60, 3
PIXELS = np.random.default_rng(0).integers(0, 256, (N, 16, 16, 3), dtype=np.uint8)


class Pictures(torch.utils.data.Dataset[Any]):
    """Images of PIL, through a transform of its own if it is given one."""

    classes = ("ant", "bee", "cat")

    def __init__(self, transform: Any = None, length: int = N) -> None:
        self.transform, self.length = transform, length
        self.targets = [index % CLASSES for index in range(length)]

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Any, int]:
        if not 0 <= index < self.length:
            raise IndexError(index)
        image = Image.fromarray(PIXELS[index])
        return image if self.transform is None else self.transform(image), self.targets[index]


class Named(Pictures):
    """The same as dictionaries."""

    def __getitem__(self, index: int) -> Any:
        image, label = super().__getitem__(index)
        return {"image": image, "label": label, "path": f"{index}.png"}


class Teacher(nn.Module):
    """A network of images (B, 3, H, W), float or uint8, that knows the classes of no picture but its brightness."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Dropout(), nn.AdaptiveAvgPool2d(2)
        )
        self.head = nn.Linear(32, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        scaled = images / 255 if images.dtype == torch.uint8 else images
        return self.head(self.body(scaled).flatten(1)) * 3


@pytest.fixture(scope="session")
def teacher() -> Teacher:
    return Teacher()


pytestmark = pytest.mark.filterwarnings("ignore:.*likely not a trained teacher")
