"""Blocks of samples and their checksums, and where the rows of a sample lie.

Block b of view v is samples bR to (b+1)R − 1. Its CRC-32 runs over the rows of those samples in every table of view v,
then in the tables that views share, so that no byte of any table goes unchecked: it is what makes a written block tell
from an unwritten, torn or altered one.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.format.tables import Layout, columns, rows_per_block
from decant.cache.io.files import read_all, write_all

WRITTEN = 1 << 32  # a block's entry is WRITTEN + the CRC-32 of its bytes; 0 while it is unwritten

ReadRows = Callable[[str, int, int, int], bytes | memoryview]
"""(table, view, first sample, end sample) → the bytes of their rows."""


class Blocks:
    """How the samples of a cache fall into blocks, and where their rows lie."""

    def __init__(self, layout: Layout) -> None:
        self.rows = rows_per_block(layout.manifest)
        self.shift = self.rows.bit_length() - 1
        self.num_views, self.per_view = layout.tables["blocks"].shape
        self.num_samples = layout.manifest.num_samples
        self.columns = columns(layout.manifest)
        self.shared = [name for name, column in self.columns.items() if not column.per_view]
        self.checked = [name for name in self.columns if name not in self.shared] + self.shared

    def bounds(self, block: int) -> tuple[int, int]:
        """First sample and end sample of a block."""
        return block << self.shift, min(self.num_samples, (block + 1) << self.shift)

    def place(self, table: str, view: int, sample: int) -> int:
        """The row of a sample, counted through all views of a table; where views share the table, `view` is ignored."""
        return view * self.num_samples + sample if self.columns[table].per_view else sample

    def entry(self, read: ReadRows, view: int, block: int) -> int:
        """What `blocks[view, block]` must be for the bytes that `read` finds."""
        crc = 0
        for table in self.checked:
            crc = zlib.crc32(read(table, view, *self.bounds(block)), crc)
        return WRITTEN + crc

    def name(self, view: int, block: int) -> str:
        """For messages: which rows a block holds."""
        first, end = self.bounds(block)
        return f"view {view}, block {block} (rows {first:,} to {end - 1:,})"

    def damaged(self, read: ReadRows, entries: NDArray[np.uint64]) -> list[tuple[int, int]]:
        """Every written block (view, block) whose bytes no longer give its entry."""
        written = zip(*(found.tolist() for found in np.nonzero(entries)), strict=True)
        return [place for place in written if self.entry(read, *place) != int(entries[place])]

    def count_samples(self, entries: NDArray[np.uint64]) -> int:
        """Samples in written blocks, all views together."""
        bounds = np.minimum(np.arange(self.per_view + 1) << self.shift, self.num_samples)
        return int(np.where(entries, np.diff(bounds), 0).sum())


class StoredRows:
    """The rows in the file that `fd` has open, read and written; it neither opens nor closes the file."""

    def __init__(self, fd: int, layout: Layout, path: Path) -> None:
        self.fd, self.layout, self.path = fd, layout, path
        self.blocks = Blocks(layout)

    def read(self, table: str, view: int, first: int, end: int) -> bytes:
        """The bytes of the rows of samples `first` to `end` − 1."""
        start = self._offset(table, view, first)
        return read_all(self.fd, self._offset(table, view, end) - start, start, self.path)

    def read_array(self, table: str, view: int, first: int, end: int) -> NDArray[Any]:
        """The same rows as an array."""
        column = self.blocks.columns[table]
        return np.frombuffer(self.read(table, view, first, end), column.dtype).reshape(-1, *column.shape)

    def write(self, table: str, view: int, first: int, rows: NDArray[Any]) -> None:
        """Writes rows from sample `first` on, which must have the table's dtype."""
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

    def _offset(self, table: str, view: int, sample: int) -> int:
        row = self.blocks.place(table, view, sample)
        return self.layout.tables[table].offset + row * self.blocks.columns[table].row_bytes
