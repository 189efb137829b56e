"""What of a store can be removed: files that nobody has used for long, and what killed builders left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from decant.cache.io import usage
from decant.cache.io.files import DRAFT, storage_error
from decant.cache.io.locks import in_use
from decant.cache.io.partial import PARTIAL
from decant.cache.io.system import CLOEXEC, allocated_bytes
from decant.cache.store.local import Store

DAY = 86_400.0


@dataclass(frozen=True)
class Leftover:
    """A file that can go, and why."""

    path: Path
    bytes: int
    reason: str


def leftovers(store: Store, unused_days: float, also: Sequence[str] = ()) -> Iterator[Leftover]:
    """What `remove_leftover` would remove: never a file that a process is known to use or to write.

    store: its caches are looked through, and the files that the patterns `also` find below its folder, as
    "packs/*.pack"; they must be built, locked and used as caches are (`decant.cache.io`).
    unused_days: how long nobody must have used a file. Unfinished files count after a day.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> list(leftovers(Store(folder.name), unused_days=30, also=["packs/*.pack"]))
    []
    >>> folder.cleanup()
    """
    now = time.time()
    for path in [*store.paths(), *(path for pattern in also for path in sorted(store.root.glob(pattern)))]:
        try:
            idle = (now - usage.last(path)) / DAY
        except FileNotFoundError:  # another process has removed it just now
            continue
        if idle >= unused_days:
            with usage.unused(path) as free:
                found = free
            if found:
                yield Leftover(path, _allocated(path), f"not used for {idle:,.0f} days")
    unfinished = (f"*{PARTIAL}", f"*{DRAFT}", *(f"{pattern}{PARTIAL}" for pattern in also))
    for path in [path for pattern in unfinished for path in sorted(store.root.glob(pattern))]:
        try:
            idle = (now - path.stat().st_mtime) / DAY
        except FileNotFoundError:  # published or removed just now
            continue
        if idle >= min(1.0, unused_days) and not _written(path):
            yield Leftover(path, _allocated(path), f"unfinished, and left alone for {idle:,.1f} days")


def remove_leftover(leftover: Leftover) -> bool:
    """Removes the file unless a process has begun to use it; returns whether it is gone. Raises StorageError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> Path(folder.name, "digits.h5").write_bytes(b"rows")
    4
    >>> [remove_leftover(found) for found in leftovers(Store(folder.name), unused_days=0)]
    [True]
    >>> folder.cleanup()
    """
    try:
        if leftover.path.name.endswith((PARTIAL, DRAFT)):
            if _written(leftover.path):
                return False
            leftover.path.unlink(missing_ok=True)
            return True
        with usage.unused(leftover.path) as free:
            if free:
                leftover.path.unlink(missing_ok=True)
                usage.forget(leftover.path)
            return free
    except OSError as error:
        raise storage_error(error, leftover.path, "removing") from error


def _written(path: Path) -> bool:
    """Whether a living process is known to write an unfinished file."""
    try:
        fd = os.open(path, os.O_RDONLY | CLOEXEC)
    except OSError:
        return True  # not ours to judge
    try:
        return in_use(fd)
    finally:
        os.close(fd)


def _allocated(path: Path) -> int:
    try:
        return allocated_bytes(path.stat())
    except FileNotFoundError:
        return 0
