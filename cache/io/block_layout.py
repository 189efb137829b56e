"""Where the blocks of a file lie, and how one that is damaged is recognised.

A block is one or several byte ranges of the file. A table in the file has an entry for each block: 0 while the block is
unwritten, else 2³² + the CRC-32 of its bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

from decant.cache.io.checksum import crc32

WRITTEN = 1 << 32  # an entry is WRITTEN + the CRC-32 of the block's bytes, and so never 0

ReadBytes = Callable[[int, int], bytes | memoryview]
"""(first byte, end) of a file → those bytes."""


class BlockLayout(Protocol):
    """Where the blocks of a file and their entries lie."""

    @property
    def size(self) -> int:
        """Bytes of the whole file."""

    @property
    def num_blocks(self) -> int:
        """Blocks in the file, numbered from 0."""

    @property
    def entries_offset(self) -> int:
        """The first byte of the table of entries, (num_blocks,) `<u8`."""

    def ranges(self, block: int) -> Iterable[tuple[int, int]]:
        """(first byte, end) of each range of a block, in the order in which its checksum runs over them."""


def expected_entry(layout: BlockLayout, read: ReadBytes, block: int) -> int:
    """The entry that a block must have for the bytes that `read` finds.

    >>> class TwoBytes:  # a block of two ranges of one byte each, then its entry
    ...     size, num_blocks, entries_offset = 10, 1, 2
    ...     def ranges(self, block):
    ...         return (0, 1), (1, 2)
    >>> expected_entry(TwoBytes(), lambda first, end: b"ab"[first:end], 0) == WRITTEN + crc32(b"ab")
    True
    """
    crc = 0
    for first, end in layout.ranges(block):
        crc = crc32(read(first, end), crc)
    return WRITTEN + crc
