"""The progress of work that is not finished, read from the disk."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from decant.cache import find_unfinished
from decant.pipeline.training.checkpoint import CHECKPOINT
from decant.pipeline.training.epoch_log import epoch_seconds


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
