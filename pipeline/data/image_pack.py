"""The pack: the images of a split, decoded once into one file that every process maps into memory.

A page with key and shape, the pixels (N, C, H, W) uint8, then a table with an entry for each block of images
(`decant.cache.io.blockfile`). Until every block is written and synced the file is `NAME.pack.partial`; then it takes
its name and is never written again. Who makes it: `decant.pipeline.data.pack_filling`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.io import bus_errors
from decant.cache.io.block_checks import BlockChecks
from decant.cache.io.mapped import MappedFile
from decant.cache.io.opening import open_read, read_start
from decant.cache.io.partial import PARTIAL
from decant.cache.io.unchanged import Unchanged
from decant.pipeline.errors import DamagedError

SUFFIX = ".pack"
FOLDER = "packs"  # of a store, beside its caches
IN_STORE = f"{FOLDER}/*{SUFFIX}"
"""Where the packs of a store lie, for whoever removes those that nobody uses."""
ITEMS_IN_STORE = f"{FOLDER}/items-*{SUFFIX}"
"""Those that serve one job, which removes them; what is there after a day is of a job that was killed."""

_FORMAT = 1  # to be counted up when `decant.pipeline.data.image_decode` makes other pixels of the same file
_BEGINNING = b"decoded-pack "
_PAGE = 4096
_BLOCK_BYTES = 1 << 16  # of pixels, or one image where that is larger
_AGAIN = "delete it and run the same command again, which decodes the images anew"

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
        """Of one image."""
        return math.prod(self.image_shape)

    @property
    def pixel_bytes(self) -> int:
        """Of all images."""
        return self.count * self.image_bytes

    @property
    def per_block(self) -> int:
        """Images a block."""
        return max(1, _BLOCK_BYTES // self.image_bytes)

    @property
    def num_blocks(self) -> int:
        """Blocks of all images."""
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


def partial_path(path: Path) -> Path:
    """The unfinished file of the pack at `path`."""
    return path.with_name(path.name + PARTIAL)


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
