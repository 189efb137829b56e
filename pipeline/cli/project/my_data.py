"""The data: any map-style dataset whose items are (input, label). Put your own in place of `Shapes`."""

from __future__ import annotations

import numpy as np
import torch

SIZE = 16


class Shapes(torch.utils.data.Dataset[tuple[np.ndarray, int]]):
    """Small noisy grey images of four shapes; they are drawn, so there is nothing to download."""

    classes = ("disc", "square", "cross", "triangle")

    def __init__(self, count: int, seed: int) -> None:
        random = np.random.default_rng(seed)
        self.labels = random.integers(len(self.classes), size=count)
        self.images = np.stack([self._draw(label, random) for label in self.labels])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        """An image (C, H, W), uint8, and its class, counted from 0. The same index gives the same pair every time."""
        return self.images[index], int(self.labels[index])

    def _draw(self, label: int, random: np.random.Generator) -> np.ndarray:
        row, column = np.mgrid[:SIZE, :SIZE] - random.uniform(5.5, 9.5, (2, 1, 1))
        radius = random.uniform(2.5, 5.0)
        inside = (
            row**2 + column**2 < radius**2,
            np.maximum(abs(row), abs(column)) < 0.9 * radius,
            (np.minimum(abs(row), abs(column)) < 0.3 * radius) & (np.maximum(abs(row), abs(column)) < radius),
            (row < 0.8 * radius) & (row > 2 * abs(column) - radius),
        )[label]
        image = inside * random.uniform(60, 160) + random.normal(60, 32, (SIZE, SIZE))
        return image.clip(0, 255).astype(np.uint8)[None]


def shapes(root: str, split: str) -> Shapes:
    """What the recipe names. `root` is data.root, a folder for files; `split` is "train" or "test"."""
    return Shapes(1200, seed=1) if split == "train" else Shapes(500, seed=2)
