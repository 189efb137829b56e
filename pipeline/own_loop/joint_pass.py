"""A cache that several processes build together: each joins its partial file; whoever finds it whole publishes it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

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
from decant.pipeline.ranks.job import timeout
from decant.pipeline.ranks.script import ScriptRanks

POLL_SECONDS = 0.5

Find = Callable[[], LogitCache | None]
"""The published cache, if there is one; raises MismatchError for one of something else."""


def join_and_fill(
    path: Path,
    manifest: Manifest,
    fill: Callable[[LogitCacheWriter], None],
    find: Find,
    *,
    positions: Positions | None = None,
    head: Head | None = None,
) -> LogitCache | None:
    """Has `fill` write rows into the file that others write too, and publishes it where nothing is missing; None where
    something is.
    """
    try:
        with LogitCacheWriter.join(path, manifest, positions=positions, head=head) as writer:
            fill(writer)
            return LogitCache.open(writer.publish())
    except IncompleteError:
        return find()
    except CacheError:
        found = find()  # another has published it in that moment
        if found is None:
            raise
        return found


def build_with_ranks(
    path: Path, ranks: ScriptRanks, take: Callable[[Callable[[], int]], LogitCache | None], find: Find
) -> LogitCache:
    """Builds a cache with whichever ranks of the script come here, which take units of it as they are done; whoever
    finds it whole publishes it. What a rank has taken that was killed, another takes.

    take: writes the units that a counter of all ranks gives, as `join_and_fill` does.
    """
    while True:
        found = take(ranks.counter(str(path.absolute())))
        progress = _Stalls(path)
        while found is None and has_writers(path) and not progress.stalled():
            time.sleep(POLL_SECONDS)
            found = find()
        if found is not None or (found := find()) is not None:
            return found


class _Stalls:
    """Whether nobody has written into an unfinished file for long, as after the loss of a machine."""

    def __init__(self, path: Path) -> None:
        self._path, self._rows, self._since = path, -1, time.monotonic()

    def stalled(self) -> bool:
        begun = find_unfinished(self._path)
        if begun is not None and begun.rows != self._rows:
            self._rows, self._since = begun.rows, time.monotonic()
        return time.monotonic() - self._since > timeout()
