"""The checksum of a block: what makes a written block tell from an unwritten, torn or altered one.

Block b of view v is rows bR to (b+1)R − 1. Its CRC-32 runs over those rows of `logits[v]`, then of
`input_crc32[v]`, then of `labels`, so that no byte of any table goes unchecked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np

from decant.cache.format.hdf5 import WRITTEN, Layout, rows_per_block

ReadRows = Callable[[str, int, int, int], bytes | memoryview]
"""(table, view, first row, end row) → the bytes of those rows; for `labels` whatever the view."""

CHECKED_TABLES = ("logits", "input_crc32", "labels")


class Blocks:
    """How the rows of a cache fall into blocks."""

    def __init__(self, layout: Layout) -> None:
        self.rows = rows_per_block(layout.manifest)
        self.shift = self.rows.bit_length() - 1
        self.num_views, self.per_view = layout.tables["blocks"].shape
        self.num_samples = layout.manifest.num_samples

    def bounds(self, block: int) -> tuple[int, int]:
        """First row and end row of a block."""
        return block << self.shift, min(self.num_samples, (block + 1) << self.shift)

    def entry(self, read: ReadRows, view: int, block: int) -> int:
        """What `blocks[view, block]` must be for the bytes that `read` finds."""
        crc = 0
        for table in CHECKED_TABLES:
            crc = zlib.crc32(read(table, view, *self.bounds(block)), crc)
        return WRITTEN + crc

    def name(self, view: int, block: int) -> str:
        """For messages: which rows a block holds."""
        first, end = self.bounds(block)
        return f"view {view}, block {block} (rows {first:,} to {end - 1:,})"

    def damaged(self, read: ReadRows, table: np.ndarray) -> list[tuple[int, int]]:
        """Every written block (view, block) whose bytes no longer give its entry."""
        written = zip(*(found.tolist() for found in np.nonzero(table)), strict=True)
        return [place for place in written if self.entry(read, *place) != int(table[place])]
