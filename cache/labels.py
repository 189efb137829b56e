"""The labels of a batch as the cache has them, so that they can be compared.

Class ids may be integers, booleans, floats with whole numbers, in rows of one, one-hot rows, or names of classes.

>>> try:
...     class_ids([0.5, 1.0], num_classes=2)
... except NotComparableError as error:
...     print(error)
floats that are no whole numbers
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.inputs import as_values, is_tensor


class NotComparableError(ValueError):
    """Labels that are of another kind than the cached ones; the message says of which."""


def class_ids(labels: Any, num_classes: int, names: Sequence[str] | None = None) -> NDArray[np.integer]:
    """Labels (B,), (B, 1), one-hot (B, C) or names of classes, as class ids (B,). Raises NotComparableError.

    >>> class_ids([[0, 0, 1], [1, 0, 0]], num_classes=3).tolist()
    [2, 0]
    >>> class_ids(["cat", "dog"], num_classes=2, names=["cat", "dog"]).tolist()
    [0, 1]
    """
    given = _array(labels)
    if given.ndim == 2 and given.shape[1] == 1:
        given = given[:, 0]
    if given.ndim == 1 and given.dtype.kind in "iu":
        return np.asarray(given)
    if given.ndim == 1 and given.dtype.kind == "b":
        return given.astype(np.int64)
    if given.ndim == 1 and given.dtype.kind == "f":
        if np.isfinite(given).all() and np.array_equal(np.rint(given), given):
            return given.astype(np.int64)
        raise NotComparableError("floats that are no whole numbers")
    if given.ndim == 1 and given.dtype.kind in "UO":
        return _by_name(given.tolist(), names)
    if given.ndim == 2 and given.shape[1] == num_classes and given.dtype.kind in "iubf":
        if is_one_hot(given):
            return np.asarray(given.argmax(axis=1))
        raise NotComparableError(f"rows of {num_classes:,} that are not one-hot, as mixed or soft labels are")
    raise NotComparableError(f"of shape {given.shape} and {given.dtype}")


def are_the_ids(labels: Any, ids: NDArray[Any]) -> bool:
    """Whether labels are the class ids (B,), as integers: the usual case, at the cost of a comparison.

    >>> are_the_ids(np.array([2, 0]), np.array([2, 0])), are_the_ids([2, 0], np.array([2, 1]))
    (True, False)
    """
    try:
        given = _array(labels)
    except NotComparableError:
        return False
    if given.shape != ids.shape or given.dtype.kind not in "iu":
        return False
    if given.dtype is ids.dtype:  # by their bytes in a third of the time
        return given.tobytes() == ids.tobytes()
    return bool((given == ids).all())


def targets(labels: Any, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Regression targets (B, T), or (B,) where T is 1, as (B, T) float32. Raises NotComparableError.

    >>> targets([0.5, 2.0], (2, 1)).tolist()
    [[0.5], [2.0]]
    """
    given = _array(labels)
    if given.dtype.kind not in "iubf" or (given.shape != shape and shape != (*given.shape, 1)):
        raise NotComparableError(f"of shape {given.shape} and {given.dtype}")
    return given.astype(np.float32).reshape(shape)


def is_one_hot(rows: NDArray[Any]) -> bool:
    """Whether every row (…, C) has one 1 and else zeros.

    >>> is_one_hot(np.eye(3)), is_one_hot(np.full((2, 2), 0.5))
    (True, False)
    """
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=-1) == 1).all())


def is_half(labels: Any) -> bool:
    """Whether labels are floats of two bytes, which have rounded a target."""
    first = labels[0] if isinstance(labels, (tuple, list)) and len(labels) else labels
    if is_tensor(first):
        return bool(getattr(first, "is_floating_point", bool)()) and first.element_size() == 2
    return getattr(first, "dtype", None) == np.float16


def _by_name(labels: Sequence[Any], names: Sequence[str] | None) -> NDArray[np.int64]:
    if not all(isinstance(label, str) for label in labels):
        raise NotComparableError("None" if None in labels else f"{type(labels[0]).__name__} objects")
    numbers = {name: number for number, name in enumerate(names or ())}
    unknown = next((label for label in labels if label not in numbers), None)
    if unknown is not None:
        raise NotComparableError(f"strings, of which {unknown!r} is no class that the cache names")
    return np.array([numbers[label] for label in labels], np.int64)


def _array(labels: Any) -> NDArray[Any]:
    """Labels of a batch, or a sequence of the labels of its samples, as one array. Raises NotComparableError."""
    try:
        if isinstance(labels, (tuple, list)) and len(labels) and is_tensor(labels[0]):
            return np.stack([as_values(label) for label in labels])
        return np.asarray(as_values(labels))
    except (ValueError, TypeError):
        raise NotComparableError("of different shapes") from None
