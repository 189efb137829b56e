"""Which samples of the cached data a dataset has, which may be a Subset of them, or a Subset of one."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.alignment.map_style import is_subset
from decant.cache.alignment.same_views import ReadsViews
from decant.cache.errors import MismatchError
from decant.cache.source import LogitSource


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


def _of_views(data: Any) -> str:
    return (
        " of the views of all, Subset(decant.Views(dataset, …), indices)"
        if isinstance(data, ReadsViews)
        else ""
    )


def _root(dataset: Any) -> Any:
    return _root(dataset.dataset) if is_subset(dataset) else dataset
