"""The transfer set: samples that the teacher is not trained on, for which its logits are cached and on which students
train.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.settings import Settings, TransferSettings
from decant.pipeline.config.tasks import Task
from decant.pipeline.data.part_names import listed
from decant.pipeline.data.samples import (
    NO_LABEL,
    LabelledData,
    RawInputs,
    Split,
    check_unchanged,
    decoding,
    num_classes,
    vocabulary,
)
from decant.pipeline.data.spelling import hint_of_spelling
from decant.pipeline.errors import DataError


@dataclass
class SomeOf:
    """Some samples of other data, in the order of `indices`, with labels of their own."""

    whole: LabelledData
    split: str
    indices: NDArray[np.int64]
    labels: NDArray[Any]
    classes: tuple[str, ...]
    name: str = field(init=False)
    lazy: bool = field(init=False)
    task: Task | None = field(init=False)

    def __post_init__(self) -> None:
        self.name, self.lazy, self.task = self.whole.name, self.whole.lazy, self.whole.task

    def __len__(self) -> int:
        return len(self.indices)

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.whole.input_shape

    @property
    def vocabulary(self) -> int | None:
        return vocabulary(self.whole)

    @property
    def decoding(self) -> int | None:
        return decoding(self.whole)

    def raw(self, indices: NDArray[np.integer]) -> RawInputs:
        return self.whole.raw(self.indices[indices])

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where a file that the whole is read from has changed."""
        check_unchanged(self.whole, checksums)

    def digest(self) -> str:
        """Of the whole, and of which samples of it these are, with which labels."""
        digest = hashlib.sha256(f"{self.whole.digest()} {len(self)} {self.labels.dtype.str}".encode())
        digest.update(np.ascontiguousarray(self.indices, dtype="<i8").data)
        digest.update(np.ascontiguousarray(self.labels).data)
        return digest.hexdigest()


def divide(
    settings: Settings, train: LabelledData, read: Callable[[Split], LabelledData]
) -> tuple[LabelledData, LabelledData]:
    """(the data that the teacher is trained on, the data that students are trained on): twice the training part,
    unless the recipe has `data.transfer`. read: gives another part by its name. Raises DataError where the parts cannot
    be made.
    """
    transfer = settings.data.transfer
    if transfer is None:
        return train, train
    if transfer.part is not None:
        return train, _own_part(transfer, train, read)
    held_out = np.zeros(len(train), bool)
    held_out[_drawn(len(train), transfer)] = True
    classes = _classes(train)
    students = np.flatnonzero(held_out)
    teachers = np.flatnonzero(~held_out)
    if not len(students) or not len(teachers):
        raise DataError(
            f"{train.name}: data.transfer.share: {transfer.share:g} of {len(train):,} samples leaves "
            f"{len(teachers):,} to the teacher and {len(students):,} to students; each needs one or more"
        )
    labels = train.labels[students] if transfer.labels else _no_labels(train.labels[students])
    return (
        SomeOf(train, "train", teachers, train.labels[teachers], classes),
        SomeOf(train, "transfer", students, labels, classes),
    )


def require_same_classes(train: LabelledData, other: LabelledData, part: str, hint: str = "") -> None:
    """Raises DataError where another part has other class names than the training part, or the same in another order,
    so that a label means another class.
    """
    if train.classes == other.classes:
        return
    missing, more = sorted({*train.classes} - {*other.classes}), sorted({*other.classes} - {*train.classes})
    if not missing and not more:
        raise DataError(
            f"{train.name}: the train and {part} parts have the same classes in another order, so that their labels "
            f"mean different classes: train {listed(train.classes)}; {part} {listed(other.classes)}{hint}"
        )
    words = [f"{part} lacks {listed(missing)}"] if missing else []
    words += [f"train lacks {listed(more)}"] if more else []
    raise DataError(
        f"{train.name}: the train and {part} parts have different classes: {'; '.join(words)}"
        f"{hint_of_spelling(missing, more)}{hint}"
    )


def _drawn(length: int, transfer: TransferSettings) -> NDArray[np.int64]:
    """Which samples are held out: a function of the length, the seed and the share alone."""
    order = np.random.Generator(np.random.Philox(key=[transfer.seed, length])).permutation(length)
    return order[: round((transfer.share or 0.0) * length)]


def _own_part(
    transfer: TransferSettings, train: LabelledData, read: Callable[[Split], LabelledData]
) -> LabelledData:
    """The part of the source that `data.transfer.part` names, with the classes of the training part."""
    own = read(str(transfer.part))
    if own.input_shape != train.input_shape:
        raise DataError(
            f"{train.name}: train inputs are {train.input_shape}, {transfer.part} inputs {own.input_shape}; "
            "set views.size to bring both to one"
        )
    if transfer.labels:
        hint = "; if these are no labels, set data.transfer.labels = false"
        require_same_classes(train, own, str(transfer.part), hint)
    labels = own.labels if transfer.labels else _no_labels(_shaped_like(train.labels, len(own)))
    return SomeOf(own, "transfer", np.arange(len(own)), labels, _classes(train))


def _classes(train: LabelledData) -> tuple[str, ...]:
    """Names of the classes, so that a part in which one of them does not come up has as many."""
    if train.classes or train.labels.dtype.kind == "f":
        return train.classes
    return tuple(map(str, range(num_classes(train))))


def _no_labels(labels: NDArray[Any]) -> NDArray[Any]:
    return np.full_like(labels, np.nan if labels.dtype.kind == "f" else NO_LABEL)


def _shaped_like(labels: NDArray[Any], length: int) -> NDArray[Any]:
    return np.zeros((length, *labels.shape[1:]), labels.dtype)
