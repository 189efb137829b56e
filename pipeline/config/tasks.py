"""The tasks, classification and regression, and the metrics of each. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

Task = Literal["classification", "regression"]


class Figure(NamedTuple):
    """A metric as a person reads it."""

    key: str
    """What `Metrics` call it."""
    name: str
    percent: bool = False
    """Whether it is a share in 0..1 that is shown in percent, and a difference of two in points."""

    @property
    def scale(self) -> float:
        """The factor that a value is multiplied by when it is shown."""
        return 100.0 if self.percent else 1.0

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """The figure of these metrics, as they hold it; None where there is none, or no number, as of a training that
        diverged.
        """
        value: float | None = metrics.get(self.key)
        return value if value is not None and math.isfinite(value) else None

    def text(self, metrics: Mapping[str, Any]) -> str:
        """The figure of these metrics; a dash where there is none."""
        value = self.value(metrics)
        return "–" if value is None else self.worded(value)

    def worded(self, value: float, spread: float | None = None) -> str:
        """A value, with its standard deviation where there is one."""
        unit = " %" if self.percent else ""
        return self.number(value) + ("" if spread is None else f" ± {self.number(spread)}") + unit

    def gain(self, difference: float) -> str:
        """A difference of two values."""
        sign = "+" if difference >= 0 else "-"
        return f"{sign}{self.number(abs(difference))} {'points' if self.percent else self.name}"

    def number(self, value: float) -> str:
        """A value without its unit."""
        return f"{self.scale * value:.{2 if self.percent else 4}f}"

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.name}, %" if self.percent else self.name


FIGURES: dict[Task, tuple[Figure, ...]] = {
    "classification": (
        Figure("top1", "top-1", percent=True),
        Figure("top5", "top-5", percent=True),
        Figure("loss", "loss"),
        Figure("ece", "calibration error", percent=True),
        Figure("agreement", "agreement", percent=True),
    ),
    "regression": (Figure("r2", "R²"), Figure("mse", "MSE"), Figure("mae", "MAE")),
}
"""Of each task, the one that networks are compared by first; of that, more is better."""


def figures(metrics: Mapping[str, Any]) -> tuple[Figure, ...]:
    """What is shown of these metrics."""
    return FIGURES["regression" if "mse" in metrics else "classification"]


def headline(metrics: Mapping[str, Any]) -> Figure:
    """What networks with such metrics are compared by."""
    return figures(metrics)[0]
