"""Training curves: a metric by epoch, over the seeds of each kind of network."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from decant.pipeline.config.tasks import MetricFormat
from decant.pipeline.report.rows import Row
from decant.pipeline.runs.result import Result
from decant.pipeline.training.epoch_log import Epoch, read_epochs

Part = Literal["test", "validation"]
"""What epochs are measured on."""


def measured_part(results: Iterable[Result]) -> Part:
    """The part that the epochs of these networks were measured on: where any has a validation part, that."""
    return "validation" if any(result.validation is not None for result in results) else "test"


@dataclass(frozen=True)
class Quantity:
    """A number that runs record after each epoch."""

    key: str
    title: str
    note: str
    value: Callable[[Epoch], float | None]
    spans_magnitudes: bool = False
    """Whether a logarithmic axis shows more of it."""

    def is_logarithmic(self, drawn: Mapping[int, Curve]) -> bool:
        """Whether to draw the curves on a logarithmic axis, which needs positive values."""
        return self.spans_magnitudes and all(min(curve.low) > 0 for curve in drawn.values())


def quantities(figure: MetricFormat, part: Part = "test") -> tuple[Quantity, ...]:
    """All quantities, first the metric that networks are compared by, on the part that epochs are measured on."""

    def measured(line: Epoch) -> float | None:
        value = figure.value(line.get(part, {}))
        return None if value is None else figure.scale * value

    return (
        Quantity("figure", f"{part} {figure.axis}", "After each epoch that was measured.", measured),
        Quantity(
            "loss",
            "training loss",
            "Each network's own objective; its scale is the objective's.",
            _of("loss"),
            True,
        ),
        Quantity("hard", "hard term", "The part of the loss that labels give.", _of("hard")),
        Quantity("soft", "soft term", "The part of the loss that the cached logits give.", _of("soft")),
        Quantity("lr", "learning rate", "At the end of each epoch.", _of("lr")),
    )


@dataclass(frozen=True)
class Curve:
    """One quantity of one kind of network by epoch: mean, minimum and maximum over its seeds."""

    epochs: tuple[int, ...]
    mean: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]

    def thinned(self, points: int) -> Iterator[tuple[int, float, float, float]]:
        """Yields (epoch, mean, low, high) of at most `points` epochs at even distances, with the first and the last."""
        kept = np.unique(
            np.linspace(0, len(self.epochs) - 1, min(points, len(self.epochs))).round().astype(int)
        )
        for index in kept.tolist():
            yield self.epochs[index], self.mean[index], self.low[index], self.high[index]


def curve(results: Sequence[Result], quantity: Quantity) -> Curve | None:
    """The curve of some runs over the epochs that all of them have recorded; None if there are none."""
    by_run = [dict(_points(read_epochs(result.folder), quantity.value)) for result in results]
    epochs = sorted(set.intersection(*(set(points) for points in by_run)))
    if not epochs:
        return None
    values = np.array([[points[epoch] for epoch in epochs] for points in by_run])
    return Curve(
        tuple(epochs), *(tuple(some.tolist()) for some in (values.mean(0), values.min(0), values.max(0)))
    )


def curves(rows: Sequence[Row], quantity: Quantity) -> dict[int, Curve]:
    """The curve of each row that has one, by the row's place."""
    by_row = {row_index: curve(row.results, quantity) for row_index, row in enumerate(rows)}
    return {row_index: drawn for row_index, drawn in by_row.items() if drawn is not None}


def _of(name: str) -> Callable[[Epoch], float | None]:
    return lambda line: line.get(name)


def _points(lines: Sequence[Epoch], value: Callable[[Epoch], float | None]) -> Iterator[tuple[int, float]]:
    """Yields (epoch, value) for finite values: a run that has diverged records others."""
    for line in lines:
        number = value(line)
        if number is not None and math.isfinite(number):
            yield line["epoch"], number
