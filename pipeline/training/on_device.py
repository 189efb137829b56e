"""Training data held on their device: inputs and teacher logits are copied there once, and the views of a
batch are computed there.

Views are integer arithmetic, so their bytes are the same on every device. One input of every batch (every input where
the dataset checks all) is copied back and compared with what the teacher saw.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import Keys, LogitSource, SoftLabelDataset, row_chunks, split_batch, split_keys
from decant.pipeline.config.augmentations import Transform
from decant.pipeline.data.samples import ArrayData, spread
from decant.pipeline.errors import DataError
from decant.pipeline.training.device import stream_for
from decant.pipeline.views import ViewedData

BYTES_AT_ONCE = 16 << 20
"""Of what is made in one call: each of its operations takes a GPU's host about as long for one batch as for several."""

_PROBES = 64
_SHARE = 4  # of a GPU's free memory, one part in so many may be taken


_held = WeakKeyDictionary[ViewedData, "dict[torch.device, DeviceViews]"]()


class DeviceViews:
    """The batches of `ViewedData`, held on and computed on a device."""

    def __init__(self, viewed: ViewedData, device: torch.device) -> None:
        """Copies the inputs to `device`; `viewed` must be of an `ArrayData`.

        Raises DataError where the views on the device differ from those on the CPU.
        """
        if not isinstance(viewed, ViewedData) or not isinstance(viewed.data, ArrayData):
            raise TypeError(f"expected an array through its views, found {type(viewed).__name__}")
        self._length, self._device = len(viewed), device
        inputs = torch.from_numpy(viewed.data.inputs).to(device)
        self.input_bytes = math.prod(viewed.input_shape) * inputs.element_size()
        """Of one view."""
        self._viewed = viewed.on_device(_DeviceArray(viewed.data, inputs))
        probes = np.stack([spread(len(viewed), _PROBES)] * 2, axis=1)
        probes[:, 1] %= viewed.settings.num_views
        if not torch.equal(self._viewed.batch(probes)[0].cpu(), viewed.batch(probes)[0]):
            raise DataError(f'{device} makes other views than the processor; set cache.table = "mapped"')
        self._stream = stream_for(device, "views") if device.type == "cuda" else None

    def __len__(self) -> int:
        return self._length

    def batch(self, keys: Keys) -> tuple[Tensor, Tensor]:
        """(inputs (B, …), labels) on the device, the values of the dataset."""
        with self.apart() as ready:
            inputs, labels = self._viewed.batch(keys)
            return ready(inputs), ready(labels.to(self._device, non_blocking=True))

    def batches(self, keys: Sequence[Keys]) -> list[tuple[Tensor, ...]]:
        """`batch` of each of several keys, made in one call."""
        return split_batch(self.batch(np.concatenate(keys)), keys)

    @contextmanager
    def apart(self) -> Iterator[Callable[[Tensor], Tensor]]:
        """Runs the block on a stream of its own, so that it does not wait for the step that the GPU computes meanwhile,
        and waits for the block's end; other streams may use what is passed to the function that it yields.
        """
        if self._stream is None:
            yield lambda tensor: tensor
            return
        others = torch.cuda.default_stream(self._device)

        def ready(tensor: Tensor) -> Tensor:
            tensor.record_stream(others)
            return tensor

        with torch.cuda.stream(self._stream):
            yield ready
        self._stream.synchronize()


class DeviceData:
    """The batches of a `SoftLabelDataset`, held on and computed on a device."""

    def __init__(self, labelled: SoftLabelDataset, device: torch.device) -> None:
        """Copies inputs and teacher logits to `device`; `labelled` must be of `ViewedData` of an `ArrayData`.

        Raises CorruptError for a damaged cache, MismatchError for labels or inputs that are not what the teacher saw,
        DataError where the views on the device differ from those on the CPU.
        """
        viewed = labelled.dataset
        if not isinstance(viewed, ViewedData) or not isinstance(viewed.data, ArrayData):
            raise TypeError(f"expected an array through its views, found {type(viewed).__name__}")
        self._labelled, self._device = labelled, device
        labelled.check_labels(np.arange(len(viewed)), viewed.data.labels)
        self.views = DeviceViews(viewed, device)
        """The same inputs and labels, without logits."""
        self._logits = _all_logits(labelled.cache, device)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    def __len__(self) -> int:
        return len(self._labelled)

    def batch(self, keys: Keys) -> tuple[Tensor, Tensor, Tensor]:
        """(inputs (B, …), labels, teacher_logits (B, C) float32) on the device, the values of the dataset."""
        return self._made(keys, [0][: len(keys)])

    def batches(self, keys: Sequence[Keys]) -> list[tuple[Tensor, ...]]:
        """`batch` of each of several keys, made in one call and compared with the same of the teacher's inputs."""
        starts = np.cumsum([0, *map(len, keys[:-1])])[[len(each) > 0 for each in keys]]
        return split_batch(self._made(np.concatenate(keys), starts.tolist()), keys)

    def _made(self, keys: Keys, starts: list[int]) -> tuple[Tensor, Tensor, Tensor]:
        """Of batches that begin at `starts`, the first input of each is compared, where not all are."""
        indices, views = split_keys(keys, len(self))
        with self.views.apart() as ready:
            inputs, labels = self.views.batch(keys)
            self._check(indices, views, inputs, starts)
            rows = torch.from_numpy(views * len(self) + indices).to(self._device, non_blocking=True)
            return inputs, labels, ready(self._logits[rows].float())

    def _check(
        self, indices: NDArray[np.intp], views: NDArray[np.intp], inputs: Tensor, starts: list[int]
    ) -> None:
        if self._labelled.check_inputs == "all":
            self._labelled.check_input(indices, views, inputs)
            return
        firsts = inputs[starts].cpu()
        for place, start in enumerate(starts):
            one = slice(start, start + 1)
            self._labelled.check_input(indices[one], views[one], firsts[place : place + 1])


def device_views(viewed: ViewedData, device: torch.device) -> ViewedData | DeviceViews:
    """The views held on a GPU that has room for them and makes the same ones, and else as they are."""
    if not _has_room(viewed, device, 0):
        return viewed
    try:
        return DeviceViews(viewed, device)
    except DataError:  # it makes others
        return viewed


def held_views(viewed: ViewedData, device: torch.device) -> ViewedData | DeviceViews:
    """The same, made once: as long as the views are there, later calls get what the first one made."""
    of_devices = _held.setdefault(viewed, {})
    if device in of_devices:
        return of_devices[device]
    made = device_views(viewed, device)
    if isinstance(made, DeviceViews):
        of_devices[device] = made
    return made


def fits_on_device(labelled: SoftLabelDataset, device: torch.device) -> bool:
    """Whether inputs and teacher logits take at most a quarter of a GPU's free memory; False for any other device,
    where nothing is gained, and for views of the user's own.
    """
    rows = labelled.cache.num_views * len(labelled)
    logits_bytes = rows * labelled.cache.num_outputs * labelled.cache.manifest.dtype.itemsize
    return isinstance(labelled.dataset, ViewedData) and _has_room(labelled.dataset, device, logits_bytes)


def _has_room(viewed: ViewedData, device: torch.device, more_bytes: int) -> bool:
    if device.type != "cuda" or not isinstance(viewed.data, ArrayData):
        return False
    if any(isinstance(operation, Transform) for operation in viewed.settings.augment):
        return False
    return bool(viewed.data.inputs.nbytes + more_bytes <= torch.cuda.mem_get_info(device)[0] // _SHARE)


@dataclass
class _DeviceArray:
    """An array whose inputs are a tensor on a device."""

    whole: ArrayData
    inputs: Tensor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def __len__(self) -> int:
        return len(self.whole)

    def raw(self, indices: NDArray[np.integer]) -> Tensor:
        """(B, …) on the device."""
        return self.inputs[torch.from_numpy(indices).to(self.inputs.device, non_blocking=True)]


def _all_logits(cache: LogitSource, device: torch.device) -> Tensor:
    """(V·N, C), or (V·N, K, C) of an ensemble that is not averaged; every block is checked while it is read."""
    parts = [
        torch.from_numpy(cache.logits(rows, view)).to(device)
        for view in range(cache.num_views)
        for rows in row_chunks(cache.num_samples)
    ]
    return torch.cat(parts)
