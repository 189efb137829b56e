"""Whole files into the mirror: looked at first, fetched block by block, visible there when every block is right."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import CorruptError, FormatError, MismatchError, OfflineError, RemoteError, warn
from decant.cache.format import hdf5
from decant.cache.format.blocks import Blocks
from decant.cache.format.shared_tables import check_shared_tables
from decant.cache.io.block_checks import BlockChecks
from decant.cache.io.files import read_all, replacing, storage_error, write_all
from decant.cache.io.locks import exclusive, lock_path, shared, try_exclusive
from decant.cache.io.opening import is_file, open_read
from decant.cache.io.system import allocated_bytes, pread
from decant.cache.manifest import Manifest
from decant.cache.remote import mirror
from decant.cache.remote.filling import Filling
from decant.cache.remote.folder import NoRangesError, RemoteFolder, Stat, attempt
from decant.cache.remote.head import Head, content_tag, read_entries, read_head, same_content
from decant.cache.remote.progress import transfer

Require = Callable[[Manifest, str], None]
"""Looks at the manifest of a file before its rows are asked for; raises CacheError. Is given its address to show."""


def require_nothing(manifest: Manifest, shown: str) -> None:
    """Takes any cache."""


def require_key(key: str) -> Require:
    """Takes a cache of this key alone."""

    def require(manifest: Manifest, shown: str) -> None:
        if manifest.key != key:
            raise MismatchError(
                f"{shown}: does not hold what its name says: key expected {key}, found {manifest.key}"
            )

    return require


def fetch(
    folder: RemoteFolder, name: str, into: Path, require: Require = require_nothing, *, check: bool = False
) -> Path:
    """The path of a whole, checked copy of a file in the folder `into` of the mirror, fetched if need be.

    Header, identity and seal are checked before the rest is asked for, each block as it arrives. A fetch that was
    killed goes on. check: also checks every block of a copy that is there. Where the store cannot be reached, a copy
    that is there is used, which is said. Raises FileNotFoundError, CacheError.
    """
    mirror.require_plain(name, folder.file_shown(name))
    target = into / name
    try:
        stat = folder.stat(name)
    except OfflineError as error:
        return _offline(target, error, require, check)
    if stat is None:
        raise FileNotFoundError(f"{folder.file_shown(name)}: no such cache")
    mirror.prepare(into)
    if (
        is_file(target, follow=False)
        and mirror.source_of(target) == stat[:2]
        and not (check and _damaged(target))
    ):
        _require(target, require, folder.file_shown(name))
        return target
    try:
        return _fetch_blocks(folder, name, stat, target, require, check=check)
    except NoRangesError:
        return _fetch_whole(folder, name, stat, target, require)


def prepare_filling(
    folder: RemoteFolder, name: str, stat: Stat, target: Path, require: Require
) -> tuple[Head, NDArray[np.uint64], Path]:
    """Looks at a file before its rows are asked for: its header, its checksums, and where its copy lies that is not
    whole yet, for which there is room then.
    """
    head = read_head(folder, name, stat)
    require(head.manifest, head.shown)
    entries = read_entries(folder, name, head)
    path = target.with_name(f"{target.name}.{content_tag(head, entries)}{mirror.FETCHING}")
    held = _allocated(path)
    mirror.make_room(max(0, stat.size - held), path, head.shown)
    return head, entries, path


def is_same(target: Path, head: Head, entries: NDArray[np.uint64]) -> bool:
    """Whether the copy at `target` has this content, as its header and its checksums say."""
    if not is_file(target, follow=False):
        return False
    with open_read(target, follow=False) as file:
        return same_content(file, head, entries)


def _fetch_blocks(
    folder: RemoteFolder, name: str, stat: Stat, target: Path, require: Require, *, check: bool
) -> Path:
    head, entries, path = prepare_filling(folder, name, stat, target, require)
    with (
        exclusive(lock_path(path.with_name(f"{path.name}.pull")), lambda holder: None),
        shared(lock_path(path)),
    ):
        if not (is_same(target, head, entries) and not (check and _damaged(target))):
            existed = path.exists()
            filling = Filling(folder, name, head, entries, path)
            try:
                everything = range(filling.blocks.num_blocks)
                missing = filling.copy.missing(everything) if existed else everything
                total = sum(end - first for number in missing for first, end in filling.blocks.ranges(number))
                with transfer(f"fetching {name}", total) as advance:
                    filling.fetch_most(missing, advance)
                filling.copy.publish(target)
            finally:
                filling.copy.close()
        mirror.remember_source(target, head.shown, stat.size, stat.tag)
        with contextlib.suppress(OSError):
            lock_path(path.with_name(f"{path.name}.pull")).unlink()
    with try_exclusive(lock_path(path)) as free, contextlib.suppress(OSError):
        if free:  # the copy has its own name now, and no reader holds it by this one
            lock_path(path).unlink()
    return target


def _fetch_whole(folder: RemoteFolder, name: str, stat: Stat, target: Path, require: Require) -> Path:
    """From a server that sends whole files alone: everything first, then the checks."""
    shown = folder.file_shown(name)
    mirror.make_room(max(0, stat.size), target, shown)
    most = mirror.limit()
    try:
        with replacing(target) as draft:

            def begin() -> None:
                at = 0
                os.ftruncate(draft.fileno(), 0)
                with transfer(f"fetching {name}", max(0, stat.size)) as advance:

                    def write(piece: bytes) -> None:
                        nonlocal at
                        if at + len(piece) > most:
                            raise RemoteError(
                                f"{shown}: sends more than the {most:,} bytes that copies may take"
                            )
                        write_all(draft.fileno(), piece, at, target)
                        at += len(piece)
                        advance(len(piece))

                    folder.copy_to(name, write, stat.tag)

            attempt(shown, begin)
            layout = hdf5.check(draft, shown)
            require(layout.manifest, shown)
            try:
                check_shared_tables(
                    layout, lambda first, end: read_all(draft.fileno(), end - first, first, target)
                )
            except FormatError as error:
                raise CorruptError(f"{shown}: {error}; it was damaged there, or on its way") from None
            blocks = Blocks(layout)
            damaged = BlockChecks(
                blocks, lambda first, end: pread(draft.fileno(), end - first, first)
            ).check_all()
            if damaged:
                raise CorruptError(
                    f"{shown}: {blocks.name(*divmod(damaged[0], blocks.per_view))} is not as it was written; it was "
                    "damaged there, or on its way"
                )
        target.chmod(target.stat().st_mode & 0o444)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not error.errno:
            raise
        raise storage_error(error, target, "fetching") from error
    mirror.remember_source(target, shown, stat.size, stat.tag)
    return target


def _offline(target: Path, error: OfflineError, require: Require, check: bool) -> Path:
    """The copy that is there, which is said; raises the error where there is none."""
    if not is_file(target, follow=False):
        raise OfflineError(f"{error}; no local copy of {target.name} is there") from None
    _require(target, require, str(target))
    if check and _damaged(target):
        raise OfflineError(f"{error}; the local copy {target} is damaged") from None
    warn(f"{error}; the local copy {target} is used")
    return target


def _require(target: Path, require: Require, shown: str) -> None:
    if require is not require_nothing:
        with open_read(target, follow=False) as file:
            require(hdf5.check(file, str(target)).manifest, shown)


def _damaged(target: Path) -> bool:
    """Whether a block of a copy is not as it was written, or its structure is damaged."""

    try:
        with open_read(target, follow=False) as file:
            layout = hdf5.check(file, str(target))
            check_shared_tables(
                layout, lambda first, end: read_all(file.fileno(), end - first, first, target)
            )
            blocks = Blocks(layout)
            return bool(
                BlockChecks(blocks, lambda first, end: pread(file.fileno(), end - first, first)).check_all()
            )
    except (OSError, FormatError):
        return True


def _allocated(path: Path) -> int:

    try:
        return allocated_bytes(path.stat())
    except OSError:
        return 0
