"""Labels of any form → classes counted from 0, or the targets of a regression."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.data.samples import NO_LABEL, LabelledData, task_of
from decant.pipeline.errors import DataError

Label = int | NDArray[np.float32] | None
"""A class, the targets (T,) of a regression, or none."""


def as_label(value: Any) -> Label:
    """A sample's label: an integer is a class; a float, or a row of floats, targets; None is no label. Raises
    TypeError for anything else.

    >>> as_label(3), as_label(0.5), as_label(None)
    (3, array([0.5], dtype=float32), None)
    """
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind == "f" and array.ndim <= 1:
        return array.astype(np.float32).reshape(-1)
    return operator.index(value)


def as_labels(per_sample: Sequence[Label], where: str) -> NDArray[Any]:
    """(N,) int64 of classes, −1 for none; (N, T) float32 of targets, NaN for none.

    Raises DataError, beginning with `where`, where samples differ in kind or number of targets.
    """
    known = [(index, label) for index, label in enumerate(per_sample) if label is not None]
    kind = _kind(known[0][1]) if known else "a class"
    odd = next(((index, label) for index, label in known if _kind(label) != kind), None)
    if odd is not None:
        raise DataError(
            f"{where}: sample {odd[0]}: its label is {_kind(odd[1])}, that of sample {known[0][0]} {kind}"
        )
    first = known[0][1] if known else NO_LABEL
    labels: NDArray[Any] = (
        np.full((len(per_sample), len(first)), np.nan, np.float32)
        if isinstance(first, np.ndarray)
        else np.full(len(per_sample), NO_LABEL)
    )
    for index, label in known:
        labels[index] = label
    return labels


def is_label(stored: NDArray[Any], label: Label) -> bool:
    """Whether a row of what `as_labels` gave is this label."""
    if label is None:
        return bool(np.isnan(stored).all() if stored.dtype.kind == "f" else stored == NO_LABEL)
    return np.array_equal(stored, label, equal_nan=True)


def check_labels(data: LabelledData) -> None:
    """Raises DataError for labels that no phase can use."""
    where = f"{data.name}: {data.split}"
    if task_of(data) == "regression":
        _check_targets(data, where)
        return
    if data.labels.shape != (len(data),) or data.labels.dtype != np.int64:
        raise DataError(f"{where}: labels must be ({len(data)},) integers, found {data.labels.shape}")
    if data.classes and data.labels.max() >= len(data.classes):
        raise DataError(
            f"{where}: label {data.labels.max()} of {len(data.classes)} classes; labels count from 0"
        )
    if data.labels.min() < NO_LABEL:
        raise DataError(f"{where}: label {data.labels.min()}; labels count from 0, −1 is none")


def _check_targets(data: LabelledData, where: str) -> None:
    targets = data.labels
    if targets.ndim != 2 or targets.shape[0] != len(data) or not targets.shape[1]:
        raise DataError(f"{where}: targets must be ({len(data)}, T) floats, found {targets.shape}")
    if targets.dtype != np.float32:
        raise DataError(f"{where}: targets must be float32, found {targets.dtype}")
    endless = np.flatnonzero(np.isinf(targets).any(axis=1))
    if len(endless):
        raise DataError(
            f"{where}: sample {endless[0]}: target {targets[endless[0]].tolist()}; targets are finite, NaN is none"
        )
    if data.classes:
        raise DataError(
            f"{where}: has {len(data.classes)} class names, and targets that are floats: give classes as integers, "
            "or targets without class names"
        )


def _kind(label: Label) -> str:
    return f"a row of {len(label)} floats" if isinstance(label, np.ndarray) else "a class"
