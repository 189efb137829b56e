"""The key that a sample of a stream carries: which row of the cache is its own."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from decant.cache.alignment.items import ItemKey, kind_of_item
from decant.cache.errors import MismatchError, shorten
from decant.cache.inputs import as_values
from decant.cache.source import LogitSource

SampleKey = ItemKey | Callable[[Any], Any]
"""Where a sample has its key: the name of a field, a place in a tuple, or a function of the sample. The key is the
index of the sample in the cache, or (index, view).
"""


def read_key(sample: Any, key: SampleKey) -> tuple[int, int | None]:
    """(index, view) of a sample; the view is None where the key is an index alone.

    Raises TypeError, naming the sample's fields and what was found, where there is no such field, and where the key is
    neither an index nor (index, view): None, a text, a fraction, a batch of keys.

    >>> read_key({"image": "pixels", "index": 17}, "index")
    (17, None)
    >>> read_key(("pixels", 3, (17, 2)), 2)
    (17, 2)
    >>> read_key({"__key__": "000017"}, lambda sample: int(sample["__key__"]))
    (17, None)
    >>> read_key({"__key__": "000017"}, "__key__")
    Traceback (most recent call last):
    ...
    TypeError: key '__key__': expected an index or (index, view), found '000017'; give a function of the sample, ...
    """
    if callable(key):
        found, place = key(sample), "key"
    else:
        found, place = _field(sample, key), f"key {key!r}"
    value = as_values(found)
    if isinstance(value, np.ndarray) and value.shape in ((), (2,)):
        value = value.tolist() if value.dtype.kind in "iu" else value
    pair = isinstance(value, (tuple, list)) and len(value) == 2
    numbers = [_whole(one) for one in (value if pair else [value])]
    if None in numbers:
        raise TypeError(f"{place}: expected an index or (index, view), found {_shown(found)}")
    index, *view = (number for number in numbers if number is not None)
    return index, view[0] if view else None


def require_row(cache: LogitSource, index: int, view: int) -> None:
    """Raises MismatchError where a cache has no such row. An index of a stream counts from 0."""
    if not 0 <= index < cache.num_samples:
        raise MismatchError(
            f"{cache.path}: key {index:,}: the cache has samples 0 to {cache.num_samples - 1:,}; it is of other data, "
            "or these keys are no indices into its data"
        )
    if not 0 <= view < cache.num_views:
        raise MismatchError(
            f"{cache.path}: key ({index:,}, {view}): the cache has {cache.num_views} views, from 0"
        )


def without_key(sample: Any, key: SampleKey) -> Any:
    """The sample without its key: of (input, label, index) the pair (input, label)."""
    if isinstance(sample, Mapping):
        return {name: value for name, value in sample.items() if name != key}
    if isinstance(sample, (tuple, list)) and isinstance(key, int):
        place = key % len(sample)
        return (*sample[:place], *sample[place + 1 :])
    return sample


def _field(sample: Any, key: ItemKey) -> Any:
    try:
        return sample[key]
    except (KeyError, IndexError, TypeError):
        raise TypeError(f"key {key!r}: no such field in a sample, which is {kind_of_item(sample)}") from None


def _whole(value: object) -> int | None:
    if isinstance(value, (bool, np.bool_)):
        return None
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        return None


def _shown(found: object) -> str:
    shape = getattr(found, "shape", None)
    if shape:
        return f"{type(found).__name__} of shape {tuple(shape)}: attach logits to samples, before they are batched"
    hint = ""
    if isinstance(found, str):
        hint = "; give a function of the sample, as key=lambda sample: int(sample[…])"
    return f"{shorten(found)}{hint}"
