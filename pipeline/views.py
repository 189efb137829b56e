"""(seed, index, view) → the same augmented pixels, always, everywhere.

Every random choice is a counter-based hash of (seed, index, view, which choice): no stored parameters, no
global random state, the same bytes for any batch size, order, worker count and process. A whole batch is
augmented at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from cache.dataset import Key, Keys, split_keys
from pipeline.errors import DataError
from pipeline.samples import LabelledData
from pipeline.settings import Augmentation, Flip, PadCrop, ViewsSettings

Bits = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_CHOICES = 16  # counters that one operation may use for one sample


class ViewedData(Dataset[tuple[torch.Tensor, Any]]):
    """A dataset through its views: `viewed[i, v]` is (input, label) of view v of sample i; `viewed[i]` is
    view 0.

    Any v ≥ 0 is a view: `count` of the settings says how many of them are cached.
    """

    def __init__(self, data: LabelledData, settings: ViewsSettings) -> None:
        """Raises DataError where there are operations and the inputs are no images."""
        if settings.augment and len(data.input_shape) != 3:
            raise DataError(
                f"views.augment: works on images (C, H, W); the inputs of {data.name} are {data.input_shape}"
            )
        self.data, self.settings = data, settings

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, Any]:
        inputs, labels = self.batch([key])
        return inputs[0], labels[0]

    def batch(self, keys: Keys) -> tuple[torch.Tensor, torch.Tensor]:
        """(inputs (B, …) as the data has them, labels (B,) int64) of a batch of keys."""
        indices, views = split_keys(keys, len(self))
        inputs = augment(self.data.raw(indices), indices, views, self.settings)
        return torch.from_numpy(inputs), torch.from_numpy(self.data.labels[indices])


def augment(
    images: NDArray[Any], indices: NDArray[np.integer], views: NDArray[np.integer], settings: ViewsSettings
) -> NDArray[Any]:
    """Images (B, C, H, W) through the operations of `settings`, in their order; the result has the same shape
    and dtype.
    """
    for place, operation in enumerate(settings.augment):
        counters = choices(settings.seed, indices, views, place)
        images = _apply(operation, images, counters)
    return np.ascontiguousarray(images)


def choices(seed: int, indices: NDArray[np.integer], views: NDArray[np.integer], operation: int) -> Bits:
    """(B, 16) uint64: the random bits that one operation has for each sample, each from its own counter."""
    key = _mix(_mix(np.full(len(indices), seed, np.uint64)) + indices.astype(np.uint64))
    key = _mix(key + views.astype(np.uint64))
    counters = np.arange(operation * _CHOICES, (operation + 1) * _CHOICES, dtype=np.uint64)
    return _mix(key[:, None] + counters * _GOLDEN)


def below(bits: Bits, bound: int) -> NDArray[np.int64]:
    """Uniform integers 0 … bound − 1 from random bits: the high 32 bits, scaled (Lemire, 2019)."""
    return ((bits >> np.uint64(32)) * np.uint64(bound) >> np.uint64(32)).astype(np.int64)


def chance(bits: Bits, probability: float) -> NDArray[np.bool_]:
    """True with `probability`, from the high 53 bits."""
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53 < probability


def _mix(value: Bits) -> Bits:
    """The finaliser of SplitMix64 (Steele, Lea, Flood, 2014): every input bit reaches every output bit."""
    value = value + _GOLDEN
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


def _apply(operation: Augmentation, images: NDArray[Any], bits: Bits) -> NDArray[Any]:
    match operation:
        case PadCrop(padding=padding):
            return _pad_crop(
                images, padding, below(bits[:, 0], 2 * padding + 1), below(bits[:, 1], 2 * padding + 1)
            )
        case Flip(p=p):
            return _flip(images, chance(bits[:, 0], p))


def _pad_crop(
    images: NDArray[Any], padding: int, top: NDArray[np.int64], left: NDArray[np.int64]
) -> NDArray[Any]:
    height, width = images.shape[-2:]
    padded = np.pad(images, [(0, 0), (0, 0), (padding, padding), (padding, padding)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (height, width), axis=(2, 3))
    return windows[np.arange(len(images)), :, top, left]


def _flip(images: NDArray[Any], mirrored: NDArray[np.bool_]) -> NDArray[Any]:
    images = images.copy()
    images[mirrored] = images[mirrored, ..., ::-1]
    return images
