"""The tables that say where the rows of each sample begin: read, and checked before a row is looked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import FormatError
from decant.cache.format.tables import Table, offset_axes
from decant.cache.io.system import pread
from decant.cache.manifest import Manifest
from decant.cache.positions import Axis

_PIECE = 1 << 23  # bytes that are read at once


def read_offsets(
    fd: int, manifest: Manifest, tables: Mapping[str, Table], path: str
) -> dict[str, NDArray[np.int64]]:
    """(N + 1,) by the name of the table, of the file that `fd` has open; none where all samples have equally many rows.

    A copy: whoever changes the file does not change it. Raises FormatError, naming the sample, for offsets that fall or
    go too far, and where their SHA-256 is not that of the identity.
    """
    return {name: _read(fd, name, tables[name], axis, path) for name, axis in offset_axes(manifest).items()}


def _read(fd: int, name: str, table: Table, axis: Axis, path: str) -> NDArray[np.int64]:
    """The ends are looked at before memory is taken: a file of holes may say that it has any number of samples."""
    ends = [int.from_bytes(pread(fd, 8, at), "little") for at in (table.offset, table.end - 8)]
    if ends != [0, axis.count]:
        raise FormatError(f"{path}: `{name}`: expected 0 to {axis.count:,}, found {ends[0]:,} to {ends[1]:,}")
    digest, parts, before = hashlib.sha256(), [], 0
    for at in range(table.offset, table.end, _PIECE):
        content = pread(fd, min(_PIECE, table.end - at), at)
        digest.update(content)
        part = np.frombuffer(content, "<u8")
        if part[0] < before or (part[1:] < part[:-1]).any() or part[-1] > axis.count:
            first = (at - table.offset) // 8
            bad = int(np.flatnonzero(np.r_[part[0] < before, part[1:] < part[:-1]] | (part > axis.count))[0])
            raise FormatError(
                f"{path}: `{name}`: sample {first + bad}: must not fall, or exceed {axis.count:,}, found {part[bad]}"
            )
        before = int(part[-1])
        parts.append(part.astype("<i8"))
    if digest.hexdigest() != axis.sha256:
        raise FormatError(
            f"{path}: `{name}` is not as the manifest says: SHA-256 expected {axis.sha256}, found "
            f"{digest.hexdigest()}; fetch or build the file again"
        )
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
