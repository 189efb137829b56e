"""Work that is not finished, as it shows on the disk: who is at it, and how far it is. Nothing is written."""

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
    """How far something is."""

    done: int
    total: int
    unit: Literal["epochs", "rows"]
    seconds_left: float | None = None
    """By the median of the epochs so far; None where that cannot be told."""
    seed: int | None = None
    """Of the student that it is of."""


def epochs(folder: Path, total: int, seed: int | None = None) -> Progress:
    """The epochs of a network that a run would not make again."""
    seconds = list[float]()
    with contextlib.suppress(OSError):  # another person's
        if (folder / CHECKPOINT).exists():
            seconds = epoch_seconds(folder)
    left = statistics.median(seconds) * (total - len(seconds)) if seconds else None
    return Progress(len(seconds), total, "epochs", left, seed)


def rows(path: Path) -> tuple[Progress, bool] | None:
    """The written rows of the unfinished file of the cache at `path`, and whether a process writes it; None where there
    is none. Raises FormatError where it is damaged.
    """
    found = find_unfinished(path)
    return None if found is None else (Progress(found.rows, found.total, "rows"), found.running)
