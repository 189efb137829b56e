"""The lock of a run's folder: one process makes a network, the others are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from decant.cache.io import locks
from decant.pipeline.errors import BusyError


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Keeps other processes from the same folder; a dead one keeps nobody. Raises BusyError, saying who is there;
    StorageError where the lock cannot be made.
    """

    def refuse(holder: str) -> None:
        raise BusyError(f"{folder}: {holder} is making this; wait for it, then run the command again")

    folder.parent.mkdir(parents=True, exist_ok=True)
    with locks.exclusive(_lock_of(folder), refuse):
        yield


def holder(folder: Path) -> str | None:
    """The process that is alone with a folder, as "process 4711 on gpu01"; None where none is known to be."""
    return locks.holder(_lock_of(folder))


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
