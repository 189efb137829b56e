"""What is read of a file before the rest is asked for: its header, whose seal is checked, and its table of
checksums.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import CorruptError, FormatError, IncompleteError, RemoteError
from decant.cache.format import hdf5
from decant.cache.format.blocks import Blocks
from decant.cache.format.shared_tables import check_shared_tables
from decant.cache.format.tables import SEAL_BYTES, Layout, Table, offset_axes
from decant.cache.io.system import pwrite
from decant.cache.manifest import Manifest
from decant.cache.remote.folder import RemoteFolder, Stat
from decant.cache.remote.threads import asking

_FIRST = 1 << 16  # bytes that are asked for at once: most headers are shorter
_LAST = 3 << 14  # the same of the end, where the seal is and before it the checksums
_LARGEST = 1 << 20  # of a header
_PIECE = 8 << 20


@dataclass(frozen=True)
class Head:
    """The checked header of a file elsewhere."""

    shown: str
    """The address of the file, for messages."""
    stat: Stat
    layout: Layout
    header: bytes
    seal: bytes
    offsets: Mapping[str, bytes] = field(default_factory=dict)
    """The tables that no block has: of samples with several positions each, those that say where the rows of each
    begin; and those that all rows share, as the head of hidden states.
    """
    ending: bytes = b""
    """The last bytes of the file, as many as were read with the seal."""

    @property
    def manifest(self) -> Manifest:
        """What the file holds."""
        return self.layout.manifest

    @cached_property
    def blocks(self) -> Blocks:
        """Where its blocks lie."""
        return Blocks(self.layout)

    def write_to(self, fd: int) -> None:
        """Gives an empty file its length, the header and the seal; all between is a hole."""
        os.ftruncate(fd, self.stat.size)
        pwrite(fd, self.header, 0)
        pwrite(fd, self.seal, self.stat.size - len(self.seal))
        for name, content in self.offsets.items():
            pwrite(fd, content, self.layout.tables[name].offset)

    def beside_blocks(self, entries: NDArray[np.uint64]) -> Iterator[tuple[int, bytes]]:
        """First byte and content of everything in the file that no block has: header, checksums, seal, tables that all
        rows share, and the zeros between tables.
        """
        yield 0, self.header
        yield self.blocks.entries_offset, entries.tobytes()
        yield self.stat.size - len(self.seal), self.seal
        for name, content in self.offsets.items():
            yield self.layout.tables[name].offset, content
        for table, after in pairwise(self.layout.tables.values()):
            yield table.end, bytes(after.offset - table.end)


def read_head(folder: RemoteFolder, name: str, stat: Stat) -> Head:
    """Reads the header of a file and checks it against its seal and the format, by two requests at once of some tens
    of KiB; of a few files by more. No row is read. Raises FormatError, RemoteError, NoRangesError.
    """
    shown = folder.file_shown(name)
    if not SEAL_BYTES < stat.size < 1 << 44:
        size = "does not say how long it is" if stat.size < 0 else f"has {stat.size:,} bytes"
        raise FormatError(f"{shown}: {size}, so not a cache")
    with asking(2) as pool:
        asked = pool.submit(folder.read, name, max(0, stat.size - _LAST), stat.size, stat.tag)
        header = folder.read(name, 0, min(_FIRST, stat.size), stat.tag)
        ending = asked.result()
    seal = ending[-SEAL_BYTES:]
    length = int.from_bytes(seal[:8], "little")
    if len(header) < length <= min(_LARGEST, stat.size):
        header += folder.read(name, len(header), length, stat.tag)
    # Of a header that is too short or too long, `check` says what is wrong.
    header = header[:length] if 64 <= length <= len(header) else header[:_FIRST]
    with tempfile.TemporaryFile() as file:
        head = Head(shown, stat, Layout.__new__(Layout), header, seal, ending=ending)
        try:
            head.write_to(file.fileno())
        except OSError as error:
            raise RemoteError(f"{shown}: says that it has {stat.size:,} bytes: {error.strerror}") from None
        layout = hdf5.check_header(file, shown)
        head = replace(head, layout=layout)
        head = replace(head, offsets=_read_beside(folder, name, head))
        head.write_to(file.fileno())
        return replace(head, layout=hdf5.check(file, shown))


def _read_beside(folder: RemoteFolder, name: str, head: Head) -> dict[str, bytes]:
    """The tables that no block has. Those that all rows share are asked for once more where they are not as they must
    be: what comes through a network may be changed on its way. Raises CorruptError.
    """
    found = {
        table: _read_table(folder, name, head.layout.tables[table], head)
        for table in offset_axes(head.manifest)
    }
    for known in (head, replace(head, ending=b"")):
        once = {
            table: _read_table(folder, name, head.layout.tables[table], known)
            for table in head.manifest.encoding.once(head.manifest.num_outputs)
        }
        at = {head.layout.tables[table].offset: content for table, content in once.items()}
        try:
            check_shared_tables(head.layout, lambda first, end, at=at: at[first])  # type: ignore[misc]
            break
        except FormatError as error:
            if known is not head:
                raise CorruptError(
                    f"{head.shown}: {error}, in two answers of the store; it was damaged or replaced there"
                ) from None
    return {**found, **once}


def read_entries(folder: RemoteFolder, name: str, head: Head) -> NDArray[np.uint64]:
    """The table `blocks`, (num_blocks,). Raises IncompleteError where a block was never written."""
    content = _read_table(folder, name, head.layout.tables["blocks"], head)
    entries: NDArray[np.uint64] = np.frombuffer(content, "<u8")
    missing = int(np.count_nonzero(entries == 0))
    if missing:
        raise IncompleteError(
            f"{head.shown}: {missing:,} of {len(entries):,} blocks are not written; fetch it elsewhere"
        )
    return entries


def _read_table(folder: RemoteFolder, name: str, table: Table, head: Head) -> bytes:
    """A whole table, of which the end may have been read with the seal."""
    known = head.stat.size - len(head.ending)  # bytes from here on are known
    stop = max(table.offset, min(table.end, known))
    starts = range(table.offset, stop, _PIECE)
    pieces = [folder.read(name, start, min(stop, start + _PIECE), head.stat.tag) for start in starts]
    return b"".join([*pieces, head.ending[max(0, table.offset - known) : max(0, table.end - known)]])


def content_tag(head: Head, entries: NDArray[np.uint64]) -> str:
    """A name for the content of the whole file, of which header and checksums are a digest."""
    return hashlib.sha256(head.header + head.seal + entries.tobytes()).hexdigest()[:16]


def same_content(file: BinaryIO, head: Head, entries: NDArray[np.uint64]) -> bool:
    """Whether a local file has this header and these checksums."""
    if os.fstat(file.fileno()).st_size != head.stat.size:
        return False
    for first, content in (
        (0, head.header),
        (head.stat.size - len(head.seal), head.seal),
        (head.blocks.entries_offset, entries.tobytes()),
    ):
        file.seek(first)
        if file.read(len(content)) != content:
            return False
    return True
