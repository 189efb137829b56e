"""Which blocks of an unfinished file have reached the disk, so that whoever goes on with it need not read them back.

An entry that a killed process has written is right: its block was in the file before. After a power cut it may be on
the disk without its block. So whoever goes on reads back the blocks that were written since the last sync, and no
others. To tell these apart, each process that writes into an unfinished file has a log beside it: after each sync it
appends the blocks that were synced, (block, entry) in 16 bytes each. A block counts as synced where the file has the
very entry of the log.

This spares reading; that what is published is whole does not rest on it. Publishing reads every block.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import StorageError
from decant.cache.io.files import sync_folder, write_all
from decant.cache.io.opening import NotAFileError, create_new, read_file
from decant.cache.io.partial import SYNCED, synced_of
from decant.cache.io.system import close_quietly

SYNC_BYTES = 64 << 20
"""What a process writes until it syncs: as much may have to be read back of what it wrote."""
START_BYTES = 8 << 20
"""What a process writes until the disk begins to take it."""

_RECORD = np.dtype([("block", "<u8"), ("entry", "<u8")])


class SyncedBlocks:
    """The blocks that one process has finished and synced; their log is made with the first of them.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> unfinished = Path(folder.name, "toy.h5.host-1.partial")
    >>> synced = SyncedBlocks(unfinished)
    >>> synced.finished(block=2, entry=7, nbytes=100), synced.are_due()
    (None, False)
    >>> synced.append()  # after the file was synced
    >>> read_synced(unfinished, np.array([5, 6, 7, 8], "u8")).tolist()
    [False, False, True, False]
    >>> synced.close()
    >>> folder.cleanup()
    """

    def __init__(self, unfinished: Path) -> None:
        self._path = unfinished.with_name(f"{unfinished.name}.{secrets.token_hex(4)}{SYNCED}")
        self._fd, self._end = -1, 0
        self._blocks: list[tuple[int, int]] = []
        self._nbytes = self._started = 0

    def finished(self, block: int, entry: int, nbytes: int) -> None:
        """Takes note of a block of `nbytes` whose entry is written and that is not synced yet."""
        self._blocks.append((block, entry))
        self._nbytes += nbytes

    def are_due(self) -> bool:
        """Whether so much was written that it is time to sync the file."""
        return self._nbytes >= SYNC_BYTES

    def start_is_due(self) -> bool:
        """Whether so much was written since this was last so that the disk may begin to take it."""
        due = self._nbytes - self._started >= START_BYTES
        if due:
            self._started = self._nbytes
        return due

    def append(self) -> None:
        """Records every block that is noted: the file was synced just now. What the disk does not take is left out, and
        read back.
        """
        records = np.array(self._blocks, _RECORD)
        self._blocks, self._nbytes, self._started = [], 0, 0
        if not len(records):
            return
        with contextlib.suppress(OSError, StorageError):
            if self._fd < 0:
                self._fd = create_new(self._path)
                # What has no name after a power cut would be lost all the same.
                sync_folder(self._path.parent)
            write_all(self._fd, records.tobytes(), self._end, self._path)
        self._end += records.nbytes

    def close(self) -> None:
        """Closes the log; it stays for whoever goes on."""
        if self._fd >= 0:
            close_quietly(self._fd)
            self._fd = -1


def read_synced(unfinished: Path, entries: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """(num_blocks,): which written blocks of an unfinished file were synced as `entries` (num_blocks,) has them, by
    whichever processes; of unwritten ones it says nothing.

    >>> read_synced(Path("toy.h5.host-1.partial"), np.array([0, 7], "u8")).tolist()
    [False, False]
    """
    synced = np.zeros(len(entries), np.bool_)
    for path in synced_of(unfinished):
        with contextlib.suppress(FileNotFoundError, PermissionError, NotAFileError):
            # 16 bytes a block, of any number of them.
            content = read_file(path, follow=False, most=sys.maxsize)
            records: NDArray[Any] = np.frombuffer(
                content[: len(content) // _RECORD.itemsize * _RECORD.itemsize], _RECORD
            )
            records = records[records["block"] < len(entries)]
            same = entries[records["block"]] == records["entry"]
            synced[records["block"][same]] = True
    return synced
