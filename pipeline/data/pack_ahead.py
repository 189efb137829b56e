"""A pack that is filled while it is read: threads decode ahead of the reader, which begins at once, and the pack is
published when they are done.
"""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache import StorageError
from decant.pipeline.data.decode_ahead import DecodeAhead
from decant.pipeline.data.decode_process import Destination, shared_pixels
from decant.pipeline.data.decode_processes import FEWEST_CORES, DecodeProcesses, FilesOf
from decant.pipeline.data.image_pack import Decode, Layout, Pack, partial_path
from decant.pipeline.data.listed_reader import ListedReader
from decant.pipeline.data.pack_filling import Filling, find_or_fill
from decant.pipeline.data.thread_count import fixed_count
from decant.pipeline.errors import DataError
from decant.pipeline.ranks.cores import available_cores
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.progress import progress

_SYNC_BYTES = 64 << 20
"""That are written before the disk is made to take them, so that little is left to wait for at the end."""
_POLL_SECONDS = 0.05


def find_or_fill_ahead(
    path: Path,
    layout: Layout,
    decode: Decode,
    confirm: Callable[[], None],
    description: str,
    required: bool = False,
    listed: Listed | None = None,
) -> Pack | FilledAhead:
    """The pack at `path`, or where there is none, one that is filled while it is read. Takes and raises what
    `pack_filling.find_or_build` does. required: a pack that cannot be written is an error; else it is said, and the
    images are decoded without one. listed: the files that `decode` decodes, which other processes may then decode.
    """
    known = _being_filled.get((os.getpid(), path))
    if known is not None and not known.has_ended:
        return known
    found = find_or_fill(path, layout, decode)
    if isinstance(found, Pack):
        return found
    filled = FilledAhead(found, decode, confirm, description, required, listed)
    _being_filled[os.getpid(), path] = filled
    return filled


class Listed(NamedTuple):
    """Image files that other processes can decode."""

    reader: ListedReader
    files: FilesOf

    def processes(
        self, layout: Layout, descriptors: tuple[int, ...], pack: Path | None = None
    ) -> DecodeProcesses:
        """Those that decode into an unfinished pack, or into memory, which the descriptors are open files of."""
        return DecodeProcesses(Destination(layout, self.reader, descriptors, pack), self.files)


class FilledAhead:
    """The images of a pack while it is filled, and then of the pack. Several processes may fill one, as those of
    `pack_filling` do. Pickled, it is its path.
    """

    def __init__(
        self,
        filling: Filling,
        decode: Decode,
        confirm: Callable[[], None],
        description: str,
        required: bool,
        listed: Listed | None = None,
    ) -> None:
        self.layout, self.path = filling.layout, filling.path
        self._filling, self._decode, self._confirm = filling, decode, confirm
        self._description, self._required = description, required
        processes = (
            None if listed is None else listed.processes(self.layout, filling.descriptors, filling.path)
        )
        self._ahead = DecodeAhead(
            self.layout.num_blocks, self._make, self._close, self._sync, processes=processes
        )
        self._pack: Pack | None = None
        self._unpackable, self._synced = False, 0

    def __reduce__(self) -> tuple[Any, ...]:
        return self._filling.__reduce__()

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """(B, C, H, W): a copy. Waits until the blocks of these are decoded. Raises what has gone wrong with any image
        until now.
        """
        if self._pack is not None:
            return self._pack.images(indices)
        self._raise_error()
        if not self._unpackable:
            blocks = np.unique(indices // self.layout.per_block).tolist()
            try:
                if len(indices) > 1:  # one alone is read for its shape
                    self._ahead.want(blocks)
                self._ahead.require(blocks)
                return self._filling.images(indices)
            except (OSError, StorageError) as error:
                self._go_on_without(error)
        count = fixed_count(available_cores())
        with ThreadPoolExecutor(count) as pool:
            parts = [part for part in np.array_split(indices, count) if len(part)]
            return np.concatenate(list(pool.map(self._decode, parts)))

    @property
    def has_ended(self) -> bool:
        """Whether nothing more is decoded here, as the pack is there or something has gone wrong."""
        return self._pack is not None or self._unpackable or self._ahead.error is not None

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """With `checksums` waits until the pack is published. Raises what has gone wrong, DataError where image files
        have changed while they were decoded, and CorruptError where the pack is no longer what was read from it.
        """
        if checksums:
            # They are too where images were read one by one, and no thread has begun.
            if all(self._ahead.done):
                self._ahead.want(())
            with progress(self._description, self.layout.count) as advance:
                self._ahead.finish(lambda blocks: advance(blocks * self.layout.per_block))
        self._raise_error()
        if self._pack is not None:
            self._pack.check_unchanged(checksums=checksums)

    def _raise_error(self) -> None:
        error = self._ahead.error
        if isinstance(error, OSError | StorageError):
            self._go_on_without(error)
        elif error is not None:
            raise error

    def _go_on_without(self, error: OSError | StorageError) -> None:
        """From here on images are decoded when they are read. Raises the error where a pack is required."""
        if self._required:
            raise error
        self._unpackable = True
        self._ahead.stop()
        say_once(f"{error}; the images are decoded without a pack", f"without {self.path}")

    def _make(self, block: int) -> bool:
        """Decodes and stores a block, unless it is stored and sound; False where another process is about to."""
        try:
            return self._filling.store(block, check=True)
        except DataError:
            self._forget()
            raise

    def _sync(self) -> None:
        written = self._ahead.done.count(1) * self.layout.per_block * self.layout.image_bytes
        if written - self._synced >= _SYNC_BYTES:
            self._synced = written
            self._filling.sync()

    def _close(self) -> None:
        """Publishes the pack, unless another process has removed the file, as one does whose images are damaged."""
        filling = self._filling
        try:
            while not filling.publish(self._confirm):
                if not filling.is_begun:
                    self._confirm()
                    return
                for block in filling.missing():  # another process has found them damaged
                    while not filling.store(block):
                        time.sleep(_POLL_SECONDS)
        except DataError:
            self._forget()
            raise
        filling.give_up()
        self._pack = Pack(self.path, self.layout)

    def _forget(self) -> None:
        """Removes the unfinished file: once the images are corrected, the key is another."""
        partial_path(self.path).unlink(missing_ok=True)


_being_filled: weakref.WeakValueDictionary[tuple[int, Path], FilledAhead] = weakref.WeakValueDictionary()
"""By process and path, as threads of one process are not held off each other by the locks of blocks."""


class HeldAhead:
    """Images in memory, decoded in threads while they are read. Of a process that is forked, or gets it pickled, each
    decodes what it reads.
    """

    def __init__(self, layout: Layout, decode: Decode, listed: Listed | None = None) -> None:
        """listed: the files that `decode` decodes, which other processes may then decode."""
        self.layout, self._decode = layout, decode
        shared = None if listed is None else _shared_memory(layout)
        processes = None
        if listed is None or shared is None:
            self._pixels = np.empty((layout.count, *layout.image_shape), np.uint8)
        else:
            memory, self._pixels = shared
            weakref.finalize(self, os.close, memory)
            processes = listed.processes(layout, (memory,))
        self._ahead = DecodeAhead(layout.num_blocks, self._make, processes=processes)

    def __reduce__(self) -> tuple[Any, ...]:
        return HeldAhead, (self.layout, self._decode)

    def images(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """(B, C, H, W): a copy. Waits until these are decoded. Raises what has gone wrong with any image until now."""
        self.check_unchanged()
        blocks = np.unique(indices // self.layout.per_block).tolist()
        if len(indices) > 1:
            self._ahead.want(blocks)
        self._ahead.require(blocks)
        return self._pixels[indices]

    def check_unchanged(self, *, checksums: bool = False) -> None:
        """Raises what has gone wrong with any image until now."""
        if self._ahead.error is not None:
            raise self._ahead.error

    def _make(self, block: int) -> bool:
        first, end = self.layout.bounds(block)
        self._pixels[first:end] = self._decode(np.arange(first, end))
        return True


def _shared_memory(layout: Layout) -> tuple[int, NDArray[np.uint8]] | None:
    """An open file that is memory for all images, and these; None where there is none such, or processes would not need
    it. It has no name, and is gone with the processes that have it open.
    """
    if available_cores() < FEWEST_CORES or not hasattr(os, "memfd_create"):
        return None
    memory = -1
    try:
        memory = os.memfd_create("decoded images")
        os.ftruncate(memory, layout.pixel_bytes)
        return memory, shared_pixels(layout, memory)
    except OSError:
        if memory >= 0:
            os.close(memory)
        return None
