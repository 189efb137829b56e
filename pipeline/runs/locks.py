"""The lock of a run folder: one process trains a network, others are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from decant.cache.io import locks
from decant.pipeline.errors import BusyError


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[None]:
    """Holds the lock of a run folder. Raises BusyError, with the process that holds it, and StorageError if the lock
    cannot be created. The lock of a process that died is free.
    """

    def refuse(holder: str) -> None:
        raise BusyError(f"{folder}: {holder} is making this; wait for it, then run the command again")

    folder.parent.mkdir(parents=True, exist_ok=True)
    with locks.exclusive(_lock_of(folder), refuse):
        yield


def holder(folder: Path) -> str | None:
    """The process that holds the lock of a folder, as in "process 4711 on gpu01"; None if there is none."""
    return locks.holder(_lock_of(folder))


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.lock")
