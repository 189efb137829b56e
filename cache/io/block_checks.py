"""Checks of blocks against their entries: of some or all of a file, and of each when it is first needed."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from decant.cache.io.block_layout import BlockLayout, ReadBytes, expected_entry

_RUNS = 8
"""That are read side by side: as many as a block has ranges, and some more."""
_THREADS, _PIECE = 2, 4 << 20
"""Threads that check blocks, and bytes that are worth a piece of work; less is checked by the caller alone."""


def damaged_blocks(
    layout: BlockLayout, read: ReadBytes, entries: NDArray[np.uint64], *, ahead: bool = False
) -> list[int]:
    """Every written block whose bytes do not agree with its entry. entries: (num_blocks,). ahead: reads in spans, which
    takes less time where each `read` is a call of the system. Two threads share the blocks of a large file.

    >>> from decant.cache.io.block_layout import WRITTEN
    >>> from decant.cache.io.checksum import crc32
    >>> class OneByte:
    ...     size, num_blocks, entries_offset = 9, 1, 1
    ...     def ranges(self, block):
    ...         return ((0, 1),)
    >>> damaged_blocks(OneByte(), lambda first, end: b"a", np.array([WRITTEN + crc32(b"b")], "u8"))
    [0]
    """
    blocks = np.flatnonzero(entries)
    if not len(blocks):
        return []

    def damaged(some: NDArray[np.intp]) -> list[int]:
        found: list[int] = []
        for run in np.split(some, np.flatnonzero(np.diff(some) != 1) + 1) if ahead else [some]:
            reading = ReadAhead(read, [end for _, end in layout.ranges(int(run[-1]))]) if ahead else read
            found += [
                block
                for block, entry in zip(run.tolist(), entries[run].tolist(), strict=True)
                if expected_entry(layout, reading, block) != entry
            ]
        return found

    share = layout.size * len(blocks) // (_PIECE * max(layout.num_blocks, 1))
    if share < _THREADS:
        return damaged(blocks)
    with ThreadPoolExecutor(_THREADS) as threads:  # reading and summing up let other threads run
        pieces = np.array_split(blocks, min(share, 8 * _THREADS, len(blocks)))
        return list(itertools.chain.from_iterable(threads.map(damaged, pieces)))


class ReadAhead:
    """Reads some runs of a file side by side, each from its begin to its end, in spans: as the ranges of one block
    after another lie, in one table and the next. Nothing is read beyond the ends of the runs. It is a `ReadBytes`.

    >>> content, asked = b"abcd" * 100, []
    >>> read = ReadAhead(lambda first, end: asked.append((first, end)) or content[first:end], [100, 250], span=100)
    >>> [bytes(read(first, first + 2)) for first in (0, 200, 2, 202)]
    [b'ab', b'ab', b'cd', b'cd']
    >>> asked
    [(0, 100), (200, 250)]
    """

    def __init__(self, read: ReadBytes, ends: list[int], span: int = 1 << 20) -> None:
        """ends: where each run ends."""
        self._read, self._ends, self._span = read, ends, span
        self._held: list[tuple[int, int, memoryview]] = []

    def __call__(self, first: int, end: int) -> memoryview:
        """Bytes `first` to `end` − 1."""
        for begin, stop, content in self._held:
            if begin <= first and end <= stop:
                return content[first - begin : end - begin]
        stop = min((stop for stop in self._ends if stop >= end), default=end)
        content = memoryview(self._read(first, min(stop, max(end, first + self._span))))
        self._held = [(first, first + len(content), content), *self._held[: _RUNS - 1]]
        return content[: end - first]


class BlockChecks:
    """Which blocks of a file that is only read have been checked: each is when it is first needed, by the process that
    made this or one that was forked from it; all of them know.

    >>> from decant.cache.io.block_layout import WRITTEN
    >>> from decant.cache.io.checksum import crc32
    >>> class OneByte:
    ...     size, num_blocks, entries_offset = 9, 1, 1
    ...     def ranges(self, block):
    ...         return ((0, 1),)
    >>> content = b"a" + (WRITTEN + crc32(b"a")).to_bytes(8, "little")
    >>> checks = BlockChecks(OneByte(), lambda first, end: content[first:end])
    >>> checks.first_damaged(np.array([0, 0])), checks.all_sound
    (None, True)
    """

    def __init__(
        self,
        layout: BlockLayout,
        read: ReadBytes,
        *,
        trusted: bool = False,
        repair: Callable[[list[int]], None] | None = None,
    ) -> None:
        """`trusted` blocks are taken as they are, until `check_all` is called. repair: writes blocks anew that do not
        agree with their entries, as those that are not fetched yet; they are then checked again.
        """
        self._layout, self._read, self._repair = layout, read, repair
        first = layout.entries_offset
        entries = read(first, first + 8 * layout.num_blocks)
        self.entries: NDArray[np.uint64] = np.frombuffer(bytes(entries), "<u8")
        """(num_blocks,): 0 for a block that was never written. A copy: whoever changes the file cannot change it."""
        self._trusted = trusted
        self._pending = np.frombuffer(
            mmap.mmap(-1, layout.num_blocks), np.bool_
        )  # which forked processes share
        self._pending[:] = not trusted
        self.all_sound = trusted
        """Whether there is nothing left to check."""

    def first_damaged(self, blocks: NDArray[np.integer]) -> int | None:
        """Checks those of `blocks`, in any order and number, that were not checked before.

        Returns the first that does not agree with its entry; None where all do.
        """
        pending = np.unique(blocks[self._pending[blocks]]).astype(np.intp)
        damaged = [block for block in pending.tolist() if not self._agrees(block)]
        if damaged and self._repair is not None:
            self._repair(damaged)
            damaged = [block for block in damaged if not self._agrees(block)]
        self._pending[pending] = False
        self._pending[damaged] = True
        self.all_sound = not self._pending.any()
        return damaged[0] if damaged else None

    def trust(self, blocks: NDArray[np.bool_]) -> None:
        """Takes some of all blocks (num_blocks,) as they are: those that hold nothing."""
        self._pending &= ~blocks
        self.all_sound = not self._pending.any()

    def _agrees(self, block: int) -> bool:
        return expected_entry(self._layout, self._read, block) == int(self.entries[block])

    def check_all(self) -> list[int]:
        """Checks every block, whatever was checked before; those that do not agree with their entries."""
        return self.check(range(self._layout.num_blocks))

    def check(self, blocks: range) -> list[int]:
        """Checks a run of blocks, whatever was checked before; those that do not agree with their entries."""
        run = slice(blocks.start, blocks.stop)
        chosen = np.zeros_like(self.entries)
        chosen[run] = self.entries[run]
        damaged = damaged_blocks(self._layout, self._read, chosen)
        if damaged and self._repair is not None:
            self._repair(damaged)
            damaged = [block for block in damaged if not self._agrees(block)]
        self._pending[run] = False
        self._pending[damaged] = True  # so that whoever needs one finds it damaged
        self.all_sound = not self._pending.any()
        return damaged

    def changed(self, *, trusted: bool = False) -> list[int]:
        """Checks every block again that was checked before; those that no longer agree with their entries. Blocks that
        were taken as they are count where `trusted` says so.
        """
        before = np.flatnonzero(~self._pending) if trusted or not self._trusted else np.empty(0, np.intp)
        found = np.zeros_like(self.entries)
        found[before] = self.entries[before]
        return damaged_blocks(self._layout, self._read, found)
