"""Two of scikit-learn's digits side by side, 100 classes: enough of them for compact encodings to be smaller."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch.utils.data import Dataset

_COUNTS = {"train": 4_000, "test": 4_000}


class Pairs(Dataset[tuple[NDArray[np.uint8], int]]):
    """Pairs (1, 8, 16) of the digits of a part; every fifth digit is of the test part."""

    classes = tuple(f"{number:02}" for number in range(100))

    def __init__(self, split: str) -> None:
        found = load_digits()
        digits = np.flatnonzero((np.arange(len(found.target)) % 5 == 0) == (split == "test"))
        pairs = np.random.default_rng(split == "test").choice(digits, (_COUNTS[split], 2))
        images = (found.images * 15).astype(np.uint8)
        self.images = np.concatenate([images[pairs[:, 0]], images[pairs[:, 1]]], axis=2)[:, None]
        self.labels = 10 * found.target[pairs[:, 0]] + found.target[pairs[:, 1]]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[NDArray[np.uint8], int]:
        return self.images[index], int(self.labels[index])


def pairs(root: str, split: str) -> Pairs:
    """A part of the data."""
    return Pairs(split)
