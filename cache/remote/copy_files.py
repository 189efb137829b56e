"""The file of a local copy: made, opened to be filled whatever a kill or a power cut left of it, and given its name."""

from __future__ import annotations

import contextlib
import errno
import os
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import RemoteError, warn
from decant.cache.io import usage
from decant.cache.io.drafts import create_draft, remove_dead_drafts
from decant.cache.io.files import read_all, storage_error, sync_folder, sync_or_drop, write_all
from decant.cache.io.opening import NotAFileError, is_file, is_named, open_write
from decant.cache.io.partial import NO_HARD_LINKS, make_writable
from decant.cache.io.system import protect
from decant.cache.remote import mirror
from decant.cache.remote.head import Head

_PATIENCE_SECONDS, _POLL_SECONDS = 5.0, 0.01  # for another process that makes the copy, or names it


def open_copy(path: Path, head: Head, entries: NDArray[np.uint64]) -> int:
    """A descriptor of the copy at `path`, which is made if need be, and in which everything that no block has is as it
    must be. Raises StorageError.
    """
    try:
        fd = _open(path, head, entries)
        try:
            _restore(fd, head, entries, path)
        except BaseException:
            os.close(fd)
            raise
    except OSError as error:
        raise storage_error(error, path, "making the local copy") from error
    return fd


def _open(path: Path, head: Head, entries: NDArray[np.uint64]) -> int:
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        if not path.exists():
            _create(path, head, entries)
        try:
            make_writable(path)
            return open_write(path)
        except (FileNotFoundError, NotAFileError) as error:
            # It has got its own name just now, or still has that of its draft, as where its maker was killed.
            if error.errno not in (errno.ENOENT, errno.EMLINK) or time.monotonic() > until:
                raise
            remove_dead_drafts(path)
            time.sleep(_POLL_SECONDS)


def _create(path: Path, head: Head, entries: NDArray[np.uint64]) -> None:
    """Makes a copy that has header, checksums and seal, and no block; where another process makes one, that stays."""
    remove_dead_drafts(path)
    draft, fd = create_draft(path)
    try:
        head.write_to(fd)
        write_all(fd, entries.tobytes(), head.blocks.entries_offset, path)
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in NO_HARD_LINKS:
                raise
            os.rename(draft, path)
    finally:
        draft.unlink(missing_ok=True)
        os.close(fd)


def _restore(fd: int, head: Head, entries: NDArray[np.uint64], path: Path) -> None:
    """Writes once more what no block of a copy has, where it is not as it must be: bits may change while nobody fills
    it, and a power cut may leave it a file of zeros, or cut short.
    """
    if os.fstat(fd).st_size != head.stat.size:
        os.ftruncate(fd, head.stat.size)
    for first, content in head.beside_blocks(entries):
        if read_all(fd, len(content), first, path) != content:
            write_all(fd, content, first, path)


def publish_copy(fd: int, path: Path, target: Path, shown: str) -> None:
    """Gives a whole copy, which `fd` has open and `path` named, the name `target` in one step, and protects it. Raises
    StorageError; where it cannot be synced, it is dropped. RemoteError where it was removed meanwhile.
    """
    sync_or_drop(fd, path)
    own = mirror.is_unpushed(target) and is_file(target, follow=False)
    try:
        if not _renamed(fd, path, target) and not is_file(target, follow=False):
            raise RemoteError(f"{path}: was removed while it was filled; run the same command again")
        sync_folder(target.parent)
    except OSError as error:
        raise storage_error(error, target, "publishing the local copy") from error
    if own and is_named(fd, target):
        mirror.mark_unpushed(target, False)
        warn(
            f"{target}: was built here, and {shown}, which another process has published, has other logits of the "
            "same key; that file has taken its place"
        )


def _renamed(fd: int, path: Path, target: Path) -> bool:
    """Gives this very copy the name `target`; False where it has lost its own: another process was first, or it was
    removed, and another may have been begun under that name since.
    """
    with contextlib.suppress(FileNotFoundError):
        if is_named(fd, path):
            os.replace(path, target)
            usage.hand_on(path, target)
            protect(fd)  # not before: whoever goes on where this one was killed could not write it
            return True
    return False
