"""The progress of work that is not finished, read from the disk."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from decant.cache import find_unfinished
from decant.cache.io.joint import members
from decant.cache.io.partial import begun
from decant.pipeline.training.epoch_log import CHECKPOINT, epoch_seconds

_SHOWN_WRITERS = 8
_PACE_SECONDS = 60.0


@dataclass(frozen=True)
class Progress:
    """The finished part of a training run, a cache or a sweep."""

    done: int
    total: int
    unit: Literal["epochs", "rows", "trials"]
    seconds_left: float | None = None
    """Estimated from the median of the epochs so far, or the pace of rows; None if there is no estimate."""
    seed: int | None = None
    """The seed of the student that is being trained."""


class Pace:
    """How fast the rows of unfinished caches come, whoever writes them: from one look at them to the next.

    >>> pace, path = Pace(), Path("digits.h5")
    >>> looks = [(0.0, 100), (2.0, 200), (3.0, 200), (4.0, 300)]
    >>> [pace.with_seconds_left(path, Progress(done, 1000, "rows"), now).seconds_left for now, done in looks]
    [None, 16.0, 16.0, 14.0]
    """

    def __init__(self) -> None:
        self._seen: dict[Path, deque[tuple[float, int]]] = {}

    def with_seconds_left(self, path: Path, progress: Progress, now: float | None = None) -> Progress:
        """Adds how long the rest takes, at the pace of the last minute or so; nothing at the first look. now: seconds,
        by default of `time.monotonic`.
        """
        now = time.monotonic() if now is None else now
        seen = self._seen.setdefault(path, deque())
        if seen and progress.done < seen[-1][1]:  # begun anew
            seen.clear()
        if not seen or progress.done > seen[-1][1]:
            seen.append((now, progress.done))
        while len(seen) > 2 and seen[-1][0] - seen[1][0] >= _PACE_SECONDS:
            seen.popleft()
        (since, before), (last, done) = seen[0], seen[-1]
        if done == before:
            return progress
        return replace(progress, seconds_left=(progress.total - done) * (last - since) / (done - before))


def epoch_progress(folder: Path, total: int, seed: int | None = None) -> Progress:
    """The epochs of a network that a resumed run would not train again, of `total`."""
    seconds: list[float] = []
    with contextlib.suppress(OSError):  # it belongs to another user
        if (folder / CHECKPOINT).exists():
            seconds = epoch_seconds(folder)
    left = statistics.median(seconds) * (total - len(seconds)) if seconds else None
    return Progress(len(seconds), total, "epochs", left, seed)


def row_progress(path: Path) -> tuple[Progress, bool] | None:
    """The written rows of the unfinished file of the cache at `path`, and whether a process is writing it; None if
    there is no such file. Raises FormatError if it is damaged.
    """
    file = find_unfinished(path)
    return None if file is None else (Progress(file.rows, file.total, "rows"), file.running)


def row_writers(path: Path) -> str | None:
    """The processes that write the unfinished file of the cache at `path` together, ranks of a job or parts, and the
    rows of each; None where it is written by one that holds it alone.
    """
    found = [member for file in begun(path) for member in members(file) if member.living is not False]
    if not found:
        return None
    kind = "process" if any(member.rank is None for member in found) else "rank"
    if len(found) > _SHOWN_WRITERS:
        rows = [member.rows for member in found]
        return f"{len(found)} {kind}{'es' if kind == 'process' else 's'}, {min(rows):,} to {max(rows):,} rows each"
    named = sorted((member.process if kind == "process" else member.rank, member.rows) for member in found)
    return ", ".join(f"{kind} {name}: {rows:,} rows" for name, rows in named)
