"""Arrays of a .npz file that lie in it as they are, mapped: a file may have more of them than memory."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from decant.cache.io import bus_errors
from decant.cache.io.checksum import crc32
from decant.cache.io.mapped import MappedFile
from decant.cache.io.opening import open_read

_LOCAL_HEADER = 30  # bytes of one, before its name
_ENCRYPTED = 1
_PIECE = 1 << 22  # bytes whose checksum is taken at once


def stored_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """By name, those arrays of a .npz file that are neither compressed nor objects. Read-only. The checksum of each is
    compared; what is wrong with one is left to whoever reads it whole, which finds it too.
    """
    found = {}
    with open_read(path) as file, zipfile.ZipFile(file) as archive:
        size = file.seek(0, 2)
        mapped = MappedFile(file.fileno(), size, path)
        bus_errors.guard()
        for member in archive.infolist():
            if member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & _ENCRYPTED:
                array = _array(file, mapped, member, size)
                if array is not None:
                    found[member.filename.removesuffix(".npy")] = array
    return found


def _array(file: BinaryIO, mapped: MappedFile, member: zipfile.ZipInfo, size: int) -> NDArray[Any] | None:
    """None where it is no array that can be mapped."""
    file.seek(member.header_offset)
    header = file.read(_LOCAL_HEADER)
    if len(header) < _LOCAL_HEADER or header[:4] != b"PK\3\4":
        return None
    names = int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    begin = member.header_offset + _LOCAL_HEADER + names
    end = begin + member.file_size
    if member.file_size != member.compress_size or end > size or _checksum(mapped, begin, end) != member.CRC:
        return None
    file.seek(begin)
    try:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, fortran, dtype = read[version](file)
        if dtype.hasobject or fortran:
            return None
        array: NDArray[Any] = np.ndarray(shape, dtype, mapped, file.tell())
    except (KeyError, ValueError, TypeError, OverflowError):
        return None
    return array if file.tell() + array.nbytes == end else None


def _checksum(mapped: MappedFile, begin: int, end: int) -> int:
    found = 0
    with memoryview(mapped) as content:
        for first in range(begin, end, _PIECE):
            found = crc32(content[first : min(first + _PIECE, end)], found)
    return found
