"""The interface of every dataset: inputs of one shape in a fixed order, labels, and a digest.

Inputs are uint8 images (C, H, W), float features (F,), or texts of at most L tokens. Labels say the task:
integers (N,) are classes, floats (N, T) the targets of a regression. A part that fits in memory is held as one
array. The labels of a binary or multi-label task are floats (N, T) too: 0, 1, or NaN where unknown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.tasks import SIGMOID, Task
from decant.pipeline.errors import DataError

Split = str
"""`train`, `test`, or the name that a transfer set has."""
RawInputs = Any
"""(B, …) array of images or features; of texts a dictionary {name: (B, longest)}. Which one, `vocabulary` tells."""
WhenDecoded: TypeAlias = Literal["at once", "packs ahead", "ahead", "as needed"]
"""When image files are decoded: all before anything is read; in threads ahead of the reader, those that have a pack
alone or all; each when it is read, for who reads a share of them.
"""
NO_LABEL = -1
MAX_CLASSES = 1 << 24
"""Of data; a larger label is a mistake, and counting classes up to it would fill the memory."""
_IN_CACHE = 1 << 16  # numbers that are worked on together
MAX_ARRAY_BYTES = 4 << 30  # a part that is larger than this is not held in memory


class LabelledData(Protocol):
    """A part of a dataset, as every phase uses it."""

    name: str
    split: Split
    labels: NDArray[Any]
    """(N,) int64, −1 where there is none; or (N, T) float32, NaN where there is none."""
    classes: tuple[str, ...]
    """Class names by label; empty where there are none, as of a regression."""
    lazy: bool
    """Whether `raw` decodes files, so that workers are worth their start."""
    task: Task | None
    """The task that the recipe names; None where labels tell."""

    def __len__(self) -> int: ...

    @property
    def input_shape(self) -> tuple[int, ...]:
        """(C, H, W) of images, (F,) of features, (L,) of texts."""

    def raw(self, indices: NDArray[np.integer]) -> RawInputs:
        """(B, …): the inputs themselves, a copy, before any view; of texts {name: (B, longest)}."""

    def digest(self) -> str:
        """SHA-256 of the ordered content."""


@dataclass(frozen=True)
class ListedFiles:
    """The files of a part, as its folder was listed."""

    paths: Sequence[Path]
    sizes: NDArray[np.int64]
    """(N,) bytes."""

    def __reduce__(self) -> tuple[Any, ...]:
        """None for another process, such as a worker: nothing is compared there, and the list may be long."""
        return type(None), ()


@dataclass
class ArrayData:
    """Inputs in one contiguous array."""

    name: str
    split: Split
    inputs: NDArray[Any]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    content: str | None = None
    """The digest, where it is not of the array: of an image folder's list of files."""
    decoding: int | None = None
    """The version of the decoder of image files, which such a digest does not cover."""
    task: Task | None = None
    files: ListedFiles | None = None
    """Those that its images are of."""

    lazy = False

    def __len__(self) -> int:
        return len(self.inputs)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return tuple(self.inputs.shape[1:])

    def raw(self, indices: NDArray[np.integer]) -> NDArray[Any]:
        return self.inputs[indices]

    def digest(self) -> str:
        return self.content or self._digest

    @cached_property
    def _digest(self) -> str:
        described = f"{self.inputs.shape} {self.inputs.dtype.str} {self.labels.dtype.str}".encode()
        digest = hashlib.sha256(described)
        digest.update(np.ascontiguousarray(self.inputs).data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def check_unchanged(data: LabelledData, checksums: bool = False) -> None:
    """Raises CorruptError where a file that the data are read from is no longer what was read from it; with `checksums`
    reads it again. Data in memory cannot change.
    """
    check = getattr(data, "check_unchanged", None)
    if check is not None:
        check(checksums=checksums)


def task_of(data: LabelledData) -> Task:
    """The task of the data: what the recipe says, or else regression where labels are floats, and classification."""
    return data.task or ("regression" if data.labels.dtype.kind == "f" else "classification")


def has_sigmoids(data: LabelledData) -> bool:
    """Whether each output is the logit of a sigmoid: of a binary or a multi-label task."""
    return task_of(data) in SIGMOID


def num_targets(data: LabelledData) -> int | None:
    """T where labels are floats (N, T): targets of a regression, or 0 and 1 of sigmoids. Else None."""
    return data.labels.shape[1] if data.labels.dtype.kind == "f" else None


def num_outputs(data: LabelledData) -> int:
    """How many outputs a network of these data has: classes, or targets. Raises DataError as `num_classes`
    does.
    """
    return num_targets(data) or num_classes(data)


def vocabulary(data: LabelledData) -> int | None:
    """How many tokens texts are made of; None of data that are no texts."""
    size: int | None = getattr(data, "vocabulary", None)
    return size


def decoding(data: LabelledData) -> int | None:
    """The version of the decoder that the pixels come from; None of data that are not decoded from image files here."""
    version: int | None = getattr(data, "decoding", None)
    return version


def has_labels(data: LabelledData) -> bool:
    """Whether any sample has a label, or a regression any target."""
    if data.labels.dtype.kind == "f":
        return not np.isnan(data.labels).all()
    return bool((data.labels != NO_LABEL).any())


def num_classes(data: LabelledData) -> int:
    """How many classes the data have. Raises DataError where neither names nor labels tell."""
    count = len(data.classes) or int(data.labels.max(initial=-1)) + 1
    if count < 1:
        raise DataError(
            f"{data.name}: {data.split}: neither class names nor labels, so the class count is unknown"
        )
    return count


def channel_statistics(data: LabelledData) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel (of images scaled to 0..1) or feature, over the data or
    10,000 of them.
    """
    chosen = spread(len(data), 10_000)
    # all at once could be more than fits in memory
    parts = (data.raw(chosen[start : start + 256]) for start in range(0, len(chosen), 256))
    first = next(parts)
    of_bytes = first.dtype == np.uint8
    mean, std = (_byte_statistics if of_bytes else _float_statistics)(chain([first], parts))
    scale = 255.0 if of_bytes else 1.0
    return [round(value, 6) for value in (mean / scale).tolist()], [
        round(max(value, 1e-6), 6) for value in (std / scale).tolist()
    ]


def _byte_statistics(parts: Iterable[NDArray[np.uint8]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel of images (B, C, …), from exact sums: float32 has every integer up to
    2²⁴, so also the sum of 256 squares of bytes.
    """
    count, sums, squares = 0, np.zeros(0, object), np.zeros(0, object)
    for images in parts:
        channels = images.reshape(len(images), images.shape[1], -1)
        if not count:
            sums, squares = np.zeros((2, channels.shape[1]), object)
        at_once = max(1, _IN_CACHE // max(1, channels[0].size))
        for first in range(0, len(channels), at_once):
            some = channels[first : first + at_once]
            whole = some.shape[2] - some.shape[2] % 256
            for run in (some[:, :, :whole].reshape(*some.shape[:2], -1, 256), some[:, :, None, whole:]):
                exact = run.astype(np.float32)
                sums += exact.sum(axis=3).sum(axis=(0, 2), dtype=np.int64)
                squares += np.einsum("...i,...i", exact, exact).sum(axis=(0, 2), dtype=np.int64)
            count += len(some) * some.shape[2]
    mean = [total / count for total in sums]
    variance = [(count * square - total**2) / count**2 for total, square in zip(sums, squares, strict=True)]
    return np.array(mean), np.sqrt(variance)


def _float_statistics(
    parts: Iterable[NDArray[np.floating]],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same of floats (B, C, …), by merging the statistics of parts (Chan, Golub, LeVeque, 1979)."""
    count, mean, squares = 0, np.float64(0), np.float64(0)
    for inputs in parts:
        values = np.moveaxis(inputs, 1, -1).reshape(-1, inputs.shape[1]).astype(np.float64)
        total, shift = count + len(values), values.mean(axis=0) - mean
        squares = squares + values.var(axis=0) * len(values) + shift**2 * (count * len(values) / total)
        mean = mean + shift * (len(values) / total)
        count = total
    return np.asarray(mean), np.sqrt(np.asarray(squares) / count)


def spread(length: int, count: int) -> NDArray[np.int64]:
    """At most `count` indices, spread evenly over 0 … length − 1; a function of the two alone."""
    return np.unique(np.linspace(0, length - 1, min(length, count)).astype(np.int64))
