"""What the labels of a dataset of one's own are, and how a cache stores them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import NotComparableError, class_ids, targets
from decant.pipeline.errors import DataError


@dataclass(frozen=True)
class Labels:
    """The kind of labels: class ids, rows of targets, or none that can be stored."""

    num_targets: int | None
    """None for class ids, T for float targets (N, T)."""
    classes: tuple[str, ...] | None
    """Their names, where the dataset has them."""
    mixed: bool
    """Whether they are mixed ones, which are stored as unknown."""

    @classmethod
    def of(cls, probed: list[Any], classes: Any, mixed: bool, num_outputs: int | None) -> Labels:
        """The kind of labels that some of them are of; `num_outputs` tells one-hot rows from targets."""
        names = tuple(map(str, classes)) if isinstance(classes, list | tuple) else None
        first = next((label for label in probed if label is not None), None)
        found = None if first is None or isinstance(first, str) else np.asarray(first)
        if mixed or found is None or not (found.dtype.kind == "f" or _is_row(found)):
            return cls(None, names, mixed)
        if found.ndim == 1 and len(found) == num_outputs and _all_one_hot(probed):
            return cls(None, names, mixed)
        return cls(max(1, found.size), names, mixed)

    def stored(self, labels: list[Any], num_outputs: int) -> NDArray[Any]:
        """(B,) int64 or (B, T) float32, −1 or NaN where there is none. Raises DataError for any other kind."""
        count = len(labels)
        none = np.array([label is None for label in labels])
        if self.mixed or none.all():
            return (
                np.full(count, -1) if self.num_targets is None else np.full((count, self.num_targets), np.nan)
            )
        try:
            if self.num_targets is not None:
                return targets(labels, (count, self.num_targets))
            return class_ids(labels, num_outputs, list(self.classes) if self.classes else None).astype(
                np.int64
            )
        except NotComparableError as error:
            raise DataError(
                f"labels: expected class ids, names of classes, one-hot rows or floats of one length, found labels "
                f"that are {error}" + ("; a sample without a label has −1" if any(none) else "")
            ) from None


def _is_row(label: NDArray[Any]) -> bool:
    """Whether a label is several integers or booleans, as the labels of several tasks are."""
    return label.dtype.kind in "iub" and label.ndim == 1 and len(label) > 1


def _all_one_hot(labels: list[Any]) -> bool:
    rows = np.stack([np.asarray(label) for label in labels])
    return bool(((rows == 0) | (rows == 1)).all() and (rows.sum(axis=-1) == 1).all())
