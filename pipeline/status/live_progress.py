"""Work that is not finished, as it shows on the disk: who is at it, and how far it is. Nothing is written."""

from __future__ import annotations

import contextlib
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from decant.cache.errors import FormatError
from decant.cache.format.blocks import StoredRows
from decant.cache.format.hdf5 import check
from decant.cache.io.locks import in_use
from decant.cache.io.partial import begun
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
    """The written rows of the unfinished file of the cache at `path`, and whether a process is at it; of several files
    the one that somebody is at, or else the fullest; None without any. Raises FormatError where none is sound.
    """
    found, damaged = [], None
    for partial in begun(path) if path.parent.is_dir() else ():
        try:
            with open(partial, "rb") as file:
                layout = check(file, str(partial))
                found.append((in_use(file.fileno()), *_written(StoredRows(file.fileno(), layout, partial))))
        except FormatError as error:
            damaged = type(error)(f"{error}; delete it and run the command again")
        except (FileNotFoundError, PermissionError):  # just finished, or another person's
            continue
    if not found and damaged is not None:
        raise damaged
    if not found:
        return None
    running, written, total = max(found)
    return Progress(written, total, "rows"), running


def _written(stored: StoredRows) -> tuple[int, int]:
    """Rows of written blocks, and all rows."""
    samples, entries = stored.blocks.num_samples, stored.read_entries()
    bounds = np.minimum(np.arange(stored.blocks.per_view + 1) * stored.blocks.rows, samples)
    return int(np.where(entries, np.diff(bounds), 0).sum()), stored.blocks.num_views * samples
