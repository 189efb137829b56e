"""The decoded pack: the images of a part, decoded once, in one file that every process maps into memory.

A page with key and shape, the pixels (N, C, H, W) uint8, then a table with an entry a block of images: 0 while
the block is unwritten, else 2³² + CRC-32 of its bytes. Until every block is written and synced the file is
`NAME.pack.partial`; then it takes its name and is never written again. A build that was killed goes on with
the blocks that it lacks. Of two builders one builds and the other waits; where there are no locks both write
the same bytes to the same places.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import StorageError
from decant.cache.format.blocks import WRITTEN
from decant.cache.io.files import read_all, reserve, storage_error, sync_folder, write_all
from decant.cache.io.locks import claim, exclusive, lock_path
from decant.cache.io.partial import PARTIAL
from decant.pipeline.data.samples import spread
from decant.pipeline.errors import DamagedError, DataError
from decant.pipeline.support.progress import progress

SUFFIX = ".pack"
FOLDER = "packs"  # of a store, beside its caches
IN_STORE = f"{FOLDER}/*{SUFFIX}"
"""Where the packs of a store lie, for whoever removes those that nobody uses."""

_FORMAT = 1  # to be counted up when `decant.pipeline.data.image_decode` makes other pixels of the same file
_PAGE = 4096
_BLOCK_BYTES = 1 << 16  # of pixels, or one image where that is larger
_PROBES = 8  # images of a pack that is there already, decoded again
_BLOCKS_AT_ONCE = 1024

Decode = Callable[[NDArray[np.integer]], NDArray[np.uint8]]
"""Indices (B,) → images (B, C, H, W)."""


@dataclass(frozen=True)
class Layout:
    """Where everything lies in the pack of `count` images of one shape."""

    key: str
    """What the pixels are a function of."""
    count: int
    image_shape: tuple[int, ...]

    @property
    def header(self) -> bytes:
        """The first page."""
        shape = " ".join(map(str, (self.count, *self.image_shape)))
        return f"decoded-pack {_FORMAT}\n{self.key}\n{shape}\n".encode().ljust(_PAGE, b"\0")

    @property
    def image_bytes(self) -> int:
        return int(np.prod(self.image_shape))

    @property
    def per_block(self) -> int:
        """Images a block."""
        return max(1, _BLOCK_BYTES // self.image_bytes)

    @property
    def num_blocks(self) -> int:
        return -(-self.count // self.per_block)

    @property
    def table_offset(self) -> int:
        return self.offset(self.count)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.table_offset + 8 * self.num_blocks

    def offset(self, index: int) -> int:
        """Where image `index` begins."""
        return _PAGE + index * self.image_bytes

    def bounds(self, block: int) -> tuple[int, int]:
        """First image and end image of a block."""
        return block * self.per_block, min(self.count, (block + 1) * self.per_block)


class Pack:
    """A finished pack, mapped read-only. Each block's checksum is checked when it is first read; pickled, it
    is its path.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        """Raises FileNotFoundError; DamagedError where it is not the whole pack of this layout."""
        self.path, self.layout = path, layout
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            size = os.fstat(fd).st_size
            if size != layout.size:
                raise self._damaged(f"expected {layout.size:,} bytes, found {size:,}")
            mapped = mmap.mmap(fd, size, access=mmap.ACCESS_READ)
        finally:
            os.close(fd)
        if mapped[:_PAGE] != layout.header:
            raise self._damaged("its first page names other images, or another version of the format")
        self._table = np.frombuffer(mapped, "<u8", offset=layout.table_offset)
        if not self._table.all():
            raise self._damaged(f"{np.count_nonzero(self._table == 0):,} blocks were never written")
        pixels = np.frombuffer(mapped, np.uint8, layout.count * layout.image_bytes, _PAGE)
        self._pixels = pixels.reshape(layout.count, *layout.image_shape)
        self._checked, self._all_checked = np.zeros(layout.num_blocks, bool), False

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack, (self.path, self.layout)

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """(B, C, H, W): a copy. Raises DamagedError where they are not as they were written."""
        if not self._all_checked:
            blocks = np.unique(indices // self.layout.per_block)
            for block in blocks[~self._checked[blocks]].tolist():
                self._check(block)
            self._all_checked = bool(self._checked.all())
        return self._pixels[indices]

    def _check(self, block: int) -> None:
        first, end = self.layout.bounds(block)
        if WRITTEN + zlib.crc32(self._pixels[first:end].data) != self._table[block]:
            raise self._damaged(f"images {first:,} to {end - 1:,} are not as they were written")
        self._checked[block] = True

    def _damaged(self, why: str) -> DamagedError:
        return DamagedError(
            f"{self.path}: {why}; delete it and run the same command again, which decodes the images anew"
        )


def find_or_build(
    path: Path, layout: Layout, decode: Decode, confirm: Callable[[], None], description: str
) -> Pack:
    """The pack at `path`, built if need be; one that is not sound is built anew.

    `confirm` raises DataError where the files are no more those that were to be decoded. Raises StorageError
    or OSError where folder or disk do not let it be made, and what `decode` raises.
    """
    found = _find(path, layout, decode)
    if found is not None:
        return found
    writable_folder(path.parent)
    with exclusive(lock_path(path), partial(_say_waiting, path)):
        found = _find(path, layout, decode)  # another builder may have finished while this one waited
        if found is not None:
            return found
        _build(path, layout, decode, confirm, description)
        return Pack(path, layout)


def writable_folder(folder: Path) -> None:
    """Makes the folder if need be. Raises StorageError where that, or writing into it, is not allowed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, folder, "making the folder") from error
    if not os.access(folder, os.W_OK):
        raise StorageError(f"{folder}: cannot be written")


def partial_path(path: Path) -> Path:
    """The unfinished file of the pack at `path`."""
    return path.with_name(path.name + PARTIAL)


def _find(path: Path, layout: Layout, decode: Decode) -> Pack | None:
    """The pack, if it is whole, and some of its images are what this machine decodes; marks it as used."""
    try:
        found = Pack(path, layout)
        probes = spread(layout.count, _PROBES)
        if not np.array_equal(found.images(probes), decode(probes)):
            return None
    except (FileNotFoundError, DamagedError):
        return None
    with contextlib.suppress(OSError):  # another person's
        os.utime(path)
    return found


def _say_waiting(path: Path, holder: str) -> None:
    print(f"{path}: another process is decoding these images; waiting for it", file=sys.stderr)


def _build(path: Path, layout: Layout, decode: Decode, confirm: Callable[[], None], description: str) -> None:
    unfinished = partial_path(path)
    fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        claim(fd)  # so that nobody collects it as left behind
        _fill(fd, layout, _begun(fd, layout, unfinished), decode, description, unfinished)
        confirm()
        os.fsync(fd)
        with contextlib.suppress(FileNotFoundError):  # without locks, another builder may have been quicker
            os.rename(unfinished, path)  # from here on there is a pack: every block is written and synced
        sync_folder(path.parent)
        with contextlib.suppress(OSError):
            path.chmod(path.stat().st_mode & 0o444)
    except DataError:
        unfinished.unlink(missing_ok=True)  # images that are put right are others, with another key
        raise
    finally:
        os.close(fd)


def _begun(fd: int, layout: Layout, path: Path) -> NDArray[np.uint64]:
    """The table of a partial file, with 0 for what is still to be written; the file is made ready if need be."""
    if os.fstat(fd).st_size != layout.size or read_all(fd, _PAGE, 0, path) != layout.header:
        os.ftruncate(fd, 0)
        try:
            reserve(fd, layout.size, path)
        except StorageError:
            path.unlink()  # what room there was is free again
            raise
        write_all(fd, layout.header, 0, path)
        return np.zeros(layout.num_blocks, "<u8")
    table = np.frombuffer(read_all(fd, 8 * layout.num_blocks, layout.table_offset, path), "<u8").copy()
    for block in np.flatnonzero(table).tolist():
        first, end = layout.bounds(block)
        pixels = read_all(fd, (end - first) * layout.image_bytes, layout.offset(first), path)
        if table[block] != WRITTEN + zlib.crc32(pixels):
            table[block] = 0
    return table


def _fill(
    fd: int, layout: Layout, table: NDArray[np.uint64], decode: Decode, description: str, path: Path
) -> None:
    """Decodes and writes every block that `table` lacks, on all cores: the decoder lets go of the
    interpreter's lock.
    """

    def write(block: int) -> int:
        first, end = layout.bounds(block)
        pixels = np.ascontiguousarray(decode(np.arange(first, end)))
        write_all(fd, pixels.data, layout.offset(first), path)
        entry = np.array([WRITTEN + zlib.crc32(pixels.data)], "<u8")
        write_all(fd, entry.data, layout.table_offset + 8 * block, path)
        return end - first

    missing = np.flatnonzero(table == 0).tolist()
    with progress(description, layout.count) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        written = (layout.bounds(block) for block in np.flatnonzero(table).tolist())
        advance(sum(end - first for first, end in written))
        for start in range(0, len(missing), _BLOCKS_AT_ONCE):  # a task for each of all would fill the memory
            for count in pool.map(write, missing[start : start + _BLOCKS_AT_ONCE]):
                advance(count)
