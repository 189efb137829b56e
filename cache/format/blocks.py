"""Blocks of samples and their checksums, and where the rows of a sample lie.

Block b of view v is samples bR to (b+1)R − 1. Its CRC-32 runs over the rows of those samples in every table of view v,
then in the tables that views share, so that no byte of any table goes unchecked: it is what makes a written block tell
from an unwritten, torn or altered one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.format.tables import Layout, columns, rows_per_block
from decant.cache.io.blockfile import WRITTEN, BlockFile
from decant.cache.io.checksum import crc32


class Blocks:
    """How the samples of a cache fall into blocks, and where their rows lie in the file: a `BlockLayout`, whose block
    number v·⌈N/R⌉ + b is block b of view v.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.rows = rows_per_block(layout.manifest)
        self.shift = self.rows.bit_length() - 1
        self.num_views, self.per_view = layout.tables["blocks"].shape
        self.num_samples = layout.manifest.num_samples
        self.columns = columns(layout.manifest)
        self.shared = [name for name, column in self.columns.items() if not column.per_view]
        self.checked = [name for name in self.columns if name not in self.shared] + self.shared

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.layout.size

    @property
    def num_blocks(self) -> int:
        """Blocks of all views together."""
        return self.num_views * self.per_view

    @property
    def entries_offset(self) -> int:
        """Where the table `blocks` begins."""
        return self.layout.tables["blocks"].offset

    def ranges(self, number: int) -> Iterator[tuple[int, int]]:
        """The bytes of a block, a range for each table: first byte and end."""
        view, block = divmod(number, self.per_view)
        first, end = self.bounds(block)
        for table in self.checked:
            yield self.offset(table, view, first), self.offset(table, view, end)

    def bounds(self, block: int) -> tuple[int, int]:
        """First sample and end sample of a block."""
        return block << self.shift, min(self.num_samples, (block + 1) << self.shift)

    def offset(self, table: str, view: int, sample: int) -> int:
        """Where the row of a sample begins; where views share the table, `view` is ignored."""
        column = self.columns[table]
        row = view * self.num_samples + sample if column.per_view else sample
        return self.layout.tables[table].offset + row * column.row_bytes

    def name(self, view: int, block: int) -> str:
        """For messages: which rows a block holds."""
        first, end = self.bounds(block)
        return f"view {view}, block {block} (rows {first:,} to {end - 1:,})"

    def nbytes(self, block: int) -> int:
        """Bytes of a block of one view, with what it shares with other views."""
        first, end = self.bounds(block)
        return (end - first) * sum(column.row_bytes for column in self.columns.values())

    def count_samples(self, entries: NDArray[np.uint64]) -> int:
        """Samples in written blocks, all views together."""
        bounds = np.minimum(np.arange(self.per_view + 1) << self.shift, self.num_samples)
        return int(np.where(entries, np.diff(bounds), 0).sum())


def block_entry(blocks: Blocks, rows: Mapping[str, NDArray[Any]]) -> int:
    """The entry of a block of these rows (R, …) of every table."""
    crc = 0
    for table in blocks.checked:
        crc = crc32(np.ascontiguousarray(rows[table]).data, crc)
    return WRITTEN + crc


class StoredRows:
    """The rows in the file that `fd` has open, read and written; it neither opens nor closes the file."""

    def __init__(self, fd: int, layout: Layout, path: Path) -> None:
        self.blocks = Blocks(layout)
        self.file = BlockFile(fd, self.blocks, path)

    def read(self, table: str, view: int, first: int, end: int) -> bytes:
        """The bytes of the rows of samples `first` to `end` − 1."""
        return self.file.read(self.blocks.offset(table, view, first), self.blocks.offset(table, view, end))

    def read_array(self, table: str, view: int, first: int, end: int) -> NDArray[Any]:
        """The same rows as an array."""
        column = self.blocks.columns[table]
        return np.frombuffer(self.read(table, view, first, end), column.dtype).reshape(-1, *column.shape)

    def write(self, table: str, view: int, first: int, rows: NDArray[Any]) -> None:
        """Writes rows from sample `first` on, which must have the table's dtype."""
        self.file.write(self.blocks.offset(table, view, first), np.ascontiguousarray(rows).data)

    def read_entries(self) -> NDArray[np.uint64]:
        """The table `blocks`, (V, ⌈N/R⌉)."""
        return self.file.read_entries().reshape(self.blocks.num_views, self.blocks.per_view)

    def read_some_entries(self, view: int, first: int, end: int) -> NDArray[np.uint64]:
        """The entries of blocks `first` to `end` − 1 of a view."""
        offset = self.blocks.entries_offset + 8 * view * self.blocks.per_view
        return np.frombuffer(self.file.read(offset + 8 * first, offset + 8 * end), "<u8")

    def write_entry(self, view: int, block: int, entry: int) -> None:
        """Marks a block as written, or with 0 as unwritten."""
        self.file.write_entry(view * self.blocks.per_view + block, entry)

    def finish_block(self, view: int, block: int) -> int:
        """Reads back a block whose rows are all written, and writes its entry; returns that."""
        return self.file.finish_block(view * self.blocks.per_view + block)

    def forget_damaged(
        self, entries: NDArray[np.uint64], trusted: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, int]]:
        """Marks every written block that does not agree with `entries` (V, ⌈N/R⌉) as unwritten, in the file and there;
        returns them as (view, block). The `trusted` ones (V·⌈N/R⌉,) are not read.
        """
        damaged = self.file.forget_damaged(entries.reshape(-1), trusted)
        return [divmod(number, self.blocks.per_view) for number in damaged]
