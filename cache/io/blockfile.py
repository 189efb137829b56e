"""Files that are filled in place, block by block: reserved whole, resumed after a kill, checked when they are read.

A block is one or several byte ranges of the file. A table in the file has an entry for each block: 0 while the block is
unwritten, else 2³² + the CRC-32 of its bytes. The entry is written after the bytes. So a damaged block is recognised:
if a kill cut it short, or it never reached the disk, or it changed there, its entry is 0 or differs from its CRC-32.

Cache files and packs of decoded images are such files; each says in a `BlockLayout` where its blocks lie.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import stat
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import IncompleteError
from decant.cache.io.checksum import crc32
from decant.cache.io.files import read_all, reserve, storage_error, sync_folder, write_all

_RUNS = 8
"""That are read side by side: as many as a block has ranges, and some more."""
_THREADS, _PIECE = 2, 4 << 20
"""Threads that check blocks, and bytes that are worth a piece of work; less is checked by the caller alone."""
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


def damaged_blocks(
    layout: BlockLayout, read: ReadBytes, entries: NDArray[np.uint64], *, ahead: bool = False
) -> list[int]:
    """Every written block whose bytes do not agree with its entry. entries: (num_blocks,). ahead: reads in spans, which
    takes less time where each `read` is a call of the system. Two threads share the blocks of a large file.

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
        pieces = np.array_split(blocks, min(share, 8 * _THREADS))
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


class BlockFile:
    """The file of a layout that `fd` has open, to read and write; it neither opens nor closes the file.

    Several threads, or processes, may write into one file if they write different blocks.

    >>> import tempfile
    >>> class Letters:  # three blocks of four bytes after a header of eight, then the entries
    ...     size, num_blocks, entries_offset = 44, 3, 20
    ...     def ranges(self, block):
    ...         return ((8 + 4 * block, 12 + 4 * block),)
    >>> file = tempfile.NamedTemporaryFile()
    >>> blocks = BlockFile(file.fileno(), Letters(), Path(file.name))
    >>> blocks.create(header=b"letters")
    >>> blocks.write_block(1, b"abcd")
    >>> blocks.write(12, b"A")  # as if a kill had cut the block short
    >>> entries = blocks.read_entries()
    >>> blocks.forget_damaged(entries), entries.tolist()
    ([1], [0, 0, 0])
    >>> file.close()
    """

    def __init__(self, fd: int, layout: BlockLayout, path: Path) -> None:
        """`path` is for messages, and what `sync` removes when it fails and `publish` renames."""
        self.fd, self.layout, self.path = fd, layout, path

    def create(self, header: bytes) -> None:
        """Empties the file, reserves all its space and writes its first bytes. Raises StorageError where there is no
        room.
        """
        os.ftruncate(self.fd, 0)
        reserve(self.fd, self.layout.size, self.path)
        self.write(0, header)

    def was_created(self, header: bytes) -> bool:
        """Whether the file has the layout's size and begins with `header`."""
        whole = os.fstat(self.fd).st_size == self.layout.size
        return whole and self.read(0, len(header)) == header

    def read(self, first: int, end: int) -> bytes:
        """Bytes `first` to `end` − 1. Raises StorageError."""
        return read_all(self.fd, end - first, first, self.path)

    def write(self, first: int, content: bytes | memoryview) -> None:
        """Writes from byte `first` on. Raises StorageError."""
        write_all(self.fd, content, first, self.path)

    def read_entries(self) -> NDArray[np.uint64]:
        """(num_blocks,): the table of entries, a copy."""
        first = self.layout.entries_offset
        return np.frombuffer(self.read(first, first + 8 * self.layout.num_blocks), "<u8").copy()

    def write_entry(self, block: int, entry: int) -> None:
        """Marks a block as written, or with 0 as unwritten."""
        self.write(self.layout.entries_offset + 8 * block, entry.to_bytes(8, "little"))

    def write_block(self, block: int, content: bytes | memoryview) -> None:
        """Writes the bytes of a block, its ranges one after the other, and then its entry."""
        rest = memoryview(content).cast("B")
        for first, end in self.layout.ranges(block):
            self.write(first, rest[: end - first])
            rest = rest[end - first :]
        self.write_entry(block, WRITTEN + crc32(content))

    def forget_damaged(
        self, entries: NDArray[np.uint64], trusted: NDArray[np.bool_] | None = None
    ) -> list[int]:
        """Reads every written block but the `trusted` ones (num_blocks,), and marks those that do not agree with
        `entries` (num_blocks,) as unwritten, in the file and there; returns them. So does whoever goes on with a file
        after a kill.
        """
        looked_at = entries if trusted is None else np.where(trusted, np.uint64(0), entries)
        damaged = damaged_blocks(self.layout, self.read, looked_at, ahead=True)
        for block in damaged:
            self.write_entry(block, 0)
            entries[block] = 0
        return damaged

    def sync(self) -> None:
        """Makes what was written durable. Raises StorageError where that fails, and then removes the file: after a
        failed sync nobody knows which pages are on the disk, and a second one would not tell.
        """
        try:
            os.fsync(self.fd)
        except OSError as error:
            self.path.unlink(missing_ok=True)
            doing = "syncing; what was written cannot be trusted and is dropped"
            raise storage_error(error, self.path, doing) from error

    def publish(self, path: Path) -> None:
        """Syncs the file and gives it the name `path`, in place of a file that has it, and protects it from writing.

        Raises IncompleteError while a block is unwritten, StorageError as `sync` does. Where the file has lost its name
        another builder, who wrote the same bytes into it, has published it.
        """
        unwritten = int(np.count_nonzero(self.read_entries() == 0))
        if unwritten:
            raise IncompleteError(
                f"{self.path}: {unwritten:,} of {self.layout.num_blocks:,} blocks are not written"
            )
        self.sync()
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, path)  # the step that publishes: every block is written and synced
        sync_folder(path.parent)
        if hasattr(os, "fchmod"):
            with contextlib.suppress(OSError):  # another person's
                os.fchmod(self.fd, stat.S_IMODE(os.fstat(self.fd).st_mode) & 0o444)


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
