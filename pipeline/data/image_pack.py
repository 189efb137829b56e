"""The pack: the images of a split, decoded once into one file that every process maps into memory.

A page with key and shape, the pixels (N, C, H, W) uint8, then a table with an entry for each block of images
(`decant.cache.io.blockfile`). Until every block is written and synced the file is `NAME.pack.partial`; then it takes
its name and is never written again. A build that was killed goes on with the blocks that it lacks. Of two builders one
builds and the other waits; where there are no locks both write the same bytes to the same places.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import StorageError
from decant.cache.io import bus_errors
from decant.cache.io.blockfile import BlockChecks, BlockFile
from decant.cache.io.files import storage_error
from decant.cache.io.locks import claim, exclusive, lock_path
from decant.cache.io.mapped import MappedFile
from decant.cache.io.opening import NotAFileError, open_read, open_write, read_start
from decant.cache.io.partial import PARTIAL
from decant.cache.io.unchanged import Unchanged
from decant.pipeline.data.samples import spread
from decant.pipeline.errors import DamagedError, DataError
from decant.pipeline.support.notices import say
from decant.pipeline.support.progress import progress

SUFFIX = ".pack"
FOLDER = "packs"  # of a store, beside its caches
IN_STORE = f"{FOLDER}/*{SUFFIX}"
"""Where the packs of a store lie, for whoever removes those that nobody uses."""

_FORMAT = 1  # to be counted up when `decant.pipeline.data.image_decode` makes other pixels of the same file
_BEGINNING = b"decoded-pack "
_PAGE = 4096
_BLOCK_BYTES = 1 << 16  # of pixels, or one image where that is larger
_AGAIN = "delete it and run the same command again, which decodes the images anew"
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
        return _BEGINNING + f"{_FORMAT}\n{self.key}\n{shape}\n".encode().ljust(_PAGE - len(_BEGINNING), b"\0")

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
    def entries_offset(self) -> int:
        """Where the table with an entry a block begins."""
        return self.offset(self.count)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return self.entries_offset + 8 * self.num_blocks

    def offset(self, index: int) -> int:
        """Where image `index` begins."""
        return _PAGE + index * self.image_bytes

    def bounds(self, block: int) -> tuple[int, int]:
        """First image and end image of a block."""
        return block * self.per_block, min(self.count, (block + 1) * self.per_block)

    def ranges(self, block: int) -> tuple[tuple[int, int]]:
        """The bytes of a block, as one range: first byte and end."""
        first, end = self.bounds(block)
        return ((self.offset(first), self.offset(end)),)


def is_pack(path: Path) -> bool:
    """Whether a file, finished or not, begins as a pack of any version does, or as one of which nothing was written
    before its builder was killed. Raises OSError.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     file.write(b"measurements"), file.flush(), is_pack(Path(file.name))
    (12, None, False)
    """
    start = read_start(path, len(_BEGINNING))
    unwritten = not start.strip(b"\0") and path.name.endswith(PARTIAL)
    return start == _BEGINNING or unwritten


class Pack:
    """A finished pack, mapped read-only. Each block's checksum is checked when it is first read; pickled, it
    is its path.
    """

    def __init__(self, path: Path, layout: Layout) -> None:
        """Raises FileNotFoundError and other OSErrors; DamagedError where it is not the whole pack of this layout."""
        self.path, self.layout = path, layout
        with open_read(path, follow=False) as file:
            size = os.fstat(file.fileno()).st_size
            if size != layout.size:
                raise self._damaged(f"expected {layout.size:,} bytes, found {size:,}")
            mapped = MappedFile(file.fileno(), size, path)
        if mapped[:_PAGE] != layout.header:
            raise self._damaged("its first page names other images, or another version of the format")
        content = memoryview(mapped)
        self._checks = BlockChecks(layout, lambda first, end: content[first:end])
        unwritten = np.count_nonzero(self._checks.entries == 0)
        if unwritten:
            raise self._damaged(f"{unwritten:,} blocks were never written")
        pixels = np.frombuffer(mapped, np.uint8, layout.count * layout.image_bytes, _PAGE)
        self._pixels = pixels.reshape(layout.count, *layout.image_shape)
        self._unchanged = Unchanged(mapped, self._checks, self._name, times_count=False, hint=_AGAIN)

    def __reduce__(self) -> tuple[Any, ...]:
        return Pack, (self.path, self.layout)

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """(B, C, H, W): a copy. Raises DamagedError where they are not as they were written, CorruptError where the
        file was cut short meanwhile.
        """
        bus_errors.guard()
        if not self._checks.all_sound:
            block = self._checks.first_damaged(indices // self.layout.per_block)
            if block is not None:
                self._unchanged.require_readable()
                raise self._damaged(f"{self._name(block)} are not as they were written")
        found = self._pixels[indices]
        self._unchanged.require_readable()
        return found

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises CorruptError where the file is no longer what was read from it; with `checksums` reads all that was
        read again.
        """
        bus_errors.guard()
        self._unchanged.require(checksums=checksums)

    def _name(self, block: int) -> str:
        first, end = self.layout.bounds(block)
        return f"images {first:,} to {end - 1:,}"

    def _damaged(self, why: str) -> DamagedError:
        return DamagedError(f"{self.path}: {why}; {_AGAIN}")


def find_or_build(
    path: Path, layout: Layout, decode: Decode, confirm: Callable[[], None], description: str
) -> Pack:
    """The pack at `path`; builds it where there is none, or where the one that is there is damaged.

    layout: key, number and shape of the images. decode: what gives them. confirm: raises DataError where image files
    have changed while they were decoded; the pack is then not published. description: of the progress bar.

    Raises StorageError or OSError where the folder or the disk does not allow it, and what `decode` raises.
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


def _say_waiting(path: Path, holder: str) -> None:
    say(f"{path}: another process is decoding these images; waiting for it")


def _build(path: Path, layout: Layout, decode: Decode, confirm: Callable[[], None], description: str) -> None:
    unfinished = partial_path(path)
    fd = open_write(unfinished, create=True)
    try:
        claim(fd)  # so that `decant cache gc` does not remove it
        file = BlockFile(fd, layout, unfinished)
        _fill(file, layout, _begun(file, layout.header), decode, description)
        confirm()
        file.publish(path)
    except DataError:
        unfinished.unlink(missing_ok=True)  # once the image files are corrected, the key is another
        raise
    finally:
        os.close(fd)


def _begun(file: BlockFile, header: bytes) -> NDArray[np.uint64]:
    """The entries of an unfinished file, 0 for each block that is not written; creates the file if it is new."""
    if not file.was_created(header):
        try:
            file.create(header)
        except StorageError:
            file.path.unlink()  # what room there was is free again
            raise
    entries = file.read_entries()
    file.forget_damaged(entries)
    return entries


def _fill(
    file: BlockFile, layout: Layout, entries: NDArray[np.uint64], decode: Decode, description: str
) -> None:
    """Decodes and writes every block that has no entry, on all cores: the decoder lets go of the interpreter's lock."""

    def write(block: int) -> int:
        first, end = layout.bounds(block)
        file.write_block(block, np.ascontiguousarray(decode(np.arange(first, end))).data)
        return end - first

    missing = np.flatnonzero(entries == 0).tolist()
    with progress(description, layout.count) as advance, ThreadPoolExecutor(os.cpu_count()) as pool:
        written = (layout.bounds(block) for block in np.flatnonzero(entries).tolist())
        advance(sum(end - first for first, end in written))
        for start in range(0, len(missing), _BLOCKS_AT_ONCE):  # a task for each of all would fill the memory
            for count in pool.map(write, missing[start : start + _BLOCKS_AT_ONCE]):
                advance(count)
