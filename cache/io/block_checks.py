"""Checks of blocks against their entries: of some or all of a file, and of each when it is first needed."""

from __future__ import annotations

import itertools
import mmap
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from decant.cache.io.block_layout import WRITTEN, BlockLayout, ReadBytes
from decant.cache.io.checksum import crc32
from decant.cache.io.span_checks import sound_in_spans

_SPAN = 1 << 20
"""Bytes that are read at once, where blocks lie one after another."""
_THREADS, _PIECE = 2, 16 << 20
"""Threads that check blocks, and bytes that are worth one of them; less is checked by the caller alone."""
_ENOUGH, _MOST = 8, 16
"""So many such pieces are worth to be one, as each costs 0.4 ms beside its checksums; and pieces of a file."""
_AHEAD = 64 << 20
"""Bytes that are checked ahead of a reader at a time: some milliseconds, from memory."""
_FEW, _SHARE = 16, 32
"""Whoever has needed more than a few blocks, and one of 32, is taken to read most of them."""


@runtime_checkable
class FindsRangesAtOnce(Protocol):
    """A `BlockLayout` that finds the ranges of several blocks in less time than one by one."""

    def ranges_of(self, blocks: NDArray[np.integer]) -> NDArray[np.int64]:
        """(B, T, 2): first byte and end of the T ranges of each of these blocks, as `ranges` has them."""


def expected_entries(layout: BlockLayout, read: ReadBytes, blocks: NDArray[np.integer]) -> NDArray[np.uint64]:
    """(B,): the entry that each of these blocks must have for the bytes that `read` finds, as `expected_entry` has it.
    Reads the first range of all of them, then the second; those that lie one after another together.

    >>> from decant.cache.io.block_layout import expected_entry
    >>> class TwoBytes:  # two blocks of two ranges of one byte each, then their entries
    ...     size, num_blocks, entries_offset = 20, 2, 4
    ...     def ranges(self, block):
    ...         return (block, block + 1), (block + 2, block + 3)
    >>> content, asked = b"abcd", []
    >>> read = lambda first, end: asked.append((first, end)) or content[first:end]
    >>> found = expected_entries(TwoBytes(), read, np.array([0, 1])).tolist()
    >>> found == [expected_entry(TwoBytes(), lambda first, end: content[first:end], block) for block in (0, 1)]
    True
    >>> asked
    [(0, 2), (2, 4)]
    """
    return _entries_of(read, _ranges_of(layout, blocks)) if len(blocks) else np.empty(0, np.uint64)


def _ranges_of(layout: BlockLayout, blocks: NDArray[np.integer]) -> NDArray[np.int64]:
    """(B, T, 2): first byte and end of the ranges of these blocks, one at least."""
    if isinstance(layout, FindsRangesAtOnce):
        return layout.ranges_of(blocks)
    return np.array([[*layout.ranges(block)] for block in blocks.tolist()], np.int64)


def _entries_of(read: ReadBytes, ranges: NDArray[np.int64]) -> NDArray[np.uint64]:
    """(B,): the entry that a block must have of which ranges (B, T, 2) are."""
    crcs = [0] * len(ranges)
    for firsts, ends in ranges.transpose(1, 2, 0):
        crcs = extend_checksums(crcs, read, firsts, ends)
    return np.array(crcs, np.uint64) + np.uint64(WRITTEN)


def different_blocks(
    layout: BlockLayout, read: ReadBytes, blocks: NDArray[np.integer], entries: NDArray[np.uint64]
) -> list[int]:
    """Those of these blocks whose bytes do not agree with their entries (B,): the same ones as by `expected_entries`,
    in less time where blocks lie one after another.

    >>> class OneByte:
    ...     size, num_blocks, entries_offset = 27, 3, 3
    ...     def ranges(self, block):
    ...         return ((block, block + 1),)
    >>> blocks, entries = np.arange(3), np.array([WRITTEN + crc32(bytes([value])) for value in b"abc"], np.uint64)
    >>> different_blocks(OneByte(), lambda first, end: b"abd"[first:end], blocks, entries)
    [2]
    """
    if not len(blocks):
        return []
    ranges = _ranges_of(layout, blocks)
    left = np.flatnonzero(~sound_in_spans(read, ranges, entries))
    found: list[int] = blocks[left[_entries_of(read, ranges[left]) != entries[left]]].tolist()
    return found


def extend_checksums(
    crcs: list[int], read: ReadBytes, firsts: NDArray[np.int64], ends: NDArray[np.int64]
) -> list[int]:
    """(B,): the CRC-32 of what has each of `crcs`, and goes on with bytes firsts[i] to ends[i] − 1, both (B,). Ranges
    that lie one after another are read together.

    >>> read = lambda first, end: b"xb"[first:end]
    >>> found = extend_checksums([0, crc32(b"a")], read, np.array([0, 1]), np.array([1, 2]))
    >>> found == [crc32(b"x"), crc32(b"ab")]
    True
    """
    found, starts, stops = list(crcs), firsts.tolist(), ends.tolist()
    for begin, after in _spans(firsts, ends):
        at = starts[begin]
        content = memoryview(read(at, stops[after - 1]))
        for place in range(begin, after):
            found[place] = crc32(content[starts[place] - at : stops[place] - at], found[place])
    return found


def _spans(firsts: NDArray[np.int64], ends: NDArray[np.int64]) -> list[tuple[int, int]]:
    """Ranges (B,) as runs [begin, end) of those that lie one after another, of some 1 MiB each."""
    if not len(firsts):
        return []
    breaks = np.flatnonzero(firsts[1:] != ends[:-1]) + 1
    run = np.zeros(len(firsts), np.intp)
    run[breaks] = 1
    run = np.cumsum(run)
    piece = (firsts - firsts[np.r_[0, breaks]][run]) // _SPAN
    changes = np.flatnonzero((run[1:] != run[:-1]) | (piece[1:] != piece[:-1])) + 1
    return list(zip([0, *changes.tolist()], [*changes.tolist(), len(firsts)], strict=True))


def damaged_blocks(layout: BlockLayout, read: ReadBytes, entries: NDArray[np.uint64]) -> list[int]:
    """Every written block whose bytes do not agree with its entry. entries: (num_blocks,). Two threads share the blocks
    of a large file.

    >>> class OneByte:
    ...     size, num_blocks, entries_offset = 9, 1, 1
    ...     def ranges(self, block):
    ...         return ((0, 1),)
    >>> damaged_blocks(OneByte(), lambda first, end: b"a", np.array([WRITTEN + crc32(b"b")], "u8"))
    [0]
    """
    blocks = np.flatnonzero(entries)

    def damaged(some: NDArray[np.intp]) -> list[int]:
        return different_blocks(layout, read, some, entries[some])

    share = layout.size * len(blocks) // (_PIECE * max(layout.num_blocks, 1))
    if share < _THREADS:
        return damaged(blocks)
    with ThreadPoolExecutor(_THREADS) as threads:  # reading and summing up let other threads run
        count = min(max(_THREADS, share // _ENOUGH), _MOST)
        pieces = np.array_split(blocks, count)
        return list(itertools.chain.from_iterable(threads.map(damaged, pieces)))


class BlockChecks:
    """Which blocks of a file that is only read have been checked: each is when it is first needed, by the process that
    made this or one that was forked from it; all of them know.

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
        ahead: bool = False,
    ) -> None:
        """`trusted` blocks are taken as they are, until `check_all` is called. repair: writes blocks anew that do not
        agree with their entries, as those that are not fetched yet; they are then checked again. ahead: checks the
        blocks of a reader that needs many in the order of the file, before it needs them: that takes less time, where
        what was read stays in memory.
        """
        self._layout, self._read, self._repair = layout, read, repair
        first = layout.entries_offset
        entries = read(first, first + 8 * layout.num_blocks)
        self.entries: NDArray[np.uint64] = np.frombuffer(bytes(entries), "<u8")
        """(num_blocks,): 0 for a block that was never written. A copy: whoever changes the file cannot change it."""
        self._trusted = trusted
        self._at_once = max(1, _AHEAD * layout.num_blocks // layout.size) if ahead and repair is None else 0
        self._needed, self._next = 0, -1  # blocks so far; the first that is not looked at ahead
        # Forked processes share it.
        self._pending = np.frombuffer(mmap.mmap(-1, layout.num_blocks), np.bool_)
        self._pending[:] = not trusted
        self.all_sound = trusted
        """Whether there is nothing left to check."""

    def first_damaged(self, blocks: NDArray[np.integer]) -> int | None:
        """Checks those of `blocks`, in any order and number, that were not checked before.

        Returns the first that does not agree with its entry; None where all do.
        """
        pending, damaged = blocks[self._pending[blocks]], list[int]()
        if len(pending):
            needed = np.unique(pending)
            damaged = self._check(needed)
            self._needed += len(needed)
            if self._at_once and self._needed > max(_FEW, self._layout.num_blocks // _SHARE):
                self._check_ahead(int(pending[0]))
        self.all_sound = not self._pending.any()
        return damaged[0] if damaged else None

    def _check_ahead(self, start: int) -> None:
        """Checks some blocks more, the first time from `start` on: where each process reads others, they begin at
        different ones. A damaged one stays to be checked, and is found when it is needed.
        """
        first = self._next if self._next >= 0 else start
        pending = np.flatnonzero(self._pending[first : first + 8 * self._at_once])[: self._at_once] + first
        if len(pending):
            self._check(pending)
        end = int(pending[-1]) + 1 if len(pending) == self._at_once else first + 8 * self._at_once
        self._next = end if end < self._layout.num_blocks else 0

    def trust(self, blocks: NDArray[np.bool_]) -> None:
        """Takes some of all blocks (num_blocks,) as they are: those that hold nothing."""
        self._pending &= ~blocks
        self.all_sound = not self._pending.any()

    def _check(self, blocks: NDArray[np.integer]) -> list[int]:
        """Checks these blocks; those that do not agree with their entries."""
        damaged = self._repaired(self._different(blocks))
        self._mark(blocks, damaged)
        return damaged

    def _mark(self, blocks: NDArray[np.integer], damaged: list[int]) -> None:
        """Marks blocks as checked but the damaged ones, so that whoever needs one finds it damaged. These are never
        marked as checked for a moment: others may read just then.
        """
        self._pending[blocks] = np.isin(blocks, damaged) if damaged else False

    def _different(self, blocks: NDArray[np.integer]) -> list[int]:
        return different_blocks(self._layout, self._read, blocks, self.entries[blocks])

    def _repaired(self, damaged: list[int]) -> list[int]:
        """Those of these blocks that still do not agree with their entries when they were written anew."""
        if not damaged or self._repair is None:
            return damaged
        self._repair(damaged)
        return self._different(np.array(damaged))

    def check_all(self) -> list[int]:
        """Checks every block, whatever was checked before; those that do not agree with their entries."""
        return self.check(range(self._layout.num_blocks))

    def check(self, blocks: range) -> list[int]:
        """Checks a run of blocks, whatever was checked before; those that do not agree with their entries."""
        run = slice(blocks.start, blocks.stop)
        chosen = np.zeros_like(self.entries)
        chosen[run] = self.entries[run]
        damaged = self._repaired(damaged_blocks(self._layout, self._read, chosen))
        self._mark(np.arange(blocks.start, blocks.stop), damaged)
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
