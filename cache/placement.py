"""Where encoded logits are read from: the file, mapped into memory, or a copy in memory."""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from decant.cache.format.tables import Layout, Table
from decant.cache.io.mapped import MappedFile
from decant.cache.io.system import available_memory, read_into

Placement = Literal["auto", "mapped", "ram"]
"""The mapped file, or a copy in memory; "auto" copies what lies on a network mount and fits into half of the memory."""

_PIECE = 64 << 20  # bytes of one sequential read
_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "lustre",
    "ceph",
    "glusterfs",
    "beegfs",
    "gpfs",
    "afs",
    "9p",
    "virtiofs",
}


class Content:
    """The bytes of a cache file: the file mapped into memory and, where so placed, a copy of the encoded logits."""

    def __init__(self, file: BinaryIO, layout: Layout, path: Path, placement: Placement) -> None:
        """Maps the file, and copies what `placement` says. Raises OSError, EOFError."""
        self.mapped = MappedFile(file.fileno(), layout.size, path)
        self._bytes = memoryview(self.mapped)
        self.stays_in_memory = True
        """Whether what was read of the file is likely to be there still when it is read again."""
        encoded = [layout.tables[name] for name in layout.encoded]
        self._start, self._end = encoded[0].offset, encoded[-1].end
        self._copy: NDArray[np.uint8] | None = None
        if resolve(placement, path, self._end - self._start) == "ram":
            self._copy = read_whole(file.fileno(), self._start, self._end - self._start)
        else:
            self.stays_in_memory = advise(self.mapped)

    def read(self, first: int, end: int) -> memoryview:
        """Bytes `first` to `end` − 1 of the file, without a copy."""
        if self._copy is not None and self._start <= first < self._end:
            return self._copy[first - self._start : end - self._start].data
        return self._bytes[first:end]

    @property
    def is_copied(self) -> bool:
        """Whether the encoded logits are a copy, which no change of the file can reach."""
        return self._copy is not None

    def array(self, table: Table) -> NDArray[Any]:
        """A table as an array over these bytes."""
        return np.frombuffer(self.read(table.offset, table.end), table.dtype).reshape(table.shape)


def resolve(placement: Placement, path: Path, nbytes: int) -> Literal["mapped", "ram"]:
    """What "auto" means for tables of `nbytes` in the file at `path`."""
    if placement != "auto":
        return placement
    return "ram" if on_network(path) and nbytes <= available_memory() // 2 else "mapped"


def read_whole(fd: int, offset: int, nbytes: int) -> NDArray[np.uint8]:
    """Reads (nbytes,) from `offset` on, in pieces large enough for a network mount. Raises OSError, EOFError."""
    content = np.empty(nbytes, np.uint8)
    done = 0
    while done < nbytes:
        count = read_into(fd, content[done : done + _PIECE].data, offset + done)
        if not count:
            raise EOFError(f"the file ends {nbytes - done:,} bytes early")
        done += count
    return content


def advise(mapped: mmap.mmap) -> bool:
    """Turns read-ahead off for a file larger than half of the memory that is free: rows are read at random. Whether it
    is not so large.
    """
    if len(mapped) <= available_memory() // 2:
        return True
    if hasattr(mmap, "MADV_RANDOM"):
        mapped.madvise(mmap.MADV_RANDOM)
    return False


@contextlib.contextmanager
def read_in_order(mapped: mmap.mmap) -> Iterator[None]:
    """Has the system read ahead in a mapped file while it is read from begin to end."""
    if not hasattr(mmap, "MADV_SEQUENTIAL"):
        yield
        return
    mapped.madvise(mmap.MADV_SEQUENTIAL)
    try:
        yield
    finally:
        mapped.madvise(mmap.MADV_NORMAL)
        advise(mapped)


def on_network(path: Path, mounts: Path = Path("/proc/self/mounts")) -> bool:
    """Whether the file lies on a network file system, by the nearest mount point above it; False where not known."""
    try:
        lines = [line.split() for line in mounts.read_text("utf-8", "surrogateescape").splitlines()]
    except OSError:
        return False
    above = {path.absolute(), *path.absolute().parents}
    kinds = [(len(place), kind) for _, place, kind, *_ in lines if Path(_unescaped(place)) in above]
    kind = max(kinds, default=(0, ""))[1]
    return kind in _NETWORK or kind.startswith("fuse.")


def _unescaped(place: str) -> str:
    """A mount point as the system writes it, with \\040 for a space."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        place = place.replace(code, chr(int(code[1:], 8)))
    return place
