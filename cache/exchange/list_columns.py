"""Columns of lists in a file of Parquet, and of lists of lists: read as arrays, and refused by the sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import FormatError


class ListBatch:
    """Some samples of a file, as a batch of pyarrow has them, and how messages name them. Each raises FormatError."""

    def __init__(self, path: Path, first: int, batch: Any) -> None:
        self.path, self._first, self._batch = path, first, batch
        self.owners: NDArray[np.int64] = np.empty(0, np.int64)

    def name(self, row: Any) -> str:
        """Of a row of these samples."""
        sample = int(self.owners[row])
        place = int(row) - int(np.searchsorted(self.owners, sample))
        return f"{self.path}: sample {self._first + sample:,}, position {place:,}"

    def lists(self, column: str, kinds: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """(B,) lengths and all values of a column of lists."""
        lengths, values = self._flat(self._batch.column(column), column)
        return lengths, self._numbers(values, column, kinds)

    def tables(self, column: str, kinds: str) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """(B,) lengths, and (Q, n) all rows of a column of lists of lists."""
        lengths, rows = self._flat(self._batch.column(column), column)
        widths, values = self._flat(rows, column)
        if len(widths) and (widths != widths[0]).any():
            row = int(np.argmax(widths != widths[0]))
            self.owners = np.repeat(np.arange(len(lengths)), lengths)
            raise FormatError(
                f"{self.name(row)}: {column}: {widths[row]} in a row where others have {widths[0]}"
            )
        numbers = self._numbers(values, column, kinds)
        return lengths, numbers.reshape(len(widths), -1) if len(widths) else numbers.reshape(0, 0)

    def _flat(self, array: Any, column: str) -> tuple[NDArray[np.int64], Any]:
        import pyarrow
        from pyarrow import compute

        kind = pyarrow.types
        if not any(test(array.type) for test in (kind.is_list, kind.is_large_list, kind.is_fixed_size_list)):
            raise FormatError(f"{self.path}: {column}: expected lists, found {array.type}")
        if array.null_count:
            raise FormatError(
                f"{self.path}: {column}: one of samples {self._first:,} to {self._first + self._batch.num_rows - 1:,} "
                "has nothing"
            )
        lengths = compute.list_value_length(array).to_numpy(zero_copy_only=False)
        return lengths.astype(np.int64), array.flatten()

    def _numbers(self, array: Any, column: str, kinds: str) -> NDArray[Any]:
        import pyarrow

        kind = pyarrow.types
        fits = kind.is_floating(array.type) if kinds == "f" else kind.is_integer(array.type)
        if not fits or array.null_count:
            wanted = "floats" if kinds == "f" else "integers"
            found = "one that is missing" if fits else array.type
            raise FormatError(f"{self.path}: {column}: expected {wanted}, found {found}")
        numbers: NDArray[Any] = array.to_numpy(zero_copy_only=False)
        return numbers

    def require_equal(self, column: str, lengths: NDArray[np.int64], others: NDArray[np.int64]) -> None:
        """Raises FormatError where a column has other lengths than the others."""
        bad = np.flatnonzero(lengths != others)
        if len(bad):
            raise FormatError(
                f"{self.path}: sample {self._first + bad[0]:,}: {column}: {lengths[bad[0]]:,}, and elsewhere "
                f"{others[bad[0]]:,}"
            )

    def require_lengths(self, lengths: NDArray[np.int64], tokens: NDArray[np.int64]) -> None:
        """Raises FormatError unless a sample has a row for each token, or for each but the last."""
        bad = np.flatnonzero((lengths != tokens) & (lengths != tokens - 1))
        if len(bad):
            raise FormatError(
                f"{self.path}: sample {self._first + bad[0]:,}: {lengths[bad[0]]:,} rows of {tokens[bad[0]]:,} tokens, "
                "and there should be one for each, or for each but the last"
            )
