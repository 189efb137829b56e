"""A process whose system refuses calls, as the file systems of clusters, clouds and containers do: by seccomp, in the
kernel, so that whatever makes the call is refused. Linux on x86-64 and ARM alone.
"""

from __future__ import annotations

import ctypes
import mmap
import platform
import struct
import sys
from collections.abc import Mapping

_NUMBERS = {
    "x86_64": {"mmap": (9,), "flock": (73,), "link": (86, 265), "fallocate": (285,), "fchmod": (91,)},
    "aarch64": {"mmap": (222,), "flock": (32,), "link": (37,), "fallocate": (47,), "fchmod": (52,)},
}
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_PROTECTION, _FLAGS = 16 + 8 * 2, 16 + 8 * 3  # where the third and the fourth argument of a call lie
_NO_NEW_RIGHTS, _SECCOMP, _FILTER = 38, 22, 2  # of prctl


def known() -> bool:
    """Whether calls can be refused here."""
    return sys.platform == "linux" and platform.machine() in _NUMBERS


def refuse(calls: Mapping[str, int]) -> None:
    """Has the system refuse these calls in this thread and what it starts, each with its errno, from now on. Of "mmap"
    those that would share the memory of a file to read it. Raises OSError.
    """
    code: list[tuple[int, int, int, int]] = []  # (what to do, steps where it is so, steps where not, value)
    for name, number_of_error in calls.items():
        refusal = (_RETURN, 0, 0, _ERRNO | number_of_error)
        for number in _NUMBERS[platform.machine()][name]:
            code.append((_LOAD, 0, 0, 0))
            if name == "mmap":
                shared, to_read = (_EQUAL, 0, 3, mmap.MAP_SHARED), (_EQUAL, 0, 1, mmap.PROT_READ)
                code += [(_EQUAL, 0, 5, number), (_LOAD, 0, 0, _FLAGS), shared, (_LOAD, 0, 0, _PROTECTION)]
                code += [to_read, refusal]
            else:
                code += [(_EQUAL, 0, 1, number), refusal]
    code.append((_RETURN, 0, 0, _ALLOW))
    filters = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in code))
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(filters))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_RIGHTS, 1, 0, 0, 0) or libc.prctl(_SECCOMP, _FILTER, program, 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp")
