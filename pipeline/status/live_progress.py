"""The progress of work that is not finished, read from the disk."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decant.cache import find_unfinished
from decant.cache.io.joint import members
from decant.cache.io.partial import begun
from decant.pipeline.training.checkpoint import CHECKPOINT
from decant.pipeline.training.epoch_log import epoch_seconds

_SHOWN_WRITERS = 8


@dataclass(frozen=True)
class Progress:
    """The finished part of a training run, a cache or a sweep."""

    done: int
    total: int
    unit: Literal["epochs", "rows", "trials"]
    seconds_left: float | None = None
    """Estimated from the median of the epochs so far; None if there is no estimate."""
    seed: int | None = None
    """The seed of the student that is being trained."""


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
