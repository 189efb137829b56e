"""metrics.jsonl: what a network was like after each epoch, a line an epoch.

Lines are appended while a network trains, so that whoever reads meanwhile, or after a kill, may find a last line that
is not whole. Every reader gets the lines before it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from decant.cache.io.files import name_file, write_atomically
from decant.cache.io.opening import open_append, read_file
from decant.pipeline.errors import DamagedError
from decant.pipeline.support.checked_json import Amount, Whole, check, parse
from decant.pipeline.support.notices import say_once

METRICS = "metrics.jsonl"
CHECKPOINT = "checkpoint.pt"
"""The file beside it, from which training goes on: see `checkpoint.py`."""

Epoch = dict[str, Any]
"""A line: `epoch` counted from 1, and what was measured of it, as `loss`, `lr`, `seconds`, and `test` or
`validation`."""


class _Line(BaseModel):
    """What readers take of a line, and of which type it is."""

    model_config = ConfigDict(strict=True, extra="allow")

    epoch: Whole
    loss: float | None = None
    hard: float | None = None
    soft: float | None = None
    lr: float | None = None
    seconds: Amount | None = None
    test: dict[str, float | None] = {}
    validation: dict[str, float | None] = {}


_LINE = TypeAdapter(_Line)


def append_epoch(folder: Path, line: Mapping[str, Any]) -> None:
    """Adds the line of an epoch, JSON, to the log of a run folder; makes the folder if need be.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> append_epoch(Path(folder.name), {"epoch": 1, "loss": 0.5, "seconds": 2.0})
    >>> read_epochs(Path(folder.name))
    [{'epoch': 1, 'loss': 0.5, 'seconds': 2.0}]
    >>> folder.cleanup()
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with open_append(folder / METRICS) as file:
            file.write(f"{json.dumps(line)}\n".encode())
    except OSError as error:
        name_file(error, folder / METRICS)
        raise


def read_epochs(folder: Path) -> list[Epoch]:
    """The epochs that a run has logged, up to a line that is not whole; empty where it has logged none. Raises
    DamagedError, naming the line, where one is whole and says what no run logs.

    >>> read_epochs(Path("no/such/run"))
    []
    """
    epochs = list[Epoch]()
    try:
        lines = _lines(folder)
    except OSError as error:  # the network is there without it
        say_once(f"warning: left out: {error}")
        return epochs
    for number, line in enumerate(lines, start=1):
        try:
            found = parse(line)
            if not isinstance(found, dict) or "epoch" not in found:
                break
            check(_LINE, found)
        except json.JSONDecodeError:
            break
        except ValueError as error:
            raise DamagedError(
                f"{folder / METRICS}: line {number}: {error}; delete the file, and what was logged is forgotten"
            ) from None
        epochs.append(found)
    return epochs


def epoch_seconds(folder: Path) -> list[float]:
    """How long each logged epoch took, as far as that is known of every one.

    >>> epoch_seconds(Path("no/such/run"))
    []
    """
    seconds = list[float]()
    for line in read_epochs(folder):
        if not isinstance(line.get("seconds"), int | float):
            break
        seconds.append(float(line["seconds"]))
    return seconds


def trained_seconds(folder: Path) -> float:
    """Seconds of training that the logged epochs add up to, over interruptions.

    >>> trained_seconds(Path("no/such/run"))
    0.0
    """
    return float(sum(epoch_seconds(folder)))


def keep_epochs(folder: Path, count: int) -> None:
    """Drops every line after the first `count`, whole or not: those of epochs that are trained again.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> append_epoch(Path(folder.name), {"epoch": 1})
    >>> append_epoch(Path(folder.name), {"epoch": 2})
    >>> keep_epochs(Path(folder.name), 1)
    >>> read_epochs(Path(folder.name))
    [{'epoch': 1}]
    >>> folder.cleanup()
    """
    if count:
        kept = "".join(f"{line}\n" for line in _lines(folder)[:count])
        write_atomically(folder / METRICS, kept.encode("utf-8", errors="surrogateescape"))
    else:
        (folder / METRICS).unlink(missing_ok=True)


def _lines(folder: Path) -> list[str]:
    try:
        return (
            read_file(folder / METRICS, follow=False).decode("utf-8", errors="surrogateescape").splitlines()
        )
    except FileNotFoundError:
        return []
