"""Reading a mapped file where it can no longer be read: the signal of the system becomes a mark on the file.

Where a mapped file was cut short, or its disk fails, touching its pages raises SIGBUS, which ends the process, or a
whole notebook, without a word. Python's own signal handlers cannot help, as the instruction that failed is tried again
first. So a handler of the C library is set: it puts pages of zeros where the file cannot be read, and marks the file,
whose reader looks at the mark before it hands out what it read. A signal that is of no file here goes to the handler
that was set before. On systems other than Linux on x86-64 and ARM64 nothing is set.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import platform
import signal
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

AVAILABLE = sys.platform == "linux" and platform.machine() in ("x86_64", "aarch64")
"""Whether the layout of what the C library is given below is known."""

_ADDRESS = 16  # where `siginfo_t` has the address that could not be read
_WITH_INFO = 4  # SA_SIGINFO
_FIXED = 0x10  # MAP_FIXED
_FAILED = ctypes.c_void_p(-1).value
_PAGE = mmap.PAGESIZE


class Guarded(Protocol):
    """What is mapped."""

    lost: bool
    """Whether a part of it could not be read."""

    def readable_bytes(self) -> int:
        """How many bytes from its beginning on the file still has."""


class _Action(ctypes.Structure):
    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ulong * (1024 // (8 * ctypes.sizeof(ctypes.c_ulong)))),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


_mappings: dict[int, tuple[int, weakref.ref[Guarded]]] = {}
"""First address → (end, what is mapped there)."""
_previous = _Action()
_is_set = False
_line: bytes | None = None
"""What is said of a fault in memory that nothing here has mapped."""


def watch(mapped: Guarded, address: int, length: int) -> None:
    """Has faults in these bytes of memory mark `mapped`, for as long as it lives.

    >>> import numpy as np
    >>> class Held:
    ...     lost = False
    >>> mapped, held = Held(), np.zeros(8192, np.uint8)
    >>> watch(mapped, held.ctypes.data, held.nbytes)
    >>> del mapped
    """
    global _is_set
    _mappings[address] = (address + length, weakref.ref(mapped))
    weakref.finalize(mapped, _mappings.pop, address, None).atexit = False
    _is_set = False  # whoever starts a process may set handlers after this; the first to read sets it


def guard() -> None:
    """Sets the handler in this process, unless that was done. To be called before a mapped file is read.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from decant.cache.io.mapped import MappedFile
    >>> file = tempfile.NamedTemporaryFile()
    >>> size = file.truncate(8192)
    >>> mapped = MappedFile(file.fileno(), size, Path(file.name))
    >>> guard()
    >>> size = file.truncate(0)
    >>> mapped[5000], mapped.lost
    (0, True)
    >>> file.close()
    """
    global _is_set
    if _is_set or not AVAILABLE:
        return
    action, before = (
        _Action(handler=ctypes.cast(_handler, ctypes.c_void_p).value, flags=_WITH_INFO),
        _Action(),
    )
    if _libc.sigaction(signal.SIGBUS, ctypes.byref(action), ctypes.byref(before)) == 0:
        if before.handler != action.handler:
            ctypes.memmove(ctypes.byref(_previous), ctypes.byref(before), ctypes.sizeof(_Action))
        _is_set = True


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Ends the process with one line about `path` and exit code 1 where a file that a library maps cannot be read; it
    would end without a word.

    >>> from pathlib import Path
    >>> with naming(Path("weights.safetensors")):
    ...     pass
    """
    global _line
    guard()
    before, _line = _line, f"decant: {path}: was cut short, or its disk failed, while it was read\n".encode()
    try:
        yield
    finally:
        _line = before


def set_again() -> None:
    """Has the next `guard` set the handler: another may have been set since, as in a new worker of a DataLoader.

    >>> set_again()
    """
    global _is_set
    _is_set = False


def _on_signal(number: int, info: int, context: int) -> None:
    """Runs where an instruction could not read memory, which is tried again after it."""
    with contextlib.suppress(BaseException):  # an error here would have it tried again for ever
        address = ctypes.c_size_t.from_address(info + _ADDRESS).value
        for first, (end, reference) in list(_mappings.items()):
            mapped = reference()
            if first <= address < end and mapped is not None:
                mapped.lost = True
                page = address - address % _PAGE
                last = end if mapped.readable_bytes() <= page - first else page + _PAGE
                flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _FIXED
                if _libc.mmap(page, last - page, mmap.PROT_READ, flags, -1, 0) != _FAILED:
                    return
        if _line is not None:
            os.write(2, _line)
            os._exit(1)
    _libc.sigaction(number, ctypes.byref(_previous), None)


if AVAILABLE:
    _libc = ctypes.PyDLL(None)  # which keeps the interpreter's lock
    _libc.mmap.restype = ctypes.c_void_p
    _libc.mmap.argtypes = (
        *(ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int),
        *(ctypes.c_int, ctypes.c_int, ctypes.c_long),
    )
    _handler = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(_on_signal)
    os.register_at_fork(after_in_child=set_again)
