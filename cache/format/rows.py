"""The rows of an open file, by their place: what a writer reads back and writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.format.blocks import Blocks
from decant.cache.format.hdf5 import Layout
from decant.cache.io.files import read_all, write_all


class StoredRows:
    """The tables of the file that `fd` has open; it neither opens nor closes it."""

    def __init__(self, fd: int, layout: Layout, path: Path) -> None:
        self.fd, self.layout, self.path = fd, layout, path
        self.blocks = Blocks(layout)

    def read(self, table: str, view: int, first: int, end: int) -> bytes:
        """The bytes of rows `first` to `end` − 1; `labels` has no views and ignores `view`."""
        start = self._offset(table, view, first)
        return read_all(self.fd, self._offset(table, view, end) - start, start, self.path)

    def read_array(self, table: str, view: int, first: int, end: int) -> NDArray[Any]:
        """The same rows as an array."""
        place = self.layout.tables[table]
        inner = place.shape[1 if table == "labels" else 2 :]
        return np.frombuffer(self.read(table, view, first, end), place.dtype).reshape(-1, *inner)

    def write(self, table: str, view: int, first: int, rows: NDArray[Any]) -> None:
        """Writes rows from `first` on, which must have the table's dtype."""
        write_all(self.fd, np.ascontiguousarray(rows).data, self._offset(table, view, first), self.path)

    def read_entries(self) -> NDArray[np.uint64]:
        """The table `blocks`, (V, ⌈N/R⌉)."""
        table = self.layout.tables["blocks"]
        found = read_all(self.fd, table.nbytes, table.offset, self.path)
        return np.frombuffer(found, table.dtype).reshape(table.shape).copy()

    def write_entry(self, view: int, block: int, entry: int) -> None:
        """Marks a block as written, or with 0 as unwritten."""
        table = self.layout.tables["blocks"]
        place = view * self.blocks.per_view + block
        write_all(self.fd, np.array(entry, "<u8").tobytes(), table.offset + 8 * place, self.path)

    def entry(self, view: int, block: int) -> int:
        """What the block's entry must be for the bytes that are in the file."""
        return self.blocks.entry(self.read, view, block)

    def _offset(self, table: str, view: int, row: int) -> int:
        place = self.layout.tables[table]
        inner = place.shape[1:] if table == "labels" else place.shape[2:]
        first = row if table == "labels" else view * self.layout.manifest.num_samples + row
        return place.offset + first * int(np.prod(inner, dtype=np.int64)) * place.dtype.itemsize
