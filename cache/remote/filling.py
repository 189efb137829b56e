"""A local copy that is not whole yet. Its blocks are fetched, checked, and only then written into it.

A block that was written is known by its checksum, as in any file of blocks: a hole, a torn block and one of other
content do not agree with their entries. So a copy is gone on with after a kill, and by several processes at once.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import threading
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import CacheWarning, CorruptError, RemoteError
from decant.cache.format.blocks import Blocks
from decant.cache.io.block_layout import expected_entry
from decant.cache.io.drafts import create_draft, remove_dead_drafts
from decant.cache.io.files import read_all, storage_error, sync_folder, write_all
from decant.cache.io.opening import is_file, open_write
from decant.cache.remote import mirror
from decant.cache.remote.folder import ChangedError, RemoteFolder
from decant.cache.remote.head import Head
from decant.cache.remote.progress import Advance

_GROUP = 4 << 20  # bytes of blocks that one worker fetches at a time
_LARGE_GROUP = 32 << 20  # the same where a whole file is fetched: each request costs a store some time
_WORKERS, _WORKERS_OF_WHOLE, _WORKERS_BESIDE = 16, 4, 2
_MOST_RANGES = 8  # of a group that are asked for at once, each in another table of the file
_GAP = 16 << 10  # bytes between two ranges that are fetched with them rather than by a request of their own


class Filling:
    """The copy of one file, open to be filled. Several threads and processes may fill it."""

    def __init__(
        self, folder: RemoteFolder, name: str, head: Head, entries: NDArray[np.uint64], path: Path
    ) -> None:
        """Opens the copy at `path`, or makes it. Raises StorageError."""
        self.folder, self.name, self.head, self.path = folder, name, head, path
        self.entries, self.blocks = entries, head.blocks
        try:
            if not path.exists():
                _create(path, head, entries)
            self.fd = open_write(path)
        except OSError as error:
            raise storage_error(error, path, "making the local copy") from error
        self.given_out: set[int] = set()
        """First bytes of the tables that were read as a whole before their blocks were checked."""
        self._beside = self.head.layout.tables[self.head.layout.encoded[-1]].end
        """Where the tables end that hold what a teacher said; beside them are labels and the like, which are small."""
        self._beside_asked: Future[None] | None = None
        """The end of fetching these, where all of them are fetched at once, to be checked with the blocks."""
        self.closed = False
        self._lock = threading.Lock()
        self._users = 0
        _fillings.add(self)

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
    def _open(self) -> Iterator[None]:
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
            os.close(self.fd)
            self.fd = -1

    def missing(self, numbers: Sequence[int]) -> list[int]:
        """Those of these blocks that are not in the copy, or not as they must be."""
        with self._open():
            return [number for number in numbers if not self._is_there(number)]

    def fetch_most(self, numbers: Sequence[int], advance: Advance) -> None:
        """As `fetch`, with fewer requests where most blocks of the file are missing: what is small of each block, its
        labels and checksums of inputs, is fetched for all of them meanwhile, and checked with the rest of the block.
        """
        with ThreadPoolExecutor(1) as pool:
            self._beside_asked = pool.submit(self._fetch_beside, numbers)
            self.fetch(numbers, advance, _WORKERS_OF_WHOLE, _LARGE_GROUP)

    def _fetch_beside(self, numbers: Sequence[int]) -> None:
        with self._open():
            pieces = [
                (first, min(end, first + _LARGE_GROUP))
                for start, end in _merged(self.blocks, numbers, self._beside)
                for first in range(start, end, _LARGE_GROUP)
            ]
            missing = set(numbers)
            others = [number for number in range(self.blocks.num_blocks) if number not in missing]
            kept = {place for number in others for place in self.blocks.ranges(number)}
            tables = list(self.head.layout.tables.values())
            kept |= {(table.end, after.offset) for table, after in pairwise(tables)}  # which must be zeros
            stays = sorted(kept)
            with ThreadPoolExecutor(_WORKERS_BESIDE) as pool:
                for some in range(0, len(pieces), _WORKERS_BESIDE):  # that few are in memory
                    now = pieces[some : some + _WORKERS_BESIDE]
                    for (first, end), content in zip(now, pool.map(self._ask, now), strict=True):
                        for start, stop in _without(first, end, stays):
                            write_all(self.fd, content[start - first : stop - first], start, self.path)

    def fetch(
        self,
        numbers: Sequence[int],
        advance: Advance = lambda count: None,
        workers: int = _WORKERS,
        group_bytes: int = _GROUP,
    ) -> None:
        """Fetches blocks and writes them into the copy, in groups, several at once. Raises CorruptError, naming the
        first block that is not as it must be in two answers, RemoteError and StorageError.
        """
        groups = iter(_groups(self.blocks, numbers, group_bytes))
        if len(numbers) == 1 or workers == 1:
            for group in groups:
                self._fetch_group(group, advance)
            return
        with ThreadPoolExecutor(workers) as pool:
            running: set[Future[None]] = set()
            try:
                for group in groups:
                    running.add(pool.submit(self._fetch_group, group, advance))
                    if len(running) >= 2 * workers:  # so that little is begun where one fails
                        done, running = wait(running, return_when=FIRST_COMPLETED)
                        for future in done:
                            future.result()
                for future in running:
                    future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def read_table(self, table: str) -> None:
        """Fetches a table as a whole, for whoever reads it before its blocks are read; these are checked when they
        are fetched, together with it.
        """
        found = self.head.layout.tables[table]
        with self._lock:
            if found.offset in self.given_out:
                return
            checked = self._checked_ranges(found.offset, found.end)
            for first in range(found.offset, found.end, _GROUP):
                end = min(found.end, first + _GROUP)
                content = self._ask((first, end))
                for start, stop in _without(first, end, checked):
                    write_all(self.fd, content[start - first : stop - first], start, self.path)
            self.given_out.add(found.offset)

    def is_whole(self) -> bool:
        """Whether every block is in the copy; reads all of it, unless it has holes."""
        return not self._is_hole(0, self.blocks.size, partly=True) and not self.missing(
            range(self.blocks.num_blocks)
        )

    def publish(self, target: Path) -> None:
        """Gives a whole copy its name, in one step, and protects it. Raises StorageError."""
        try:
            os.fsync(self.fd)
            if hasattr(os, "fchmod"):
                os.fchmod(self.fd, stat.S_IMODE(os.fstat(self.fd).st_mode) & 0o444)
            own = mirror.is_unpushed(target) and is_file(target, follow=False)
            try:
                os.replace(self.path, target)
                if own:
                    mirror.mark_unpushed(target, False)
                    warnings.warn(
                        f"{target}: was built here, and {self.head.shown}, which another process has published, has "
                        "other logits of the same key; that file has taken its place",
                        CacheWarning,
                        stacklevel=3,
                    )
            except FileNotFoundError:
                if not is_file(target, follow=False):
                    raise RemoteError(
                        f"{self.path}: was removed while it was filled; run the same command again"
                    ) from None
                # else another process was first
            sync_folder(target.parent)
        except OSError as error:
            raise storage_error(error, target, "publishing the local copy") from error

    def _fetch_group(self, group: Sequence[int], advance: Advance) -> None:
        with self._open():
            self._fetch_checked(group)
        advance(sum(end - first for number in group for first, end in self.blocks.ranges(number)))

    def _fetch_checked(self, group: Sequence[int]) -> None:
        ranges = _merged(self.blocks, group, end=self._beside if self._beside_asked else None)
        try:
            wrong = self._fetch_ranges(group, ranges)
            if wrong:  # once more, as what comes through a network may be changed on its way
                wrong = self._fetch_ranges(wrong, _merged(self.blocks, wrong))
        except ChangedError as error:
            raise ChangedError(f"{error}; run the same command again to have the new one") from None
        if wrong:
            name = self.blocks.name(*divmod(wrong[0], self.blocks.per_view))
            raise CorruptError(
                f"{self.head.shown}: {name} is not as it was written, in two answers of the store; it was damaged or "
                "replaced there"
            )

    def _fetch_ranges(self, group: Sequence[int], ranges: Sequence[tuple[int, int]]) -> list[int]:
        """Fetches these bytes, and writes the blocks of `group` that are as they must be; returns the others."""
        with ThreadPoolExecutor(_MOST_RANGES) as pool:  # which makes as many threads as there are ranges
            parts = [memoryview(content) for content in pool.map(self._ask, ranges)]
        if self._beside_asked:
            self._beside_asked.result()

        def fetched(first: int, end: int) -> memoryview | None:
            for (start, stop), part in zip(ranges, parts, strict=True):
                if start <= first < end <= stop:
                    return part[first - start : end - start]
            return None  # of a block without samples, or in the copy already

        def read(first: int, end: int) -> bytes | memoryview:
            found = fetched(first, end)
            return self._read(first, end) if found is None else found

        wrong = []
        for number in group:
            if expected_entry(self.blocks, read, number) != int(self.entries[number]):
                wrong.append(number)
                continue
            with self._lock:
                for first, end in self.blocks.ranges(number):
                    content = fetched(first, end)
                    if content is not None:
                        self._write(first, content)
        return wrong

    def _ask(self, place: tuple[int, int]) -> bytes:
        return self.folder.read(self.name, *place, self.head.stat.tag)

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


_fillings: weakref.WeakSet[Filling] = weakref.WeakSet()


def _after_fork() -> None:
    for filling in _fillings:
        filling.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _create(path: Path, head: Head, entries: NDArray[np.uint64]) -> None:
    """Makes a copy that has header, checksums and seal, and no block; where another process makes one, that stays."""
    remove_dead_drafts(path)
    draft, fd = create_draft(path)
    try:
        head.write_to(fd)
        write_all(fd, entries.tobytes(), head.blocks.entries_offset, path)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
                raise
            os.rename(draft, path)
    finally:
        draft.unlink(missing_ok=True)
        os.close(fd)


def _groups(blocks: Blocks, numbers: Iterable[int], most: int) -> Iterable[list[int]]:
    """Blocks in groups that follow one another in the file, of at most so many bytes."""
    group: list[int] = []
    held = 0
    for number in sorted(numbers):
        size = sum(end - first for first, end in blocks.ranges(number))
        if group and (held + size > most or number != group[-1] + 1):
            yield group
            group, held = [], 0
        group.append(number)
        held += size
    if group:
        yield group


def _merged(
    blocks: Blocks, group: Iterable[int], first: int = 0, end: int | None = None
) -> list[tuple[int, int]]:
    """The bytes of blocks in as few ranges as can be, with the bytes of small gaps: those that begin from byte
    `first` on, and before `end`.
    """
    found: list[tuple[int, int]] = []
    for start, stop in sorted({place for number in group for place in blocks.ranges(number)}):
        if start == stop or start < first or (end is not None and start >= end):
            continue
        if found and start - found[-1][1] <= _GAP:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((start, stop))
    return found


def _without(first: int, end: int, taken: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """The parts of a range that no other, in order, takes."""
    for start, stop in taken:
        if stop <= first or start >= end:
            continue
        if start > first:
            yield first, start
        first = max(first, stop)
    if first < end:
        yield first, end
