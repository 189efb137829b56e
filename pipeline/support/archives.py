"""Zip archives, as PyTorch and NumPy write them: whether they unpack to more than a file of theirs holds, and whether
they are as they were written.
"""

from __future__ import annotations

import contextlib
import io
import zipfile
import zlib
from typing import BinaryIO

_TIMES = 50
"""Compressed arrays of numbers are seldom a tenth of what they hold; a bomb is a thousandth of it."""
_ALWAYS = 64 << 20  # bytes that any archive may unpack to
_FOLDER = 0x10
"""Among the attributes of a member: PyTorch writes no folder, and reads nothing of what says that it is one."""


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


def require_intact(file: BinaryIO) -> None:
    """Raises ValueError where a member of a zip archive does not agree with its checksum, which PyTorch writes and does
    not look at when it reads. Any other file is left to whoever reads it. The file is then at its begin.

    >>> archive = io.BytesIO()
    >>> with zipfile.ZipFile(archive, "w") as written:
    ...     written.writestr("data/0", b"weights")
    >>> damaged = io.BytesIO(archive.getvalue().replace(b"weights", b"weightz"))
    >>> require_intact(archive), require_intact(damaged)
    Traceback (most recent call last):
    ValueError: data/0 in it is not as it was written
    """
    file.seek(0)
    if file.read(2) == b"PK":
        try:
            with zipfile.ZipFile(file) as archive:
                folders = (member.filename for member in archive.infolist() if member.external_attr & _FOLDER)
                damaged = next(folders, None) or archive.testzip()
        except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error) as error:
            raise ValueError(f"it is not as it was written ({error})") from None
        if damaged is not None:
            raise ValueError(f"{damaged} in it is not as it was written")
    file.seek(0)
