"""The local copies of files that lie elsewhere: where they are, how much room they may take, and which go first.

`$DECANT_CACHE_HOME`, or else the user's cache folder, has a folder for each store; a file there has the name that it
has in the store. One that is not whole yet is called NAME.CONTENT.fetching, after a digest of its header and checksums:
what is in it is right for that content or it is not, whoever wrote it and when, so that nothing else is to be
remembered.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from decant.cache.errors import RemoteError, StorageError
from decant.cache.io import usage
from decant.cache.io.files import storage_error, user_path, write_atomically
from decant.cache.io.opening import is_file, read_file
from decant.cache.io.system import allocated_bytes
from decant.cache.remote.addresses import Address

FETCHING = ".fetching"
"""Ends the name of a copy that is not whole yet."""
FETCHING_NAME = re.compile(r".+\.[0-9a-f]{16}\.fetching")
UNPUSHED = ".unpushed"
"""Ends the name of an empty file beside one that is not in its store yet: it is the only one there is."""
_SOURCE = ".source"
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([KMGT]?)I?B?", re.IGNORECASE)
_SHARE = 0.5  # of a disk that the copies may take, where nothing is said


def home() -> Path:
    """Where the copies of all stores lie. Raises StorageError where that is not said, and the user has no home folder.

    >>> before = os.environ.get("DECANT_CACHE_HOME")
    >>> os.environ["DECANT_CACHE_HOME"] = "/scratch/decant"
    >>> str(home())
    '/scratch/decant'
    >>> del os.environ["DECANT_CACHE_HOME"]
    >>> if before: os.environ["DECANT_CACHE_HOME"] = before
    """
    given = os.environ.get("DECANT_CACHE_HOME")
    if given:
        return user_path(given)
    usual = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_CACHE_HOME")
    if usual and sys.platform != "darwin":
        return Path(usual) / "decant"
    try:
        user = Path.home()
    except RuntimeError:  # a user of a container who is a number alone
        raise StorageError(
            "local copies: this user has no home folder; let DECANT_CACHE_HOME name a folder for them"
        ) from None
    return user / ("Library/Caches/decant" if sys.platform == "darwin" else ".cache/decant")


def folder_of(store: Address) -> Path:
    """Where the copies of a store's files lie; the same for any password and signature of its address."""
    return home() / "stores" / store.slug


def prepare(folder: Path) -> None:
    """Makes a folder of copies, for its owner alone. Raises StorageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise storage_error(
            error, folder, "making the folder of local copies ($DECANT_CACHE_HOME)"
        ) from error


def limit() -> int:
    """Bytes that all copies may take: `$DECANT_CACHE_LIMIT`, as 200GB, or else half of the disk. Raises StorageError
    for what is no size.
    """
    given = os.environ.get("DECANT_CACHE_LIMIT")
    if given:
        found = _SIZE.fullmatch(given.strip())
        if found is None:
            raise StorageError(f"DECANT_CACHE_LIMIT: expected a size as 200GB, found {given!r}")
        return int(float(found[1]) * _UNITS[found[2].upper()])
    there = next((folder for folder in (home(), *home().absolute().parents) if folder.is_dir()), Path("/"))
    return int(shutil.disk_usage(there).total * _SHARE)


class Copy(NamedTuple):
    """A file of the mirror, whole or not."""

    path: Path
    bytes: int
    used: float
    """When it was last used, in seconds since the epoch."""


def copies() -> list[Copy]:
    """All copies, those that were used longest ago first."""
    found = []
    for path in [*_files("*.h5"), *_files(f"*{FETCHING}")]:
        try:
            found.append(Copy(path, allocated_bytes(path.stat()), usage.last(path)))
        except OSError:  # gone just now
            continue
    return sorted(found, key=lambda copy: copy.used)


def make_room(needed: int, keep: Path, shown: str) -> None:
    """Removes the copies that were used longest ago until `needed` more bytes fit into the limit and on the disk: none
    that is used, none that is not in its store yet, and not `keep`. Raises StorageError where that would not be enough,
    and then removes none.
    """
    most, there = limit(), copies()
    total = sum(copy.bytes for copy in there)
    own = sum(copy.bytes for copy in there if copy.path == keep)
    free = shutil.disk_usage(keep.parent).free
    if own + needed > most:
        raise StorageError(
            f"{keep.parent}: {shown} needs {own + needed:,} bytes, more than the {most:,} that all copies may take; "
            "raise DECANT_CACHE_LIMIT"
        )
    if total + needed <= most and needed <= free:
        return
    idle = [copy for copy in there if copy.path != keep and _may_go(copy.path)]
    gain = sum(copy.bytes for copy in idle)
    if total - gain + needed <= most and needed <= free + gain:  # else all would be removed in vain
        for copy in idle:
            if evict(copy.path):
                total, free = total - copy.bytes, free + copy.bytes
            if total + needed <= most and needed <= free:
                return
    if needed > free:
        raise StorageError(
            f"{keep.parent}: {shown} needs {needed:,} bytes, {free:,} are free on the disk; free some, or let "
            "DECANT_CACHE_HOME name a folder of another disk"
        )
    if total + needed > most:
        raise StorageError(
            f"{keep.parent}: {shown} needs {needed:,} bytes; copies take {total:,} of the {most:,} that they may, "
            "and are in use; raise DECANT_CACHE_LIMIT"
        )


def evict(path: Path) -> bool:
    """Removes a copy that nobody uses, with what lies beside it; whether it is gone."""
    if is_unpushed(path):
        return False
    try:
        with usage.unused(path) as free:
            if free:
                path.unlink(missing_ok=True)
                usage.forget(path)
                _beside(path, _SOURCE).unlink(missing_ok=True)
            return free
    except OSError:  # another user's
        return False


def _may_go(path: Path) -> bool:
    """Whether `evict` would remove a copy now."""
    if is_unpushed(path):
        return False
    with usage.unused(path) as free:
        return free


def is_unpushed(path: Path) -> bool:
    """Whether a file waits to be published in its store."""
    return _beside(path, UNPUSHED).exists()


def mark_unpushed(path: Path, unpushed: bool) -> None:
    """Notes that a file is to be published in its store, before it is there, or that it was."""
    mark = _beside(path, UNPUSHED)
    try:
        mark.touch() if unpushed else mark.unlink(missing_ok=True)
    except OSError as error:
        raise storage_error(error, mark, "noting what is to be published") from error


def source_of(path: Path) -> tuple[int, str] | None:
    """Size and tag of the file elsewhere that a copy was made of; None where they are not known."""
    try:
        found = json.loads(read_file(_beside(path, _SOURCE), follow=False, most=1 << 16))
        size, tag = found["size"], found["tag"]
        return (size, tag) if isinstance(size, int) and isinstance(tag, str) and tag else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember_source(path: Path, shown: str, size: int, tag: str) -> None:
    """Notes what a copy was made of, so that one request says whether it still is the same."""
    text = json.dumps({"from": shown, "size": size, "tag": tag})
    try:
        write_atomically(_beside(path, _SOURCE), text.encode())
    except OSError as error:
        raise storage_error(error, path, "noting where it is from") from error


def require_plain(name: str, shown: str) -> None:
    """Raises RemoteError for a name of a file elsewhere that cannot be that of a file here."""
    if (
        not name
        or name in (".", "..")
        or name.startswith(".")
        or re.search(r"[/\\\0]", name)
        or len(name) > 200
    ):
        raise RemoteError(
            f"{shown}: the name of a file is expected, with at most 200 characters and no slash"
        )


def _files(pattern: str) -> Iterator[Path]:
    return (path for path in (home() / "stores").glob(f"*/{pattern}") if is_file(path, follow=False))


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)
