"""The lock of a run folder: one process makes what is in it, others wait for it and use what was made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from decant.cache.io import locks
from decant.cache.io.opening import require_folder
from decant.pipeline.support.notices import say


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder, or of a file in one. While another process holds it, says so once on stderr and
    waits; the lock of a process that died is free.

    Look inside again for what is to be made: the other process may have made it. Raises StorageError if the lock
    cannot be created, OSError if the folder is a link: what is written would land elsewhere.
    """

    def say_waiting(holder: str) -> None:
        say(f"waiting: {holder} is making {folder}")

    require_folder(folder)
    if folder.name.startswith("seed-"):  # the folder of all seeds is made by this program too
        require_folder(folder.parent)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locks.exclusive(_lock_of(folder), say_waiting):
        yield


def holder(folder: Path) -> str | None:
    """The process that holds the lock of a folder, as in "process 4711 on gpu01"; None if there is none."""
    return locks.holder(_lock_of(folder))


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
