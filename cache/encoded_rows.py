"""Reads encoded rows from the tables of an open cache, by sample and view."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.io import bus_errors
from decant.cache.row_numbers import as_rows, from_start, one_by_one, outside, views_of
from decant.cache.soundness import Soundness

_INTP = np.dtype(np.intp)


class EncodedRows:
    """The rows of the tables of an encoding, a copy of those that are asked for, once their blocks are checked."""

    def __init__(self, tables: Mapping[str, NDArray[Any]], soundness: Soundness) -> None:
        """tables: (V, rows, …) by name."""
        self._blocks, self._soundness, self._checks = soundness.blocks, soundness, soundness.checks
        self._num_samples, self._num_views = self._blocks.num_samples, self._blocks.num_views
        self._views = [
            {name: table[view] for name, table in tables.items()} for view in range(self._num_views)
        ]
        self._all_views = {name: table.reshape(-1, *table.shape[2:]) for name, table in tables.items()}

    def of_samples(self, indices: ArrayLike | slice, view: ArrayLike) -> dict[str, NDArray[Any]]:
        """The rows (B, …) of samples that have one each, by table. Takes and raises what `LogitCache.logits` does."""
        if type(indices) is np.ndarray and indices.dtype is _INTP:
            rows = cast("NDArray[np.intp]", indices)  # the usual case, at the cost of `take`
        else:
            rows = as_rows(indices, self._num_samples)
        if not isinstance(view, int):
            views = views_of(view, rows, self._num_views)
            rows, one_view = from_start(rows, self._num_samples) + views * self._num_samples, None
            tables = self._all_views
        elif 0 <= view < self._num_views:
            one_view, tables = view, self._views[view]
        else:
            raise IndexError(f"view {view}: the cache has {self._num_views}")
        bus_errors.guard()
        if not self._checks.all_sound:
            self._soundness.require_rows(rows, one_view)
        found = {}
        try:
            for name, table in tables.items():  # a comprehension is a call of its own before Python 3.12
                found[name] = table.take(rows, 0)
        except IndexError:
            raise outside(rows, self._num_samples) from None
        self._soundness.require_readable()
        return found

    def of_positions(
        self, indices: ArrayLike | slice, view: ArrayLike
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
        """The rows (Q, …) of samples that have several each, one sample after another, by table; and the samples.
        Takes and raises what `LogitCache.logits` does.
        """
        return self.gather(self._all_views, indices, view)

    def gather(
        self, tables: Mapping[str, NDArray[Any]], indices: ArrayLike | slice, view: ArrayLike
    ) -> tuple[dict[str, NDArray[Any]], NDArray[np.intp]]:
        """The same of other tables, whose views lie one after another. Of tables that are not per view `view` must be
        0.
        """
        samples = from_start(one_by_one(as_rows(indices, self._num_samples)), self._num_samples)
        views = views_of(view, samples, self._num_views)
        bus_errors.guard()
        if not self._checks.all_sound:
            self._soundness.require(views * self._blocks.per_view + self._blocks.of(samples))
        found = {}
        for name, table in tables.items():
            lengths = self._blocks.axes[self._blocks.columns[name].axis]
            starts = lengths.starts(samples) + views * lengths.total
            ends = starts + lengths.of(samples)
            # A sample's rows lie one after another: to copy them whole is faster than to look for each.
            pieces = [table[first:end] for first, end in zip(starts.tolist(), ends.tolist(), strict=True)]
            found[name] = np.concatenate(pieces) if pieces else table[:0].copy()
        self._soundness.require_readable()
        return found, samples
