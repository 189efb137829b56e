"""Files that are mapped into memory to be read, and what may happen to them meanwhile.

A mapped file is read through the file that was opened: one that is deleted or replaced by another is read on. One that
is written to in place, or cut short, is another file from then on, also where it was read before.
"""

from __future__ import annotations

import errno
import mmap
import os
import sys
import weakref
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from decant.cache.io import bus_errors

Name = Literal["same", "deleted", "replaced"]
"""What a name leads to now: the file that was opened, none, or another."""


class Stamp(NamedTuple):
    """What the system notes of a file; each write changes it."""

    size: int
    written: int
    """When it was last written to, in nanoseconds; a program may set that to any time."""
    changed: int
    """When it, or what is noted of it, was last changed; also a new name, or other permissions."""


class MappedFile(mmap.mmap):
    """The first bytes of an open file, mapped to be read.

    >>> import tempfile
    >>> file = tempfile.NamedTemporaryFile()
    >>> file.write(b"rows"), file.flush()
    (4, None)
    >>> mapped = MappedFile(file.fileno(), 4, Path(file.name))
    >>> before = mapped.stamp()
    >>> mapped[:2], before.size, mapped.name()
    (b'ro', 4, 'same')
    >>> file.truncate(1), mapped.stamp() == before
    (1, False)
    >>> file.close()
    >>> mapped.name()
    'deleted'
    """

    path: Path
    _absolute: Path
    _fd: int
    lost: bool
    """Whether a part of it could not be read; what was read there is zeros."""

    def __new__(cls, fd: int, length: int, path: Path) -> MappedFile:
        """Maps the first `length` bytes. Raises OSError, ValueError where the file has fewer."""
        own_only = {"trackfd": False} if sys.version_info >= (3, 13) else {}
        try:
            self = super().__new__(cls, fd, length, access=mmap.ACCESS_READ, **own_only)
        except OSError as error:
            if error.errno != errno.ENODEV or not hasattr(mmap, "MAP_PRIVATE"):
                raise
            # A file system that shares no memory, as those of FUSE that keep nothing of a file in it.
            self = super().__new__(cls, fd, length, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ, **own_only)
        self.path, self.lost = path, False
        self._absolute = path.absolute()  # the working folder may be another by then
        own = os.dup(fd)  # which is closed with the mapping, and which forked processes have too
        self._fd = own
        weakref.finalize(self, os.close, own).atexit = False
        bus_errors.watch(self, np.frombuffer(self, np.uint8, 1).ctypes.data, length)
        return self

    def stamp(self) -> Stamp:
        """What the system notes of the open file. Raises OSError."""
        status = os.fstat(self._fd)
        return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)

    def renamed(self, path: Path) -> None:
        """Notes that the file has another name now."""
        self.path, self._absolute = path, path.absolute()

    def name(self) -> Name:
        """What the path leads to now; "same" also where nobody can tell."""
        try:
            there = os.stat(self._absolute)
            return "same" if os.path.samestat(os.fstat(self._fd), there) else "replaced"
        except (FileNotFoundError, NotADirectoryError):
            return "deleted"
        except OSError:
            return "same"

    def readable_bytes(self) -> int:
        """How many bytes from its beginning on the file still has."""
        try:
            return os.fstat(self._fd).st_size
        except OSError:
            return 0
