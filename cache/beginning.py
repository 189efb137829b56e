"""A partial file, as it is begun, and as it is found by whoever goes on with it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

from numpy.typing import NDArray

from decant.cache.encodings import Head, Hidden
from decant.cache.errors import FormatError, StorageError, ValueRefusedError
from decant.cache.format import hdf5
from decant.cache.format.blocks import StoredRows
from decant.cache.format.tables import Layout
from decant.cache.identities import require_equal
from decant.cache.io import locks
from decant.cache.io.files import drafting, reserve
from decant.cache.io.opening import create_new, open_read
from decant.cache.manifest import Manifest
from decant.cache.positions import Positions

Known: TypeAlias = Mapping[str, NDArray[Any]]
"""Tables that are given when a cache is begun, by name."""


def known_tables(positions: Positions | None, head: Head | None) -> dict[str, NDArray[Any]]:
    """The tables that are given when a cache is begun: those of positions and of a head.

    >>> known_tables(None, None)
    {}
    """
    known = {} if positions is None else positions.tables()
    return known if head is None else {**known, **head.tables()}


def begin(
    name: Path, manifest: Manifest, positions: Positions | None, head: Head | None, *, path: Path
) -> tuple[Path, int]:
    """Makes the partial file `name` of the cache at `path`; returns its name and a descriptor that has its lock.

    Its header is whole, and this process has its lock, before it has its name; so is what is known of positions, and a
    head. Raises ValueRefusedError where these are needed and not given, StorageError where the disk lacks the space.
    """
    if head is None and isinstance(manifest.encoding, Hidden):
        raise ValueRefusedError(f"{path}: head: needed to begin it, as it is to hold hidden states")
    if manifest.positions is not None and positions is None:
        raise ValueRefusedError(f"{path}: positions: needed to begin it, as its manifest has positions")
    fd = -1
    try:
        with drafting(name) as draft:
            _require_room(draft, hdf5.header_room(manifest), name)
            created, fd = hdf5.create(draft, manifest, known_tables(positions, head))
            locks.claim(fd)
            reserve(fd, created.size, name)
            StoredRows(fd, created, name).mark_empty_blocks()
            os.fsync(fd)
    except RuntimeError as error:  # what h5py raises where a file cannot grow to its size on closing
        raise StorageError(f"{name}: creating: {error}; free some space and run it again") from error
    except BaseException:
        if fd >= 0:
            os.close(fd)
        raise
    return name, fd


def check_begun(path: Path, manifest: Manifest) -> Layout:
    """The layout of a file that must have the same identity. Raises FormatError, MismatchError."""
    with open_read(path) as file:
        try:
            found = hdf5.check(file, str(path))
        except FormatError as error:
            raise type(error)(f"{error}; delete it and run the command again") from None
    require_equal(
        manifest.identity,
        found.manifest.identity,
        subject=f"{path}: was begun with another identity",
        hint="Delete it, or go on with the settings that it was begun with.",
    )
    return found


def _require_room(draft: Path, size: int, path: Path) -> None:
    """Raises StorageError where the disk has no room for a file of `size` bytes, the header of `path`. HDF5 would fail
    in the middle of it, and keep the file open.
    """
    fd = create_new(draft)
    try:
        reserve(fd, size, path)
    finally:
        os.close(fd)
        draft.unlink()
