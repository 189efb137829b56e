"""Blocks of samples and their checksums, and where the rows of a sample lie.

Block b of view v is samples bR to (b+1)R − 1; where samples have several positions each, it is the samples whose first
position is one of bR to (b+1)R − 1. Its CRC-32 runs over the rows of those samples in every table of view v,
then in the tables that views share, so that no byte of any table goes unchecked: it is what makes a written block tell
from an unwritten, torn or altered one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Column
from decant.cache.format.batch import Batch
from decant.cache.format.tables import Layout, columns, rows_per_block
from decant.cache.io.block_checks import extend_checksums
from decant.cache.io.block_layout import WRITTEN, ReadBytes, expected_entry
from decant.cache.io.blockfile import BlockFile
from decant.cache.lengths import Even, Lengths


class Blocks:
    """How the samples of a cache fall into blocks, and where their rows lie in the file: a `BlockLayout`, whose block
    number v·⌈P/R⌉ + b is block b of view v, P being the number of positions, or of samples that have one each.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.rows = rows_per_block(layout.manifest)
        self.shift = self.rows.bit_length() - 1
        self.num_views, self.per_view = layout.tables["blocks"].shape
        self.num_samples = layout.manifest.num_samples
        self.axes = layout.axes
        self.lengths: Lengths = self.axes.get("position", self.axes["sample"])
        self.one_each = isinstance(self.lengths, Even) and self.lengths.length == 1
        """Whether rows are samples."""
        self.columns = columns(layout.manifest)
        self._places = {
            name: _place(layout.tables[name].offset, column, self.axes[column.axis])
            for name, column in self.columns.items()
        }
        shared = [name for name, column in self.columns.items() if not column.per_view]
        self.checked = [name for name in self.columns if name not in shared] + shared
        self.given = [name for name in self.checked if self.columns[name].given]
        self.shared = [name for name in self.given if name in shared]
        self._row_bytes = sum(self.columns[name].row_bytes for name in self.checked)
        self._checked_places = [self._places[name] for name in self.checked]

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
        for begin, lengths, row_bytes, view_bytes in self._checked_places:
            at, start = begin + view * view_bytes, lengths.start
            yield at + start(first) * row_bytes, at + start(end) * row_bytes

    def ranges_of(self, numbers: NDArray[np.integer]) -> NDArray[np.int64]:
        """(B, T, 2): the same of several blocks."""
        views, blocks = np.divmod(numbers.astype(np.int64), self.per_view)
        bounds = self.bounds_of(blocks)
        found = np.empty((len(blocks), len(self._checked_places), 2), np.int64)
        for place, (begin, lengths, row_bytes, view_bytes) in enumerate(self._checked_places):
            at = begin + views * view_bytes
            for side, samples in enumerate(bounds):
                found[:, place, side] = at + lengths.starts(samples) * row_bytes
        return found

    def bounds_of(self, blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """`bounds` of several blocks of one view: (B,) first samples and (B,) ends."""
        if self.one_each:
            first = blocks << self.shift
            return first, np.minimum(first + self.rows, self.num_samples)
        before = self.lengths.samples_before_each
        ends = np.where(blocks == self.per_view - 1, self.num_samples, before((blocks + 1) << self.shift))
        return before(blocks << self.shift), ends

    def bounds(self, block: int) -> tuple[int, int]:
        """First sample and end sample of a block; the same of one that has no sample, as one has a long sample of the
        block before.
        """
        if self.one_each:
            first = block << self.shift
            return first, min(first + self.rows, self.num_samples)
        before, last = self.lengths.samples_before, block == self.per_view - 1
        return before(block << self.shift), self.num_samples if last else before((block + 1) << self.shift)

    def of(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """(B,): the block that each of these samples is in."""
        # Samples without positions may come after the last position.
        first = samples if self.one_each else np.minimum(self.lengths.starts(samples), self.lengths.total - 1)
        return first.astype(np.int64) >> self.shift

    def of_every_sample(self, of_blocks: NDArray[Any]) -> NDArray[Any]:
        """(…, N) from a value for each block (…, ⌈P/R⌉)."""
        if self.one_each:
            return np.repeat(of_blocks, self.rows, axis=-1)[..., : self.num_samples]
        return of_blocks[..., self.of(np.arange(self.num_samples))]

    def without_samples(self) -> NDArray[np.bool_]:
        """(⌈P/R⌉,): which blocks have no sample."""
        found = np.full(self.per_view, not self.one_each)
        if not self.one_each:
            found[self.of(np.arange(self.num_samples))] = False
        return found

    def whole(self, filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """(⌈P/R⌉,): which blocks have no sample but `filled` (N,) ones."""
        found = np.ones(self.per_view, np.bool_)
        found[self.of(np.flatnonzero(~filled))] = False
        return found

    def offset(self, table: str, view: int, sample: int) -> int:
        """Where the rows of a sample begin; where views share the table, `view` is ignored."""
        first, lengths, row_bytes, view_bytes = self._places[table]
        return first + view * view_bytes + lengths.start(sample) * row_bytes

    def name(self, view: int, block: int) -> str:
        """For messages: which rows a block holds."""
        first, end = self.bounds(block)
        if first == end:
            return f"view {view}, block {block} (no samples)"
        if "position" in self.axes:
            positions = f"{self.lengths.start(first):,} to {self.lengths.start(end) - 1:,}"
            return (
                f"view {view}, block {block} (samples {first:,} to {end - 1:,}, positions {positions} of all)"
            )
        return f"view {view}, block {block} (rows {first:,} to {end - 1:,})"

    def nbytes(self, block: int) -> int:
        """Bytes of a block of one view, with what it shares with other views."""
        if self.one_each:
            first, end = self.bounds(block)
            return (end - first) * self._row_bytes
        return sum(end - first for first, end in self.ranges(block))

    def count_samples(self, entries: NDArray[np.uint64]) -> int:
        """Samples in written blocks, all views together."""
        if self.one_each:
            bounds = np.minimum(np.arange(self.per_view + 1) << self.shift, self.num_samples)
            return int(np.where(entries, np.diff(bounds), 0).sum())
        return int(np.count_nonzero(self.of_every_sample(entries)))


def _place(first: int, column: Column, lengths: Lengths) -> tuple[int, Lengths, int, int]:
    """First byte of a table, whose its rows are, bytes of a row, and of a view: 0 where views share the table."""
    row_bytes = column.row_bytes
    return first, lengths, row_bytes, lengths.total * row_bytes if column.per_view else 0


def _bytes_in(content: memoryview) -> ReadBytes:
    return lambda first, end: content[first:end]


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
        if rows.size:  # samples may have none
            self.file.write(self.blocks.offset(table, view, first), np.ascontiguousarray(rows).data)

    def read_entries(self) -> NDArray[np.uint64]:
        """The table `blocks`, (V, ⌈P/R⌉)."""
        return self.file.read_entries().reshape(self.blocks.num_views, self.blocks.per_view)

    def read_some_entries(self, view: int, first: int, end: int) -> NDArray[np.uint64]:
        """The entries of blocks `first` to `end` − 1 of a view."""
        offset = self.blocks.entries_offset + 8 * view * self.blocks.per_view
        return np.frombuffer(self.file.read(offset + 8 * first, offset + 8 * end), "<u8")

    def mark_empty_blocks(self) -> None:
        """Marks blocks without samples as written: nothing is missing in them."""
        empty = self.blocks.without_samples()
        if empty.any():
            entries = np.where(empty, WRITTEN, 0).astype("<u8")
            for view in range(self.blocks.num_views):
                at = self.blocks.entries_offset + view * entries.nbytes
                self.file.write(at, entries.data)

    def write_entry(self, view: int, block: int, entry: int) -> None:
        """Marks a block as written, or with 0 as unwritten."""
        self.file.write_entry(view * self.blocks.per_view + block, entry)

    def write_entries(self, view: int, first: int, entries: NDArray[np.uint64]) -> None:
        """Marks blocks from `first` on as written."""
        at = self.blocks.entries_offset + 8 * (view * self.blocks.per_view + first)
        self.file.write(at, entries.astype("<u8").data)

    def expected_entry(self, view: int, block: int) -> int:
        """The entry that a block must have for the bytes that are in the file."""
        return expected_entry(self.blocks, self.file.read, view * self.blocks.per_view + block)

    def entries_of(self, batch: Batch, first: int, end: int) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
        """The blocks of which all samples are in samples[first:end] of a batch, which go up by one, and their entries;
        tables that the batch does not have are read from the file. Blocks without samples are left out.
        """
        row, last = int(batch.samples[first]), int(batch.samples[end - 1])
        begin, stop = self.blocks.of(np.array([row, last])).tolist()
        blocks = np.arange(begin, stop + 1)
        firsts, ends = self.blocks.bounds_of(blocks)
        whole = (row <= firsts) & (firsts < ends) & (ends <= last + 1)
        blocks, firsts, ends = blocks[whole], firsts[whole] - row + first, ends[whole] - row + first
        crcs = [0] * len(blocks)
        for number, table in enumerate(self.blocks.checked):
            if table in batch.columns:
                content, starts = batch.bytes_of(table)
                crcs = extend_checksums(crcs, _bytes_in(content), starts[firsts], starts[ends])
            elif len(blocks):
                ranges = self.blocks.ranges_of(batch.view * self.blocks.per_view + blocks)[:, number]
                crcs = extend_checksums(crcs, self.file.read, ranges[:, 0], ranges[:, 1])
        return blocks, np.array(crcs, np.uint64) + np.uint64(WRITTEN)

    def forget_damaged(
        self, entries: NDArray[np.uint64], trusted: NDArray[np.bool_] | None = None
    ) -> list[tuple[int, int]]:
        """Marks every written block that does not agree with `entries` (V, ⌈P/R⌉) as unwritten, in the file and there;
        returns them as (view, block). The `trusted` ones (V·⌈P/R⌉,) are not read.
        """
        empty = self.blocks.without_samples()
        if empty.any():  # there are as many of them as of others, and nothing in them to be read
            for view, block in np.argwhere(empty & (entries != WRITTEN)).tolist():
                self.write_entry(view, block, WRITTEN)
                entries[view, block] = WRITTEN
            none = np.tile(empty, self.blocks.num_views)
            trusted = none if trusted is None else none | trusted
        damaged = self.file.forget_damaged(entries.reshape(-1), trusted)
        return [divmod(number, self.blocks.per_view) for number in damaged]
