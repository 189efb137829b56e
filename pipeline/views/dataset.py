"""A dataset through its views: (index, view) → the same pixels, always, everywhere.

Every random choice is a hash of (seed, index, view, which choice): no stored parameters, no global random
state, the same bytes for any batch size, order, worker count and process. A whole batch is augmented at once.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from decant.cache import Key, Keys, one_input, split_batch, split_keys
from decant.pipeline.config.augmentations import Mixing
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data.samples import LabelledData, num_classes, task_of, vocabulary
from decant.pipeline.errors import DataError
from decant.pipeline.views import enumeration, mixing, operations
from decant.pipeline.views.hashing import choices

_PART_BYTES = 1 << 20

InputsOf = Callable[[int, int], Any]
"""(first, end) → the inputs of these places."""


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
        indices, views = self._checked(keys)
        inputs, labels = self._viewed(indices, views, self._labels(indices))
        return _tensors(inputs), torch.from_numpy(labels)

    def labels_first(self, keys: Keys) -> tuple[NDArray[Any], InputsOf] | None:
        """What `batch` makes of keys, the labels (N, …) of all of them before any input, and a function: (first, end) →
        the inputs of keys[first:end]. Keys are checked and labels looked up once, however many batches these are. None
        where samples are mixed, whose labels depend on their inputs.
        """
        if self.mixes_labels or type(self).batch is not ViewedData.batch:
            return None
        indices, views = self._checked(keys)
        labels = self._labels(indices)

        def inputs_of(first: int, end: int) -> Any:
            part = slice(first, end)
            return _tensors(self._viewed(indices[part], views[part], labels[part])[0])

        return labels, inputs_of

    def batches(self, keys: Sequence[Keys]) -> list[tuple[torch.Tensor, ...]]:
        """`batch` of each of several keys, of the same bytes, made in one call; not of texts, of which a batch is as
        long as its longest.
        """
        return split_batch(self.batch(np.concatenate(keys)), keys)

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

    def _checked(self, keys: Keys) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Keys as indices and views. Raises IndexError for what is not there."""
        indices, views = split_keys(keys, len(self))
        if self.settings.count == "all" and views.max(initial=0) >= self.settings.num_views:
            raise IndexError(f"view {views.max()}: there are {self.settings.num_views}")
        return indices, views

    def _viewed(
        self, indices: NDArray[np.integer], views: NDArray[np.integer], labels: NDArray[Any]
    ) -> tuple[Any, NDArray[Any]]:
        """Inputs and labels after all operations, from the labels before; on a processor large images a few at a time,
        which then stay in its cache from one operation to the next.
        """
        count, each = len(self.settings.augment), max(1, _PART_BYTES // math.prod(self.data.input_shape))
        if not count or len(indices) <= each or self._on_device:
            return self._after(count, indices, views, labels)
        places = [slice(start, start + each) for start in range(0, len(indices), each)]
        parts = [self._after(count, indices[place], views[place], labels[place]) for place in places]
        inputs, parts_of_labels = zip(*parts, strict=True)
        return np.concatenate(inputs), np.concatenate(parts_of_labels)

    def _after(
        self, count: int, indices: NDArray[np.integer], views: NDArray[np.integer], labels: NDArray[Any]
    ) -> tuple[Any, NDArray[Any]]:
        """Inputs and labels after the first `count` operations, from the labels before."""
        images = self.data.raw(indices)
        for step, operation in enumerate(self.settings.augment[:count]):
            bits = choices(self.settings.seed, indices, views, step, operation.draws)
            if self.settings.count == "all":
                images = enumeration.enact(self.settings, step, images, views)
            elif isinstance(operation, Mixing):
                others = mixing.partner(bits, len(self))
                partners, theirs = self._after(step, others, views, self._labels(others))
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
        label = self._labels(first)
        for step, operation in enumerate(self.settings.augment):
            images, _ = self._after(step, first, view, label)
            reason = operations.unsupported(operation, images.shape[1:], images.dtype)
            if reason is not None:
                raise DataError(f"views.augment: {operation.op}: {reason} (data: {self.data.name})")
        return tuple(self._after(len(self.settings.augment), first, view, label)[0].shape[1:])


def _tensors(inputs: Any) -> Any:
    """Inputs of a batch as contiguous tensors."""
    if isinstance(inputs, dict):
        return {name: torch.from_numpy(value) for name, value in inputs.items()}
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(np.ascontiguousarray(inputs))
    return inputs.contiguous()


def _shares(share: NDArray[np.float64]) -> NDArray[np.float32]:
    return share.astype(np.float32)[:, None]
