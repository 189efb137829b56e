"""Which rows of an unfinished file are written, where their blocks are not whole yet.

Beside an unfinished file each process that writes into it has a file of marks: a log of (sample, view, CRC-32 of the
row), 16 bytes each, appended after the row's bytes. A row counts as written where its bytes agree with a mark of it. So
a kill between row and mark, a mark that reached the disk without its row, and two processes that wrote one row with
different roundings all end in a row that is as one of them wrote it, or in one that is written again. Marks are read
when a file is gone on with or published, and are no part of what is published.
"""

from __future__ import annotations

import contextlib
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import StorageError
from decant.cache.format.batch import Batch, batch_lengths
from decant.cache.format.blocks import Blocks, StoredRows
from decant.cache.io.checksum import crc32
from decant.cache.io.files import write_all
from decant.cache.io.opening import NotAFileError, create_new, read_file
from decant.cache.io.partial import MARKS, marks_of
from decant.cache.io.system import close_quietly

_MARK = np.dtype([("sample", "<u8"), ("view", "<u4"), ("crc32", "<u4")])


class RowMarks:
    """The marks that one process appends; their file is made with the first of them.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> unfinished = Path(folder.name, "toy.h5.host-1.partial")
    >>> marks = RowMarks(unfinished)
    >>> marks.append(2, np.array([5, 6]), np.array([111, 222]))
    >>> [tuple(mark) for mark in read_marks(unfinished).tolist()]
    [(5, 2, 111), (6, 2, 222)]
    >>> marks.close()
    >>> folder.cleanup()
    """

    def __init__(self, unfinished: Path) -> None:
        self._path = unfinished.with_name(f"{unfinished.name}.{secrets.token_hex(4)}{MARKS}")
        self._fd, self._end = -1, 0

    def append(self, view: int, samples: NDArray[np.integer], crc32: NDArray[np.integer]) -> None:
        """Marks rows as written, whose bytes are in the file.

        The space of rows is reserved, that of marks is not. Where the disk is full they stay unmarked: the rows of
        blocks that are not whole then have to be written by one process, and again after a kill.
        """
        marks = np.empty(len(samples), _MARK)
        marks["sample"], marks["view"], marks["crc32"] = samples, view, crc32
        with contextlib.suppress(OSError, StorageError):
            if self._fd < 0:
                self._fd = create_new(self._path)
            write_all(self._fd, marks.tobytes(), self._end, self._path)
        self._end += marks.nbytes

    def close(self) -> None:
        """Closes the file of marks; it stays for whoever goes on."""
        if self._fd >= 0:
            close_quietly(self._fd)
            self._fd = -1


def read_marks(unfinished: Path) -> NDArray[Any]:
    """All marks of an unfinished file, by whichever process: a structured array of sample, view and crc32."""
    found = [np.empty(0, _MARK)]
    for path in marks_of(unfinished):
        with contextlib.suppress(FileNotFoundError, PermissionError, NotAFileError):
            content = read_file(path, follow=False, most=sys.maxsize)  # 16 bytes a row, of any number of rows
            found.append(np.frombuffer(content[: len(content) // _MARK.itemsize * _MARK.itemsize], _MARK))
    return np.concatenate(found)


def row_crc32(blocks: Blocks, batch: Batch) -> NDArray[np.uint32]:
    """(B,): the CRC-32 of each sample's rows over all tables, in the order in which those of blocks run over them."""
    count = len(batch.samples)
    found = np.empty(count, np.uint32)
    tables = [(content, starts.tolist()) for content, starts in map(batch.bytes_of, blocks.given)]
    for place in range(count):
        crc = 0
        for content, starts in tables:
            crc = crc32(content[starts[place] : starts[place + 1]], crc)
        found[place] = crc
    return found


def marked_rows(stored: StoredRows, marks: NDArray[Any], wanted: NDArray[np.bool_]) -> Iterator[Batch]:
    """Rows of the (V, N) `wanted` ones whose bytes agree with a mark, a block at a time."""
    blocks = stored.blocks
    inside = (marks["view"] < wanted.shape[0]) & (marks["sample"] < wanted.shape[1])
    marks = marks[inside]
    marks = marks[wanted[marks["view"], marks["sample"]]]
    if not len(marks):
        return
    number = marks["view"].astype(np.int64) * blocks.per_view + blocks.of(marks["sample"].astype(np.int64))
    order = np.argsort(number, kind="stable")
    for part in np.split(order, np.flatnonzero(np.diff(number[order])) + 1):
        view, block = divmod(int(number[part[0]]), blocks.per_view)
        first, end = blocks.bounds(block)
        places = marks["sample"][part].astype(np.int64) - first
        unique, back = np.unique(places, return_inverse=True)
        chosen = read_batch(stored, view, first, end).pick(unique)
        agree = np.zeros(len(unique), bool)
        np.logical_or.at(agree, back, row_crc32(blocks, chosen)[back] == marks["crc32"][part])
        if agree.any():
            yield chosen.pick(np.flatnonzero(agree))


def read_batch(stored: StoredRows, view: int, first: int, end: int) -> Batch:
    """The rows of samples `first` to `end` − 1 of a view, of every table that is written sample by sample."""
    blocks, samples = stored.blocks, np.arange(first, end)
    rows = {table: stored.read_array(table, view, first, end) for table in blocks.given}
    axes = {table: blocks.columns[table].axis for table in rows}
    return Batch(samples, view, rows, batch_lengths(axes, blocks.axes, samples))
