"""What of a store can be removed: files that nobody has used for long, and what killed builders left behind."""

from __future__ import annotations

import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from decant.cache.errors import FormatError
from decant.cache.format import hdf5
from decant.cache.io import usage
from decant.cache.io.drafts import DRAFT
from decant.cache.io.files import storage_error
from decant.cache.io.locks import in_use, lock_path
from decant.cache.io.opening import is_file, kind, open_read
from decant.cache.io.partial import JOINED, MARKS, PARTIAL, SYNCED, logs_of
from decant.cache.io.system import allocated_bytes
from decant.cache.remote.mirror import FETCHING, FETCHING_NAME, is_unpushed
from decant.cache.store.local import SUFFIX, Store

DAY = 86_400.0
_DRAFT_NAME = re.compile(rf".+\.[0-9a-f]{{8}}{re.escape(DRAFT)}")
_LOG_NAME = re.compile(
    rf"(.+{re.escape(SUFFIX)}\.[\w-]+{re.escape(PARTIAL)})\.\w+({re.escape(MARKS)}|{re.escape(SYNCED)}|{re.escape(JOINED)})"
)
_PARTIAL_NAME = re.compile(rf".+{re.escape(SUFFIX)}\.[\w-]+{re.escape(PARTIAL)}")

IsOurs = Callable[[Path], bool]
"""Whether a file, finished or not, is one that this program wrote, by what is in it. Raises OSError."""
Kept = Callable[[Path, str], None]
"""Is told of a path that stays, and why."""


@dataclass(frozen=True)
class Leftover:
    """A file that can go, and why."""

    path: Path
    bytes: int
    reason: str


def leftovers(
    store: Store,
    unused_days: float,
    also: Mapping[str, IsOurs] | None = None,
    kept: Kept = lambda path, reason: None,
    passing: str | None = None,
) -> Iterator[Leftover]:
    """What `remove_leftover` would remove: never a file that a process is known to use or to write, and none that was
    not proved to be written by this program.

    store: its caches are looked through, and the files that the patterns of `also` find below its folder, as
    "packs/*.pack", each with what proves that a file is one; they must be built, locked and used as caches are
    (`decant.cache.io`). unused_days: how long nobody must have used a file. Unfinished files count after a day.
    kept: called with each path that has such a name and is something else, or cannot be looked at, and why. passing: a
    pattern of those of `also` that serve one job alone, and which also count after a day.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> Path(folder.name, "mine.h5").write_bytes(b"measurements")
    12
    >>> list(leftovers(Store(folder.name), unused_days=0, kept=lambda path, reason: print(path.name, reason)))
    mine.h5 not a cache
    []
    >>> folder.cleanup()
    """
    also = also or {}
    yield from _unused(store.root, unused_days, {f"*{SUFFIX}": _is_cache, **also}, kept, passing)
    yield from _unfinished(store.root, min(1.0, unused_days), {**_UNFINISHED, **_partial(also)}, kept)


def remove_leftover(leftover: Leftover) -> bool:
    """Removes the file unless a process has begun to use it; returns whether it is gone. Raises StorageError.

    >>> import tempfile
    >>> from decant.cache import LogitCacheWriter, Manifest
    >>> folder = tempfile.TemporaryDirectory()
    >>> with LogitCacheWriter(Path(folder.name, "toy.h5"), Manifest.build(num_samples=1, num_outputs=2)) as writer:
    ...     writer.write([0], [[0.5, 0.25]])
    ...     path = writer.publish()
    >>> [remove_leftover(found) for found in leftovers(Store(folder.name), unused_days=0)]
    [True]
    >>> folder.cleanup()
    """
    try:
        if leftover.path.name.endswith((PARTIAL, DRAFT, MARKS, SYNCED, JOINED)):
            return _remove_unfinished(leftover.path)
        with usage.unused(leftover.path) as free:
            if free:
                _unlink(leftover.path)
                usage.forget(leftover.path)
            return free
    except OSError as error:
        raise storage_error(error, leftover.path, "removing") from error


def _remove_unfinished(path: Path) -> bool:
    """Removes an unfinished file with its logs, unless a process writes it; whether it is gone. Raises OSError."""
    try:
        file = open_read(path, follow=False)
    except OSError:  # not ours to judge
        return False
    with file:
        if in_use(file.fileno()):  # where not, nobody takes it up until this closes it
            return False
        for log in logs_of(path) if path.name.endswith(PARTIAL) else ():
            _unlink(log)
        _unlink(path)
    return True


def _unused(
    root: Path, unused_days: float, published: Mapping[str, IsOurs], kept: Kept, passing: str | None
) -> Iterator[Leftover]:
    """Published files that nobody has used for so many days; those that `passing` finds after a day."""
    now = _now(root)
    for path, is_ours in _matching(root, published):
        try:
            idle = (now - usage.last(path)) / DAY
            if is_unpushed(path):
                kept(path, "not published in its store yet")
                continue
            of_a_job = passing is not None and path.relative_to(root).match(passing)
            if idle >= (min(1.0, unused_days) if of_a_job else unused_days) and _proved(path, is_ours, kept):
                with usage.unused(path) as free:
                    found = free
                if found:
                    yield Leftover(path, _allocated(path), f"not used for {idle:,.0f} days")
                elif not is_file(lock_path(path), follow=False):  # and so it can never be locked
                    _say_odd(lock_path(path), kept)
        except FileNotFoundError:  # removed by another process just now, or a link that leads nowhere
            _say_odd(path, kept)
        except OSError as error:
            kept(path, error.strerror or str(error))


def _unfinished(root: Path, days: float, unfinished: Mapping[str, IsOurs], kept: Kept) -> Iterator[Leftover]:
    """Unfinished files that nobody writes, and nobody has written for so many days."""
    now = _now(root)
    for path, is_ours in _matching(root, unfinished):
        try:
            idle = (now - path.lstat().st_mtime) / DAY
            if _has_its_file(path):  # with which it goes
                continue
            if idle >= days and _proved(path, is_ours, kept) and not _written(path):
                yield Leftover(path, _allocated(path), f"unfinished, and left alone for {idle:,.1f} days")
        except FileNotFoundError:  # published or removed just now
            continue
        except OSError as error:
            kept(path, error.strerror or str(error))


def _now(root: Path) -> float:
    """The time by the clock of the disk that the store is on, as the times of its files are: that of this machine may
    be days ahead. By its own where the store cannot be written.
    """
    try:
        with tempfile.TemporaryFile(dir=root) as file:
            file.write(b"now")
            file.flush()
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _matching(root: Path, patterns: Mapping[str, IsOurs]) -> list[tuple[Path, IsOurs]]:
    """What has a name that one of the patterns finds, by name."""
    return [(path, is_ours) for pattern, is_ours in patterns.items() for path in sorted(root.glob(pattern))]


def _proved(path: Path, is_ours: IsOurs, kept: Kept) -> bool:
    """Whether a file is one that this program wrote; says what it is instead. Raises OSError."""
    if not stat.S_ISREG(path.lstat().st_mode):
        _say_odd(path, kept)
        return False
    if not is_ours(path):
        kept(path, "not a cache" if path.suffix == SUFFIX else "not a file that this program wrote")
        return False
    return True


def _say_odd(path: Path, kept: Kept) -> None:
    if os.path.lexists(path):
        kept(path, f"{kind(path)}, where a file is expected")


def _is_cache(path: Path) -> bool:
    """Whether a file is a cache, sound or damaged."""
    with open_read(path, follow=False) as file:
        try:
            hdf5.check(file, str(path))
            return True
        except FormatError:
            file.seek(0)
            return hdf5.is_damaged_cache(file)


def _has_its_file(path: Path) -> bool:
    """Whether this is a log of an unfinished cache that is still there."""
    unfinished = _LOG_NAME.fullmatch(path.name)
    return unfinished is not None and path.with_name(unfinished[1]).exists()


def _is_unfinished_cache(path: Path) -> bool:
    return _PARTIAL_NAME.fullmatch(path.name) is not None and _is_cache(path)


_UNFINISHED: dict[str, IsOurs] = {
    f"*{PARTIAL}": _is_unfinished_cache,
    f"*{DRAFT}": lambda path: _DRAFT_NAME.fullmatch(path.name) is not None,
    **{
        f"*{ending}": lambda path: _LOG_NAME.fullmatch(path.name) is not None
        for ending in (MARKS, SYNCED, JOINED)
    },
    f"*{FETCHING}": lambda path: FETCHING_NAME.fullmatch(path.name) is not None and _is_cache(path),
}
"""By pattern: what proves that a file is an unfinished one of a cache."""


def _partial(also: Mapping[str, IsOurs]) -> dict[str, IsOurs]:
    """The same of other files that are built as caches are."""
    return {f"{pattern}{PARTIAL}": is_ours for pattern, is_ours in also.items()}


def _unlink(path: Path) -> None:
    """Removes a file; what took its name meanwhile and is none stays. Raises OSError."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OSError(0, f"{kind(path)}, where a file is expected")
        path.unlink()
    except FileNotFoundError:  # another process was first
        pass


def _written(path: Path) -> bool:
    """Whether a living process is known to write an unfinished file, or to read it."""
    try:
        if path.name.endswith(FETCHING):
            with usage.unused(path) as free:
                return not free
        with open_read(path, follow=False) as file:
            return in_use(file.fileno())
    except OSError:
        return True  # not ours to judge


def _allocated(path: Path) -> int:
    try:
        return allocated_bytes(path.stat())
    except FileNotFoundError:
        return 0
