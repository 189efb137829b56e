"""Files that are filled in place, block by block: reserved whole, resumed after a kill, checked when they are read.

The entry of a block (`block_layout`) is written after its bytes. So a damaged block is recognised: if a kill cut it
short, or it never reached the disk, or it changed there, its entry is 0 or differs from its CRC-32.

Cache files and packs of decoded images are such files; each says in a `BlockLayout` where its blocks lie.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import IncompleteError
from decant.cache.io.block_checks import damaged_blocks
from decant.cache.io.block_layout import WRITTEN, BlockLayout
from decant.cache.io.checksum import crc32
from decant.cache.io.files import read_all, reserve, sync_folder, sync_or_drop, write_all
from decant.cache.io.opening import is_named
from decant.cache.io.system import protect


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
        damaged = damaged_blocks(self.layout, self.read, looked_at)
        for block in damaged:
            self.write_entry(block, 0)
            entries[block] = 0
        return damaged

    def sync(self) -> None:
        """Makes what was written durable. Raises StorageError where that fails, and then removes the file."""
        sync_or_drop(self.fd, self.path)

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
        if is_named(self.fd, self.path):  # and no file that was begun under this name since
            with contextlib.suppress(FileNotFoundError):
                os.rename(self.path, path)  # the step that publishes: every block is written and synced
        sync_folder(path.parent)
        protect(self.fd)
