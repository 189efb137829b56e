"""Whether something can be read by index, as a map-style dataset; what is given in its place, and what to give instead.

Nothing here imports torch: its classes are known by their names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def require_map_style(dataset: Any, reason: str) -> None:
    """Raises TypeError for what has no length and index, with `reason` and what to give instead; for a dictionary of
    columns or parts; and for a Subset whose indices are a mask, which torch takes for the samples 0 and 1. A Subset is
    followed to what it is a part of.

    >>> require_map_style([("pixels", 3)], "rows belong to samples by their index")
    >>> require_map_style(iter([]), "rows belong to samples by their index")
    Traceback (most recent call last):
    ...
    TypeError: expected a map-style dataset, with a length and an index, found list_iterator: rows belong to ...
    """
    while is_subset(dataset):
        if _is_mask(dataset.indices):
            raise TypeError(
                "Subset: its indices are truth values, which torch takes for the samples 0 and 1: give the places of "
                "a mask, numpy.flatnonzero(mask)"
            )
        dataset = dataset.dataset
    if isinstance(dataset, Mapping) and 0 not in dataset:
        raise TypeError(
            f"expected a map-style dataset, found a {type(dataset).__name__} of {_names(dataset)}: "
            + _of_mapping(dataset)
        )
    if is_a(dataset, "IterableDataset") or not (
        hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    ):
        raise TypeError(
            f"expected a map-style dataset, with a length and an index, found {type(dataset).__name__}: {reason}; "
            + _instead(dataset)
        )


def is_subset(dataset: object) -> bool:
    """Whether it is a `torch.utils.data.Subset`."""
    return is_a(dataset, "Subset")


def is_a(value: object, name: str) -> bool:
    """Whether a class of torch's of this name is among those of a value."""
    return any(kind.__name__ == name and kind.__module__.startswith("torch.") for kind in type(value).__mro__)


def _instead(dataset: Any) -> str:
    if hasattr(dataset, "dataset") and hasattr(dataset, "batch_size"):
        return "of a loader give its dataset, loader.dataset"
    return (
        "read samples by their number, as list(…) of a stream that fits in memory does; a stream whose samples carry "
        "that number is for decant.attach"
    )


def _of_mapping(mapping: Mapping[Any, Any]) -> str:
    """Of parts, as of `datasets.load_dataset` without a split, or of columns."""
    values = list(mapping.values())
    if values and all(hasattr(value, "__array_interface__") or hasattr(value, "numpy") for value in values):
        return "of columns make a torch.utils.data.TensorDataset(inputs, labels)"
    return f"give one of its parts, as [{next(iter(mapping), 'train')!r}]"


def _names(mapping: Mapping[Any, Any]) -> str:
    return ", ".join(map(str, list(mapping)[:8])) or "nothing"


def _is_mask(indices: Any) -> bool:
    if hasattr(indices, "dtype"):
        return str(indices.dtype) in ("bool", "torch.bool")
    return len(indices) > 0 and isinstance(indices[0], bool | np.bool_)
