"""Labels of any form → classes counted from 0, or the targets of a regression."""

from __future__ import annotations

import operator
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import as_values
from decant.pipeline.config.tasks import Task
from decant.pipeline.data.samples import MAX_CLASSES, NO_LABEL, LabelledData, has_sigmoids, task_of
from decant.pipeline.data.sigmoid_labels import check_sigmoid_labels
from decant.pipeline.errors import DataError, nearest

_MOST_NAMES = 20  # that a message lists

Label = int | NDArray[np.float32] | None
"""A class, the targets (T,) of a regression, or none."""


def as_label(value: Any, places: Mapping[str, int] | None = None, task: Task | None = None) -> Label:
    """A sample's label: an integer or a truth value is a class; a text the class of that name; a float, or a row of
    floats, targets; a row of integers that is one-hot stays a row; None is no label. Where the recipe says that the
    task has float labels, integers and truth values are floats too.

    places: the label of each class name, as `places_of` gives it. Raises TypeError for anything else.

    >>> as_label(3), as_label(0.5), as_label(None), as_label("dog", {"cat": 0, "dog": 1})
    (3, array([0.5], dtype=float32), None, 1)
    >>> as_label([True, False], task="multilabel")
    array([1., 0.], dtype=float32)
    """
    if value is None:
        return None
    if isinstance(value, str):
        return _by_name(str(value), places or {})
    array = np.asarray(as_values(value))
    if task == "multilabel" and array.ndim == 0:
        raise TypeError(
            f'a label is one number; of data.task = "{task}" it is a row of 0 and 1, one entry a class'
        )
    if task == "classification" and array.dtype.kind == "f" and array.size == 1:
        return _whole(float(array.reshape(())))
    floats = "f" if task in (None, "classification") else "fiub"
    if array.dtype.kind in floats and array.ndim <= 1:
        return array.astype(np.float32).reshape(-1)
    if array.dtype.kind in "biu" and array.shape in ((), (1,)):
        return int(array.reshape(())[()])
    if array.dtype.kind in "biu" and array.ndim == 1:
        row = array.astype(np.float32)
        if not _is_one_hot(row):
            raise TypeError(
                f"label {array.tolist()}: a row of {len(array)} integers that is not one-hot; a sample has one class, "
                'given by its number; for several set data.task = "multilabel" (for targets of a regression give '
                "floats)"
            )
        return row
    try:
        return _within_64_bits(operator.index(value))
    except TypeError:
        raise TypeError(
            f"label {textwrap.shorten(repr(value), 60)}: expected an integer, a class name, a float or a row of "
            f"floats, or None, found {type(value).__name__} of shape {array.shape}"
        ) from None


def _within_64_bits(number: int) -> int:
    """Raises ValueError for a number that no array of labels holds."""
    if abs(number) >= 2**63:
        raise ValueError(f"label {number}: no class has such a number; labels count from 0")
    return number


def _whole(value: float) -> int | None:
    """A class that is given as a float; None where it is NaN. Raises TypeError for a number that is not whole."""
    if value != value:
        return None
    if not value.is_integer():
        raise TypeError(
            f'label {value:g}: no whole number; of data.task = "classification" a label is a class'
        )
    return int(value)


def places_of(classes: Sequence[str]) -> dict[str, int]:
    """The label of each class name that is the name of one class only.

    >>> places_of(["cat", "crane", "crane"])
    {'cat': 0}
    """
    often = Counter(classes)
    return {name: label for label, name in enumerate(classes) if often[name] == 1}


def from_one_hot(per_sample: Sequence[Label]) -> tuple[Sequence[Label], int | None]:
    """Labels that are one-hot rows, all of them, as their classes, and how many classes the rows are of; other labels
    as they are, and None.

    >>> from_one_hot([as_label([0, 1, 0]), None])
    ([1, None], 3)
    """
    rows = [label for label in per_sample if isinstance(label, np.ndarray)]
    known = sum(label is not None for label in per_sample)
    if (
        not rows
        or len(rows) < known
        or len({len(row) for row in rows}) > 1
        or not all(map(_is_one_hot, rows))
    ):
        return per_sample, None
    return [int(label.argmax()) if isinstance(label, np.ndarray) else label for label in per_sample], len(
        rows[0]
    )


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
    if isinstance(label, np.ndarray) and stored.dtype.kind == "i" and _is_one_hot(label):
        label = int(label.argmax())
    if label is None:
        return bool(np.isnan(stored).all() if stored.dtype.kind == "f" else stored == NO_LABEL)
    return np.array_equal(stored, label, equal_nan=True)


def check_labels(data: LabelledData) -> None:
    """Raises DataError for labels that no phase can use."""
    where = f"{data.name}: {data.split}"
    if has_sigmoids(data):
        check_sigmoid_labels(data, where)
        return
    if task_of(data) == "regression":
        _check_targets(data, where)
        return
    if data.labels.shape != (len(data),) or data.labels.dtype != np.int64:
        raise DataError(f"{where}: labels must be ({len(data)},) integers, found {data.labels.shape}")
    if data.classes and data.labels.max() >= len(data.classes):
        raise DataError(
            f"{where}: label {data.labels.max()} of {len(data.classes)} classes; labels count from 0"
        )
    if data.labels.max() >= MAX_CLASSES:
        raise DataError(
            f"{where}: label {data.labels.max()}: at most {MAX_CLASSES:,} classes, counted from 0, are taken"
        )
    if data.labels.min() < NO_LABEL:
        raise DataError(
            f"{where}: label {data.labels.min()}; labels count from 0, −1 is none: write −1 or None where there is none"
        )


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
            'or targets without class names; rows of 0 and 1, one entry a class, are of data.task = "multilabel"'
        )


def _kind(label: Label) -> str:
    return f"a row of {len(label)} floats" if isinstance(label, np.ndarray) else "a class"


def _is_one_hot(row: NDArray[Any]) -> bool:
    """Whether a row of several numbers is a single 1 among zeros."""
    return len(row) > 1 and bool(((row == 0) | (row == 1)).all()) and row.sum() == 1


def _by_name(name: str, places: Mapping[str, int]) -> int:
    """The label of a class name. Raises TypeError where there is no such class."""
    if name in places:
        return places[name]
    shown = textwrap.shorten(repr(name), 60)
    if not places:
        raise TypeError(
            f"label {shown}: a text needs class names to be found among: give the dataset `classes`"
        )
    hint = nearest(name, places) if len(places) <= _MOST_NAMES else f"there are {len(places):,}"
    raise TypeError(f"label {shown}: is not the name of one class; {hint}")
