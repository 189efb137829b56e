"""A partial file, as it is begun, and as it is found by whoever goes on with it or joins it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

from numpy.typing import NDArray

from decant.cache.encodings import Head, Hidden
from decant.cache.errors import CacheError, FormatError, StorageError, ValueRefusedError
from decant.cache.format import hdf5
from decant.cache.format.blocks import StoredRows
from decant.cache.format.tables import Layout, expected_size
from decant.cache.identities import require_equal
from decant.cache.io import joint, locks, partial
from decant.cache.io.files import drafting, reserve, storage_error
from decant.cache.io.opening import create_new, open_read, require_file
from decant.cache.io.system import close_quietly
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


def hold_or_begin(
    path: Path, manifest: Manifest, positions: Positions | None, head: Head | None
) -> tuple[Path, int]:
    """The partial file of the cache at `path` that this process writes alone: one that is there, or a new one. Returns
    its name and a descriptor that has its lock. Raises CacheError where the cache is published, MismatchError where an
    unfinished file of it has another identity, and what `begin` raises.
    """
    _require_unpublished(path, manifest)
    return partial.hold(path) or _begin_again(partial.new_name, path, manifest, positions, head)


def join_or_begin(
    path: Path, manifest: Manifest, positions: Positions | None, head: Head | None
) -> tuple[Path, int, bool]:
    """The partial file of the cache at `path` that several processes write together: its name, a descriptor, and
    whether nobody else writes it now. Raises what `hold_or_begin` raises.
    """
    _require_unpublished(path, manifest)
    with locks.in_turn(path.parent):
        found = joint.join_one(path)
        if found is not None:
            return found
        if path.exists():
            _refuse_published(path)
        return (*_begin_again(joint.new_joint_name, path, manifest, positions, head), True)


@contextlib.contextmanager
def named_failure(path: Path) -> Iterator[None]:
    """Raises a CacheError for an OSError within it, where a partial file of the cache at `path` cannot be made or
    opened: whoever publishes the cache meanwhile, and could not see this process, removes all that was begun of it.
    """
    try:
        yield
    except OSError as error:
        if path.is_file():
            raise CacheError(
                f"{path}: another process has published it just now; run the same command again, it is found"
            ) from error
        raise storage_error(error, path, "opening its partial file") from error


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
        code = re.search(r"errno = (\d+)", str(error))
        if code is None:
            raise StorageError(f"{name}: creating: {error}; free some space and run it again") from error
        said = OSError(int(code[1]), os.strerror(int(code[1])))
        raise storage_error(said, name, f"creating {expected_size(manifest):,} bytes") from error
    except BaseException:
        if fd >= 0:
            close_quietly(fd)
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


def _require_unpublished(path: Path, manifest: Manifest) -> None:
    """Raises where `path` is published, or unfinished files of it are of another identity. Makes its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if os.path.lexists(path):
        require_file(path)
        partial.finish_publishing(path)
        _refuse_published(path)
    for other in partial.begun(path):
        with contextlib.suppress(FormatError, PermissionError, FileNotFoundError):
            check_begun(other, manifest)


def _refuse_published(path: Path) -> NoReturn:
    raise CacheError(f"{path}: already published; a published cache is never written again")


def _begin_again(
    new_name: Callable[[Path], Path],
    path: Path,
    manifest: Manifest,
    positions: Positions | None,
    head: Head | None,
) -> tuple[Path, int]:
    """Begins a partial file, once more where another process has taken its draft for one that nobody writes."""
    try:
        return begin(new_name(path), manifest, positions, head, path=path)
    except FileNotFoundError:
        if path.exists():
            raise
        return begin(new_name(path), manifest, positions, head, path=path)


def _require_room(draft: Path, size: int, path: Path) -> None:
    """Raises StorageError where the disk has no room for a file of `size` bytes, the header of `path`. HDF5 would fail
    in the middle of it, and keep the file open.
    """
    fd = create_new(draft)
    try:
        reserve(fd, size, path)
    finally:
        close_quietly(fd)
        draft.unlink()
