"""Packs are filled by whoever needs them: several processes decode into one unfinished file, each the blocks that no
other has decoded. They need not know of each other: ranks of a job, parts of a pass, commands that run at once.

A process claims a block, by a lock on its number that ends with the process, before it decodes it. So no block is
decoded twice, and none is left out where a process is killed; where there are no locks several processes write the same
bytes to the same places. `find_or_build` returns when the whole pack is there; `find_or_fill` at once, and then decodes
the blocks that are read.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import IncompleteError, StorageError
from decant.cache.io.block_checks import damaged_blocks
from decant.cache.io.block_layout import WRITTEN
from decant.cache.io.blockfile import BlockFile
from decant.cache.io.checksum import crc32
from decant.cache.io.files import storage_error
from decant.cache.io.flock import free_range, try_range
from decant.cache.io.locks import give_up, in_turn, join, lock_path
from decant.cache.io.opening import NotAFileError, open_lock, open_write
from decant.cache.io.system import close_quietly
from decant.pipeline.data.image_pack import Decode, Layout, Pack, partial_path
from decant.pipeline.data.samples import spread
from decant.pipeline.data.thread_count import fixed_count
from decant.pipeline.errors import DamagedError, DataError
from decant.pipeline.ranks.cores import available_cores
from decant.pipeline.support.progress import progress

_PROBES = 8  # images of a pack that is there already, decoded again
_BLOCKS_AT_ONCE = 1024
_POLL_SECONDS, _SHORT_POLL_SECONDS = 0.05, 0.002
_LONGEST_WAIT_SECONDS = 1.0  # for a block that another process is decoding, before it is decoded here too


def find_or_build(
    path: Path,
    layout: Layout,
    decode: Decode,
    confirm: Callable[[], None],
    description: str,
    threads: int | None = None,
) -> Pack:
    """The pack at `path`; fills it where there is none, or where the one that is there is damaged, together with all
    other processes that do the same.

    layout: key, number and shape of the images. decode: what gives them. confirm: raises DataError where image files
    have changed while they were decoded; the pack is then not published. description: of the progress bar. threads:
    that may call `decode` at the same time, by default one a core.

    Raises StorageError or OSError where the folder or the disk does not allow it, and what `decode` raises.
    """
    while isinstance(found := find_or_fill(path, layout, decode), Filling):
        with found:
            try:
                found.fill(description, threads)
                if found.publish(confirm):
                    return Pack(path, layout)
            except DataError:
                partial_path(path).unlink(missing_ok=True)  # once the files are corrected, the key is another
                raise
    return found


def find_or_fill(path: Path, layout: Layout, decode: Decode) -> Pack | Filling:
    """The pack at `path`, or where there is none, or a damaged one, its unfinished file, which takes what is read.
    Takes and raises what `find_or_build` does.
    """
    found = _find(path, layout, decode)
    if found is not None:
        return found
    writable_folder(path.parent)
    with in_turn(path.parent):
        found = _find(path, layout, decode)  # another process may have published it while this one waited
        return found if found is not None else Filling(path, layout, decode)


class Filling:
    """The unfinished file of a pack, open to be filled: by `fill` whole, by `images` as it is read. Pickled, it is its
    path, under which whoever gets it finds it, or the pack.
    """

    def __init__(
        self, path: Path, layout: Layout, decode: Decode, descriptors: tuple[int, int] | None = None
    ) -> None:
        """Makes the file, or joins those who fill it. descriptors: those of another process, which has started this
        one, where it is open already. Raises StorageError and other OSErrors.
        """
        self.path, self.layout, self._decode = path, layout, decode
        if descriptors is not None:
            file, self._claims = descriptors
            self._file = BlockFile(file, layout, partial_path(path))
            return
        self._claims = open_lock(lock_path(path))
        try:
            self._file = _begin(path, layout)
        except BaseException:
            os.close(self._claims)
            raise
        self._close = weakref.finalize(self, _close, self._file.fd, self._claims)
        self._close.atexit = False  # threads may decode to the very end

    def __reduce__(self) -> tuple[Any, ...]:
        return find_or_fill, (self.path, self.layout, self._decode)

    @property
    def descriptors(self) -> tuple[int, int]:
        """The open file, and that of the claims."""
        return self._file.fd, self._claims

    def __enter__(self) -> Filling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give_up()
        self._close()

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """(B, C, H, W): a copy. Decodes and stores the blocks of these that nobody has stored."""
        found = np.empty((len(indices), *self.layout.image_shape), np.uint8)
        blocks = indices // self.layout.per_block
        for block in np.unique(blocks).tolist():
            chosen = blocks == block
            found[chosen] = self._read(block)[indices[chosen] - self.layout.bounds(block)[0]]
        return found

    def store(self, block: int, *, check: bool = False) -> bool:
        """Decodes and stores a block unless it is stored; with `check`, also where what is stored is damaged. False
        where another process is about to. Threads of one process must not be at one block.
        """
        with self._claimed(block) as mine:
            if mine and (not self._entry(block) or (check and self._is_damaged(block))):
                self._file.write_block(block, self._images(block).data)
            return mine

    def missing(self) -> list[int]:
        """The blocks that are not stored."""
        return np.flatnonzero(self._file.read_entries() == 0).tolist()

    def sync(self) -> None:
        """Makes durable what is stored. Raises StorageError, and then the file is removed."""
        self._file.sync()

    def give_up(self) -> None:
        """Ends this process's part in the file, which it may still read."""
        give_up(self._file.fd)

    @property
    def is_begun(self) -> bool:
        """Whether the file still has the name of an unfinished one."""
        return self._is_named(self._file.path)

    def fill(self, description: str, threads: int | None = None) -> None:
        """Decodes and stores every block that nobody has stored, in some threads, or in so many. Returns when all
        blocks are stored, by whomever.
        """
        self._forget_damaged()
        entries = self._file.read_entries()
        missing = np.flatnonzero(entries == 0).tolist()
        pool = ThreadPoolExecutor(threads or fixed_count(available_cores()))
        with progress(description, self.layout.count) as advance, pool:
            advance(sum(map(self._count, np.flatnonzero(entries).tolist())))
            while missing:
                others = []
                for start in range(0, len(missing), _BLOCKS_AT_ONCE):  # a task for each would fill the memory
                    some = missing[start : start + _BLOCKS_AT_ONCE]
                    for block, stored in zip(some, pool.map(self.store, some), strict=True):
                        if stored:
                            advance(self._count(block))
                        else:
                            others.append(block)
                if others == missing:
                    time.sleep(_POLL_SECONDS)
                missing = others

    def publish(self, confirm: Callable[[], None]) -> bool:
        """Gives the whole file its published name, unless another process has. False where blocks are missing after
        all, or the file has been removed: it is to be filled anew. Raises what `confirm` raises, and StorageError.
        """
        with in_turn(self.path.parent):
            if self._is_named(self.path):
                return True
            if not self.is_begun:
                return False
            confirm()
            try:
                self._file.publish(self.path)
            except IncompleteError:  # another process has found a block damaged
                return False
            return True

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Does nothing: each block is checked whenever it is read."""

    def _count(self, block: int) -> int:
        first, end = self.layout.bounds(block)
        return end - first

    def _read(self, block: int) -> NDArray[np.uint8]:
        """The images of a block. Waits a moment where another process is decoding it, which may be stopped."""
        until = time.monotonic() + _LONGEST_WAIT_SECONDS
        while (images := self._stored(block)) is None:
            with self._claimed(block) as mine:
                if mine and (images := self._stored(block)) is not None:
                    return images
                if mine or time.monotonic() > until:
                    images = self._images(block)
                    if mine and self.is_begun:
                        self._file.write_block(block, images.data)
                    return images
            time.sleep(_SHORT_POLL_SECONDS)
        return images

    def _stored(self, block: int) -> NDArray[np.uint8] | None:
        """The images of a block as they are stored; None where they are not, or are damaged."""
        entry, ((first, end),) = self._entry(block), self.layout.ranges(block)
        if entry:
            content = self._file.read(first, end)
            if WRITTEN + crc32(content) == entry:
                return np.frombuffer(content, np.uint8).reshape(-1, *self.layout.image_shape)
        return None

    def _is_damaged(self, block: int) -> bool:
        """Whether a block is to be written anew; what is published is never written again."""
        return self._stored(block) is None and not self._is_named(self.path)

    def _images(self, block: int) -> NDArray[np.uint8]:
        return np.ascontiguousarray(self._decode(np.arange(*self.layout.bounds(block))))

    def _entry(self, block: int) -> int:
        first = self.layout.entries_offset + 8 * block
        return int.from_bytes(self._file.read(first, first + 8), "little")

    @contextlib.contextmanager
    def _claimed(self, block: int) -> Iterator[bool]:
        """Whether no other process works at a block; where so, none begins to until the end."""
        taken = try_range(self._claims, block)
        try:
            yield taken is not False
        finally:
            if taken:
                free_range(self._claims, block)

    def _forget_damaged(self) -> None:
        """Marks blocks as unwritten that are not as they were written, as after a power cut."""
        for block in damaged_blocks(self.layout, self._file.read, self._file.read_entries()):
            with self._claimed(block) as mine:
                if mine:
                    self._file.write_entry(block, 0)

    def _is_named(self, path: Path) -> bool:
        """Whether this is the file of that name."""
        try:
            return os.path.samestat(os.fstat(self._file.fd), os.lstat(path))
        except FileNotFoundError:
            return False


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        close_quietly(descriptor)


def writable_folder(folder: Path) -> None:
    """Makes the folder if need be. Raises StorageError where that, or writing into it, is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder, "making the folder") from error
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{folder}: cannot be written")


def _find(path: Path, layout: Layout, decode: Decode) -> Pack | None:
    """The pack, if it is complete and some of its images are what this machine decodes; marks it as used."""
    try:
        found = Pack(path, layout)
        probes = spread(layout.count, _PROBES)
        if not np.array_equal(found.images(probes), decode(probes)):
            return None
    except (FileNotFoundError, NotAFileError, DamagedError):
        return None
    with contextlib.suppress(OSError, NotImplementedError):  # another person's
        os.utime(path, follow_symlinks=False)
    return found


def _begin(path: Path, layout: Layout) -> BlockFile:
    """The unfinished file of the pack at `path`, which is made if need be; this process shares its lock, so that
    `decant cache gc` does not remove it.
    """
    unfinished = partial_path(path)
    file = BlockFile(open_write(unfinished, create=True), layout, unfinished)
    try:
        if not file.was_created(layout.header):
            try:
                file.create(layout.header)
            except StorageError:
                unfinished.unlink()  # what room there was is free again
                raise
        join(file.fd)
    except BaseException:
        os.close(file.fd)
        raise
    return file
