"""A tenth of CIFAR-10's training images and all of its test images."""

from __future__ import annotations

from pathlib import Path

from torch.utils.data import Dataset, Subset
from torchvision.datasets import CIFAR10, ImageFolder


class _Tenth(Subset[tuple[object, int]]):
    """Every tenth sample."""

    def __init__(self, whole: CIFAR10 | ImageFolder) -> None:
        super().__init__(whole, range(0, len(whole), 10))
        self.classes = whole.classes


def cifar10(root: str, split: str) -> Dataset[tuple[object, int]]:
    """From the folders `train` and `test` of images under `root` where they are there, else from torchvision's
    CIFAR-10, downloaded when absent.
    """
    folder = Path(root) / split
    whole = ImageFolder(folder) if folder.is_dir() else CIFAR10(root, split == "train", download=True)
    return _Tenth(whole) if split == "train" else whole
