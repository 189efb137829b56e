"""Views within a dataset of torch's that hands out samples of others: their views cannot be asked for through it."""

from __future__ import annotations

from typing import Any

from decant.cache.alignment.map_style import is_a, is_subset
from decant.cache.alignment.same_views import ReadsViews

_OF_SEVERAL = ("ConcatDataset", "StackDataset")


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


def _parts(dataset: Any) -> list[Any]:
    reads = getattr(type(dataset), "__getitem__", None)
    if not getattr(reads, "__module__", "").startswith("torch."):
        return []  # it may take a view
    if is_subset(dataset):
        return [dataset.dataset]
    if any(is_a(dataset, name) for name in _OF_SEVERAL):
        return list(dataset.datasets.values() if isinstance(dataset.datasets, dict) else dataset.datasets)
    return []
