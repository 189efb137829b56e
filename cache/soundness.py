"""Whether the blocks of an open cache are as they were written, and its file still is what was opened."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Encoding
from decant.cache.errors import CorruptError, FormatError
from decant.cache.format.blocks import Blocks
from decant.cache.io import bus_errors
from decant.cache.io.block_checks import BlockChecks
from decant.cache.io.block_layout import WRITTEN
from decant.cache.io.checksum import crc32
from decant.cache.io.unchanged import Unchanged
from decant.cache.placement import Content, read_in_order
from decant.cache.remote.lazily import LazyCopy
from decant.cache.row_numbers import from_start

Verify = Literal["open", "lazy", "off"]
"""When block checksums are checked: all on opening, each when it is first read, or never."""


class Soundness:
    """Checks the blocks of an open cache, each at most once, and notices that its file changes."""

    def __init__(
        self,
        blocks: Blocks,
        content: Content,
        verify: Verify,
        lazy: LazyCopy | None,
        shared: tuple[Encoding, Mapping[str, NDArray[Any]]],
    ) -> None:
        """lazy: where blocks are fetched from that are not there yet. shared: the encoding, and the tables that it has
        once for all rows, which no block has.
        """
        self.blocks, self.verify, self._lazy = blocks, verify, lazy
        self._mapped = content.mapped
        self.checks = BlockChecks(
            blocks,
            content.read,
            trusted=verify == "off",
            repair=None if lazy is None else lazy.fill,
            ahead=content.stays_in_memory,
        )
        self._unchanged = Unchanged(
            content.mapped,
            self.checks,
            partial(_block_name, blocks),
            times_count=not content.is_copied and lazy is None,
        )
        self._encoding, self._shared = shared
        self.shared_sound = verify == "off" or not self._shared
        """Whether the tables that all rows share are as they were written."""

    @property
    def path(self) -> Path:
        """The file."""
        return self._mapped.path

    @property
    def is_lazy(self) -> bool:
        """Whether blocks are still fetched from elsewhere as they are read."""
        return self._lazy is not None and not self.checks.all_sound

    @property
    def entries_crc32(self) -> int:
        """The CRC-32 of the table of checksums: that of another cache is another."""
        return crc32(self.checks.entries.data)

    def name(self, number: int) -> str:
        """A block in words."""
        return _block_name(self.blocks, number)

    def require_opened(self) -> None:
        """What is checked when the file is opened: of blocks without samples always, and all where `verify` says so.
        Raises CorruptError.
        """
        if not self.blocks.one_each:
            self._require_empty_blocks()
        if self.verify == "open":
            damaged = self.find_damaged(range(self.blocks.num_blocks))
            if damaged:
                raise CorruptError(f"{self.path}: {self.name(damaged[0])} is not as it was written")
            self.require_shared()

    def _require_empty_blocks(self) -> None:
        """Raises CorruptError where the entry of a block without samples was changed: nobody would read that block."""
        nothing = np.tile(self.blocks.without_samples(), self.blocks.num_views)
        changed = np.flatnonzero(nothing & (self.checks.entries != WRITTEN))
        if len(changed) and self.verify != "off":
            raise CorruptError(f"{self.path}: {self.name(int(changed[0]))} is not as it was written")
        self.checks.trust(nothing)

    def require_shared(self) -> None:
        """Raises CorruptError where a table that all rows share is not as it was written."""
        if self.shared_sound:
            return
        bus_errors.guard()
        try:
            self.check_shared()
        except FormatError as error:
            self._unchanged.require_readable()
            raise CorruptError(f"{self.path}: {error}; fetch or build the file again") from None
        self.shared_sound = True

    def check_shared(self) -> None:
        """Checks the tables that all rows share, whatever was checked before. Raises FormatError."""
        if self._shared:
            self._encoding.check_once(self._shared)

    def require_rows(self, rows: NDArray[np.intp], view: int | None) -> None:
        """Checks the blocks of these rows that were not checked before; with no view, rows count through all views.
        Raises CorruptError.
        """
        samples = self.blocks.num_samples
        if view is None:
            views, rows = np.divmod(rows, samples)
        else:
            rows = from_start(rows, samples)
            views = np.full_like(rows, view)
        self.require(views * self.blocks.per_view + (rows >> self.blocks.shift))

    def require(self, blocks: NDArray[np.integer]) -> None:
        """Checks those of these blocks that were not checked before. Raises CorruptError."""
        number = self.checks.first_damaged(blocks)
        if number is not None:
            self._unchanged.require_readable()
            raise CorruptError(
                f"{self.path}: {self.name(number)} is not as it was written; "
                "`decant cache verify` lists all damage; fetch or build the file again"
            )

    def require_readable(self) -> None:
        """Raises CorruptError where a part of the file could not be read; to be called after reading."""
        self._unchanged.require_readable()

    def find_damaged(self, chosen: range) -> list[int]:
        """Checks these blocks, whatever was checked before; those that are not as they were written."""
        with read_in_order(self._mapped):
            return self.checks.check(chosen)

    def require_unchanged(self, *, checksums: bool) -> None:
        """See `LogitCache.check_unchanged`."""
        bus_errors.guard()
        named = None if self._lazy is None else self._lazy.settle()
        if named is not None:
            self._mapped.renamed(named)
        self._unchanged.require(checksums=checksums)

    def fetch_table(self, name: str) -> None:
        """Has the whole of a table there, which is read before its blocks are checked."""
        if self._lazy is not None and not self.checks.all_sound:
            self._lazy.fill_table(name)


def _block_name(blocks: Blocks, number: int) -> str:
    """A block in words. No method: what holds one would keep the cache, and its file, open."""
    return blocks.name(*divmod(number, blocks.per_view))
