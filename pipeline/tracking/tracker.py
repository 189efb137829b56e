"""What all trackers have in common, and what they get of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from decant.pipeline.support.nested import by_path
from decant.pipeline.support.terminal import one_line
from decant.pipeline.training.epoch_log import Epoch


@dataclass(frozen=True)
class Run:
    """The training of one network, as a tracker names and describes it."""

    name: str
    """What it is: kind, network, seed."""
    recipe: str
    """The name of its recipe, which groups runs."""
    folder: Path
    """Its run folder."""
    base: Path
    """The folder of all runs of the recipe."""
    settings: Mapping[str, Any]
    """The resolved recipe, by section."""

    def flat_settings(self) -> dict[str, Any]:
        """The settings by their path, as recipes are overridden: `student.epochs`.

        >>> settings = {"student": {"epochs": 3, "network": {"name": "mlp"}}}
        >>> Run("student", "toy", Path("a"), Path(), settings).flat_settings()
        {'student.epochs': 3, 'student.network.name': 'mlp'}
        """
        return by_path(self.settings)


class Tracker(Protocol):
    """Takes the metrics of one run. Raises ModelError, when it is made, if its library is not installed."""

    def __init__(self, run: Run) -> None: ...

    @staticmethod
    def library() -> Any:
        """Its library. Raises ModelError, with the command that installs it, where it is missing."""

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        """Takes what was measured of an epoch, counted from 1."""

    def close(self, finished: bool) -> None:
        """Ends the run; `finished` is false where the training was interrupted or failed."""


def scalars_of(line: Epoch) -> dict[str, float]:
    """The numbers of a line of metrics.jsonl by the names that trackers show.

    >>> scalars_of({"epoch": 1, "loss": 0.5, "lr": 0.1, "test": {"accuracy": 0.75, "agreement": None}})
    {'train/loss': 0.5, 'train/lr': 0.1, 'test/accuracy': 0.75}
    """
    trained = {f"train/{name}": line.get(name) for name in ("loss", "hard", "soft", "lr", "seconds")}
    tested = {
        f"{part}/{one_line(name)}": value
        for part in ("test", "validation")
        for name, value in line.get(part, {}).items()
    }
    return {name: float(value) for name, value in {**trained, **tested}.items() if value is not None}
