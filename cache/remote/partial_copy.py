"""A local copy that is not whole yet: which blocks are in it, and how they come in.

A block that was written is known by its checksum, as in any file of blocks: a hole, a torn block and one of other
content do not agree with their entries. So a copy is gone on with after a kill, and by several processes at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import CorruptError, RemoteError
from decant.cache.io.block_layout import expected_entry
from decant.cache.io.files import read_all, write_all
from decant.cache.io.system import close_quietly
from decant.cache.remote.copy_files import open_copy, publish_copy
from decant.cache.remote.head import Head
from decant.cache.remote.ranges import without

_PIECE = 4 << 20  # bytes of a table that are asked for at a time

Ask = Callable[[tuple[int, int]], bytes]
"""(first byte, end) of the file elsewhere → those bytes."""
Fetched = Callable[[int, int], memoryview | None]
"""(first byte, end) → those bytes, where they were asked for."""


class PartialCopy:
    """The copy of one file, open to be filled. Several threads and processes may fill it."""

    def __init__(self, head: Head, entries: NDArray[np.uint64], path: Path) -> None:
        """Opens the copy at `path`, or makes it. Raises StorageError."""
        self.head, self.path = head, path
        self.entries, self.blocks = entries, head.blocks
        self.fd = open_copy(path, head, entries)
        self.given_out: set[int] = set()
        """First bytes of the tables that were read as a whole before their blocks were checked."""
        self.closed = False
        self._lock = threading.Lock()
        self._users = 0
        _copies.add(self)

    def forked(self) -> None:
        """In a process that was forked: none of the threads is here that hold the lock or use the copy."""
        self._lock, self._users = threading.Lock(), 0

    def close(self) -> None:
        """Closes the copy; what is in it stays."""
        with self._lock:
            self.closed = True
            if not self._users:
                self._close()

    @contextlib.contextmanager
    def kept_open(self) -> Iterator[None]:
        """Keeps the copy open: a thread may still write when its reader is gone."""
        with self._lock:
            if self.closed:
                raise RemoteError(f"{self.head.shown}: its copy was closed")
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if self.closed and not self._users:
                    self._close()

    def _close(self) -> None:
        if self.fd >= 0:
            close_quietly(self.fd)
            self.fd = -1

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Those of these blocks that are not in the copy, or not as they must be."""
        with self.kept_open():
            return [number for number in numbers if not self._is_there(number)]

    def is_whole(self) -> bool:
        """Whether every block is in the copy; reads all of it, unless it has holes."""
        return not self._is_hole(0, self.blocks.size, partly=True) and not self.missing(
            range(self.blocks.num_blocks)
        )

    def put(self, number: int, fetched: Fetched) -> bool:
        """Writes a block of which these bytes were fetched, and the others are in the copy already; returns whether it
        is as it must be, and else writes nothing. Raises CorruptError where a part of it was given out as another.
        """

        def read(first: int, end: int) -> bytes | memoryview:
            found = fetched(first, end)
            return self._read(first, end) if found is None else found

        if expected_entry(self.blocks, read, number) != int(self.entries[number]):
            return False
        with self._lock:
            for first, end in self.blocks.ranges(number):
                content = fetched(first, end)
                if content is not None:
                    self._write(first, content)
        return True

    def put_between(self, first: int, content: bytes, stays: Sequence[tuple[int, int]]) -> None:
        """Writes bytes from `first` on, without looking at them; those of the ranges `stays`, in order, stay."""
        for start, stop in without(first, first + len(content), stays):
            write_all(self.fd, content[start - first : stop - first], start, self.path)

    def put_table(self, table: str, ask: Ask) -> None:
        """Asks for a table as a whole, for whoever reads it before its blocks are read; these are checked when they
        are fetched, together with it.
        """
        found = self.head.layout.tables[table]
        with self._lock:
            if found.offset in self.given_out:
                return
            checked = self._checked_ranges(found.offset, found.end)
            for first in range(found.offset, found.end, _PIECE):
                self.put_between(first, ask((first, min(found.end, first + _PIECE))), checked)
            self.given_out.add(found.offset)

    def publish(self, target: Path) -> None:
        """Gives a whole copy its name, in one step, and protects it. Raises StorageError; where it cannot be synced, it
        is dropped.
        """
        publish_copy(self.fd, self.path, target, self.head.shown)

    def _write(self, first: int, content: memoryview) -> None:
        if self.given_out and self._was_given_out(first):
            before = read_all(self.fd, len(content), first, self.path)
            if before != content:
                raise CorruptError(
                    f"{self.head.shown}: its labels or input checksums were others when they were read first; open it "
                    "again"
                )
            return
        write_all(self.fd, content, first, self.path)

    def _was_given_out(self, first: int) -> bool:
        tables = self.head.layout.tables.values()
        return any(table.offset in self.given_out and table.offset <= first < table.end for table in tables)

    def _is_there(self, number: int) -> bool:
        first, end = next((place for place in self.blocks.ranges(number) if place[0] < place[1]), (0, 0))
        if first < end and self._is_hole(first, end):
            return False
        return expected_entry(self.blocks, self._read, number) == int(self.entries[number])

    def _is_hole(self, first: int, end: int, partly: bool = False) -> bool:
        """Whether nothing was ever written to these bytes, or with `partly` to some of them; False where the file
        system does not tell.
        """
        if not hasattr(os, "SEEK_DATA"):
            return False
        try:
            if partly:
                return os.lseek(self.fd, first, os.SEEK_HOLE) < end
            return os.lseek(self.fd, first, os.SEEK_DATA) >= end
        except OSError as error:
            return error.errno == errno.ENXIO

    def _read(self, first: int, end: int) -> bytes:
        return read_all(self.fd, end - first, first, self.path)

    def _checked_ranges(self, first: int, end: int) -> list[tuple[int, int]]:
        """The parts of a table that blocks in the copy have proved."""
        found = [
            place
            for number in range(self.blocks.num_blocks)
            for place in self.blocks.ranges(number)
            if first <= place[0] < end and self._is_there(number)
        ]
        return sorted(set(found))


_copies: weakref.WeakSet[PartialCopy] = weakref.WeakSet()


def _after_fork() -> None:
    for copy in _copies:
        copy.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
