"""A dataset through its views: (index, view) → the same pixels, always, everywhere.

Every random choice is a hash of (seed, index, view, which choice): no stored parameters, no global random
state, the same bytes for any batch size, order, worker count and process. A whole batch is augmented at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from decant.cache import Key, Keys, one_input, split_keys
from decant.pipeline.config.augmentations import Mixing
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.samples import LabelledData, num_classes, task_of, vocabulary
from decant.pipeline.errors import DataError
from decant.pipeline.views import enumeration, mixing, operations
from decant.pipeline.views.hashing import choices

_PART_BYTES = 1 << 20


class ViewedData(Dataset[tuple[Any, Any]]):
    """A dataset through its views: `viewed[i, v]` is (input, label) of view v of sample i; `viewed[i]` is
    view 0.

    Any v ≥ 0 is a view, of which `settings.num_views` are cached; with `count = "all"` there are no others.
    Where an operation mixes samples, labels are (C,) float32 shares of the classes, all zero without a label.
    """

    def __init__(self, data: LabelledData, settings: ViewsSettings) -> None:
        """Raises DataError where an operation cannot work on inputs of this kind."""
        self.data, self.settings, self._on_device = data, settings, False
        self.mixes_labels = any(isinstance(operation, Mixing) for operation in settings.augment)
        if settings.augment and vocabulary(data) is not None:
            raise DataError(
                f"views.augment: {settings.augment[0].op}: works on images, and {data.name} is texts"
            )
        if self.mixes_labels and task_of(data) != "classification":
            raise DataError(f"views.augment: mixup and cutmix mix class labels; {data.name} has none to mix")
        self._num_classes = num_classes(data) if self.mixes_labels else 0
        self.input_shape = self._check() if settings.augment else data.input_shape

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, key: Key) -> tuple[Any, Any]:
        inputs, labels = self.batch([key])
        return one_input(inputs, 0), labels[0]

    def batch(self, keys: Keys) -> tuple[Any, torch.Tensor]:
        """(inputs (B, …) as the data has them, labels) of a batch of keys; labels are (B,) int64, (B, T)
        float32 of a regression, or (B, C) float32 where samples are mixed. Texts are {name: (B, longest)}.
        """
        indices, views = split_keys(keys, len(self))
        if self.settings.count == "all" and views.max(initial=0) >= self.settings.num_views:
            raise IndexError(f"view {views.max()}: there are {self.settings.num_views}")
        inputs, labels = self._viewed(indices, views)
        if isinstance(inputs, dict):
            return {name: torch.from_numpy(value) for name, value in inputs.items()}, torch.from_numpy(labels)
        if isinstance(inputs, np.ndarray):
            inputs = torch.from_numpy(np.ascontiguousarray(inputs))
        return inputs.contiguous(), torch.from_numpy(labels)

    def batches(self, keys: Sequence[Keys]) -> list[tuple[torch.Tensor, ...]]:
        """`batch` of each of several keys, of the same bytes, made in one call; not of texts, of which a batch is as
        long as its longest.
        """
        sizes = [len(each) for each in keys]
        return list(
            zip(*(torch.split(part, sizes) for part in self.batch(np.concatenate(keys))), strict=True)
        )

    def on_device(self, data: LabelledData) -> ViewedData:
        """The same views of the same data, whose `raw` are tensors on a device."""
        views = copy.copy(self)
        views.data, views._on_device = data, True
        return views

    def cached_views(self, indices: NDArray[np.integer], epoch: int) -> NDArray[np.integer]:
        """The view of each sample that a student sees in an epoch: epoch mod V; with `"all"`, the one that a live
        teacher would see.
        """
        if self.settings.count == "all":
            return enumeration.drawn(self.settings, indices, epoch)
        return np.full(len(indices), epoch % self.settings.count)

    def live_views(self, indices: NDArray[np.integer], epoch: int) -> NDArray[np.integer]:
        """The view of each sample where nothing is cached: a new one each epoch."""
        if self.settings.count == "all":
            return enumeration.drawn(self.settings, indices, epoch)
        return np.full(len(indices), epoch)

    def _viewed(self, indices: NDArray[np.integer], views: NDArray[np.integer]) -> tuple[Any, NDArray[Any]]:
        """Inputs and labels after all operations; on a processor large images a few at a time, which then stay
        in its cache from one operation to the next.
        """
        count, each = len(self.settings.augment), max(1, _PART_BYTES // math.prod(self.data.input_shape))
        if not count or len(indices) <= each or self._on_device:
            return self._after(count, indices, views)
        starts = range(0, len(indices), each)
        parts = [
            self._after(count, indices[start : start + each], views[start : start + each]) for start in starts
        ]
        inputs, labels = zip(*parts, strict=True)
        return np.concatenate(inputs), np.concatenate(labels)

    def _after(
        self, count: int, indices: NDArray[np.integer], views: NDArray[np.integer]
    ) -> tuple[Any, NDArray[Any]]:
        """Inputs and labels after the first `count` operations."""
        images, labels = self.data.raw(indices), self._labels(indices)
        for step, operation in enumerate(self.settings.augment[:count]):
            bits = choices(self.settings.seed, indices, views, step, operation.draws)
            if self.settings.count == "all":
                images = enumeration.enact(self.settings, step, images, views)
            elif isinstance(operation, Mixing):
                partners, theirs = self._after(step, mixing.partner(bits, len(self)), views)
                images, share = operations.mix(operation, images, partners, bits)
                labels = _shares(share) * labels + _shares(1 - share) * theirs
            else:
                images = operations.apply(operation, images, bits)
        return images, labels

    def _labels(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        labels = self.data.labels[indices]
        return (
            (labels[:, None] == np.arange(self._num_classes)).astype(np.float32)
            if self.mixes_labels
            else labels
        )

    def _check(self) -> tuple[int, ...]:
        """The shape of an input after all operations. Raises DataError where one of them cannot take it."""
        first, view = np.zeros(1, np.int64), np.zeros(1, np.int64)
        for step, operation in enumerate(self.settings.augment):
            images, _ = self._after(step, first, view)
            reason = operations.unsupported(operation, images.shape[1:], images.dtype)
            if reason is not None:
                raise DataError(f"views.augment: {operation.op}: {reason} (data: {self.data.name})")
        return tuple(self._after(len(self.settings.augment), first, view)[0].shape[1:])


def _shares(share: NDArray[np.float64]) -> NDArray[np.float32]:
    return share.astype(np.float32)[:, None]
