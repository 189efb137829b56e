"""What the metric costs: latency and size of the students, and those that no other beats in both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from decant.pipeline.report import sweep_charts
from decant.pipeline.report.page import Section
from decant.pipeline.report.sweep_subject import SweepSubject
from decant.pipeline.runs.result import Result


def frontier(subject: SweepSubject) -> Section:
    """The metric against milliseconds and against bytes."""
    latency = _points(subject, lambda result: result.latency_ms)
    size = _points(subject, lambda result: result.weights_bytes / 1024)
    if not size:
        return Section("frontier", "The frontier", missing="no trial has a finished student")
    title = f"validation {subject.figure.axis}"
    charts = {"bytes": sweep_charts.frontier(size, "weight file, KiB", title)}
    if latency:
        charts["latency"] = sweep_charts.frontier(latency, "median milliseconds at batch 1", title)
    machines = sorted({result.latency_on for result in subject.results.values() if result.latency_on})
    return Section("frontier", "The frontier", {"machines": machines, "latency": bool(latency)}, charts)


def on_frontier(costs: Sequence[tuple[float, float]]) -> list[bool]:
    """Of each (cost, metric) whether no other costs as little or less with a metric that is better, which is
    higher here.

    >>> on_frontier([(1.0, 0.5), (2.0, 0.4), (3.0, 0.9)])
    [True, False, True]
    """
    return [not any(other <= cost and more > metric for other, more in costs) for cost, metric in costs]


def _points(subject: SweepSubject, cost: Callable[[Result], float | None]) -> list[dict[str, Any]]:
    found = []
    for trial in subject.students.trials:
        result = subject.results.get(trial.number)
        x = None if result is None else cost(result)
        if result is not None and x and trial.value is not None:
            found.append((trial, str(result.network), x, subject.figure.scale * trial.value))
    best = on_frontier([(x, subject.figure.gain(y, 0.0)) for _, _, x, y in found])
    points = [
        {"trial": trial.number, "network": network, "x": x, "y": y, "frontier": on_it}
        for (trial, network, x, y), on_it in zip(found, best, strict=True)
    ]
    return sorted(points, key=lambda point: point["x"])
