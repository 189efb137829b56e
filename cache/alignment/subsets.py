"""A dataset of torch's that hands out samples of others: which samples of the cached data a Subset has, or a Subset of
one; and views that cannot be asked for through it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.alignment.map_style import is_a, is_subset
from decant.cache.alignment.same_views import ReadsViews
from decant.cache.errors import MismatchError
from decant.cache.source import LogitSource

_OF_SEVERAL = ("ConcatDataset", "StackDataset")


def cached_data(dataset: Any, num_samples: int) -> Any:
    """What a cache of so many samples is of: the root of a Subset (of a Subset …); else a Subset of that length, as
    half of a `random_split` is; else the root, whose length is then refused.
    """
    root = part = _root(dataset)
    if len(root) != num_samples:
        part = dataset
        while is_subset(part) and len(part) != num_samples:
            part = part.dataset
    return part


def cached_indices(dataset: Any, data: Any) -> NDArray[np.intp] | None:
    """For a Subset (of a Subset …) of the cached data: which sample of these each sample is; None for the data."""
    if dataset is data or not is_subset(dataset):
        return None
    here = np.asarray(dataset.indices, dtype=np.intp)
    outer = cached_indices(dataset.dataset, data)
    return here if outer is None else outer[here]


def require_cached_length(data: Any, source: LogitSource) -> None:
    """Raises MismatchError unless the cached data are as long as the cache."""
    length = len(data)
    if length != source.num_samples:
        raise MismatchError(
            f"{source.path}: data.length: the dataset has {length:,}, the cache {source.num_samples:,}"
            + (
                f"; of a part of the data give a torch.utils.data.Subset{_of_views(data)}"
                if length < source.num_samples
                else ""
            )
        )


def holder_of_views(dataset: Any) -> str | None:
    """The class of torch's in which `decant.Views`, or others that make views, are: a Subset, ConcatDataset or
    StackDataset. None of any other dataset, of views themselves, of those that are one view a sample, which an index
    alone asks for, and of a class that reads items in a way of its own.

    >>> from torch.utils.data import ConcatDataset, Subset
    >>> class Views(list):
    ...     count, mixes_labels, identity, read_views = 2, False, {}, list.index
    >>> views = Views([("a", 0), ("b", 1)])
    >>> holder_of_views(ConcatDataset([[("c", 2)], Subset(views, [1])])), holder_of_views(Subset(views, [1]))
    ('ConcatDataset', 'Subset')
    >>> holder_of_views(views) is holder_of_views(Subset([("a", 0)], [0])) is None
    True
    """
    parts = _parts(dataset)
    within = any((isinstance(part, ReadsViews) and part.count > 1) or holder_of_views(part) for part in parts)
    return next(name for name in ("Subset", *_OF_SEVERAL) if is_a(dataset, name)) if within else None


def _of_views(data: Any) -> str:
    return (
        " of the views of all, Subset(decant.Views(dataset, …), indices)"
        if isinstance(data, ReadsViews)
        else ""
    )


def _root(dataset: Any) -> Any:
    return _root(dataset.dataset) if is_subset(dataset) else dataset


def _parts(dataset: Any) -> list[Any]:
    reads = getattr(type(dataset), "__getitem__", None)
    if not getattr(reads, "__module__", "").startswith("torch."):
        return []  # it may take a view
    if is_subset(dataset):
        return [dataset.dataset]
    if any(is_a(dataset, name) for name in _OF_SEVERAL):
        return list(dataset.datasets.values() if isinstance(dataset.datasets, dict) else dataset.datasets)
    return []
