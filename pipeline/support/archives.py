"""Zip archives, as PyTorch and NumPy write them: whether they unpack to more than a file of theirs holds."""

from __future__ import annotations

import contextlib
import io
import zipfile
from typing import BinaryIO

_TIMES = 50
"""Compressed arrays of numbers are seldom a tenth of what they hold; a bomb is a thousandth of it."""
_ALWAYS = 64 << 20  # bytes that any archive may unpack to


def require_fair(file: BinaryIO) -> None:
    """Raises ValueError where the members of a zip archive say that they unpack to many times the bytes of the file.
    Any other file is left to whoever reads it. The file is then at its begin.

    >>> zeros = io.BytesIO()
    >>> with zipfile.ZipFile(zeros, "w", zipfile.ZIP_DEFLATED) as archive:
    ...     archive.writestr("zeros.npy", bytes(200 << 20))
    >>> require_fair(zeros)
    Traceback (most recent call last):
    ValueError: it unpacks to 209,715,200 bytes, from ...
    """
    file.seek(0)
    packed = file.read(2) == b"PK"
    size, unpacked = file.seek(0, io.SEEK_END), 0
    if packed:
        with contextlib.suppress(zipfile.BadZipFile, ValueError, NotImplementedError, OSError):
            unpacked = sum(member.file_size for member in zipfile.ZipFile(file).infolist())
    file.seek(0)
    if unpacked > max(_ALWAYS, _TIMES * size):
        raise ValueError(f"it unpacks to {unpacked:,} bytes, from {size:,}")
