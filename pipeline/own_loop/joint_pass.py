"""A cache that is built once by the processes that ask for it at the same time: one builds it and the others wait, or
each joins its partial file, and whoever finds it whole publishes it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from decant.cache import (
    CacheError,
    Head,
    IncompleteError,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    Positions,
    find_unfinished,
    has_writers,
)
from decant.cache.io.files import storage_error
from decant.cache.io.locks import exclusive, lock_path
from decant.pipeline.ranks.job import timeout
from decant.pipeline.ranks.script import ScriptRanks, ranks_of_script
from decant.pipeline.support.notices import say_once
from decant.pipeline.training.handout import divided_at_the_end, handed_out

POLL_SECONDS = 0.5

Find = Callable[[], LogitCache | None]
"""The published cache, if there is one; raises MismatchError for one of something else."""


class Fill(Protocol):
    """Writes the rows of units that are missing, by default of all."""

    def __call__(self, writer: LogitCacheWriter, units: Iterable[Any] | None = None, /) -> object: ...


class Begun(NamedTuple):
    """A pass whose teacher is ready, and what a writer of its cache begins with."""

    manifest: Manifest
    units: Callable[[LogitCacheWriter], Any]
    """What is handed out to several processes, one after the other."""
    divide: Callable[[Any], Iterable[Any]]
    """Makes smaller ones of a unit, which are handed out towards the end."""
    fill: Fill
    positions: Positions | None = None
    head: Head | None = None


def build(
    path: Path,
    find: Find,
    begin: Callable[[int], AbstractContextManager[Begun]],
    require_same: Callable[[LogitCache], None] | None = None,
) -> LogitCache:
    """The cache at `path`, which was not there: built with the ranks of this script, or by whichever process comes
    first, while the others wait and find it.

    begin: is given how many processes share the pass, and entered when rows are missing. require_same: compares a cache
    that another process built meanwhile with the teacher itself.
    """
    make_folder_of(path)
    ranks = ranks_of_script()
    if ranks is not None:
        with begin(ranks.size) as begun:
            return _build_with_ranks(path, ranks, begun, find)
    with exclusive(lock_path(path), waiting=lambda holder: say_once(f"{path}: waits for {holder}")):
        found = find()  # another process may have built it while this one waited
        if found is not None:
            if require_same is not None:
                require_same(found)
            return found
        with (
            begin(1) as begun,
            LogitCacheWriter(path, begun.manifest, positions=begun.positions, head=begun.head) as writer,
        ):
            begun.fill(writer)
            return LogitCache.open(writer.publish())


def make_folder_of(path: Path) -> None:
    """Makes the folder of a cache, if need be. Raises StorageError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(error, path, "making its folder") from error


def join_and_fill(
    path: Path, begun: Begun, choose: Callable[[Any], Iterable[Any]], find: Find
) -> LogitCache | None:
    """Writes the units that `choose` takes of all into the file that others write too, and publishes it where nothing
    is missing; None where something is.
    """
    try:
        with LogitCacheWriter.join(
            path, begun.manifest, positions=begun.positions, head=begun.head
        ) as writer:
            begun.fill(writer, choose(begun.units(writer)))
            return LogitCache.open(writer.publish())
    except IncompleteError:
        return find()
    except CacheError:
        found = find()  # another has published it in that moment
        if found is None:
            raise
        return found


def _build_with_ranks(path: Path, ranks: ScriptRanks, begun: Begun, find: Find) -> LogitCache:
    """Builds a cache with whichever ranks of the script come here, which take units of it as they are done; whoever
    finds it whole publishes it. What a rank has taken that was killed, another takes.
    """
    while True:
        count = ranks.counter(str(path.absolute()))
        found = join_and_fill(path, begun, partial(_taken, begun, ranks.size, count), find)
        progress = _Stalls(path)
        while found is None and has_writers(path) and not progress.stalled():
            time.sleep(POLL_SECONDS)
            found = find()
        if found is not None or (found := find()) is not None:
            return found


def _taken(begun: Begun, processes: int, count: Callable[[], int], units: Any) -> Iterator[Any]:
    """The units that a rank takes, whose number `count` gives."""
    return handed_out(divided_at_the_end(units, processes, begun.divide), count)


class _Stalls:
    """Whether nobody has written into an unfinished file for long, as after the loss of a machine."""

    def __init__(self, path: Path) -> None:
        self._path, self._rows, self._since = path, -1, time.monotonic()

    def stalled(self) -> bool:
        begun = find_unfinished(self._path)
        if begun is not None and begun.rows != self._rows:
            self._rows, self._since = begun.rows, time.monotonic()
        return time.monotonic() - self._since > timeout()
