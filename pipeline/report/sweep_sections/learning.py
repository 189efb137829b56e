"""The metric of every trial by epoch."""

from __future__ import annotations

from typing import Any

from decant.pipeline.report import sweep_charts
from decant.pipeline.report.page import Section
from decant.pipeline.report.sweep_subject import SweepSubject

_MAX_POINTS = 12_000


def learning(subject: SweepSubject) -> Section:
    """One chart with a line for each trial, thinned where there are many epochs."""
    figure, best = subject.figure, subject.best
    points = list[dict[str, Any]]()
    each = max(2, _MAX_POINTS // max(len(subject.students.trials), 1))
    for trial in subject.students.trials:
        lines = [
            line for line in subject.epochs(trial) if figure.value(line.get("validation", {})) is not None
        ]
        for line in lines[:: max(1, len(lines) // each)]:
            value = figure.value(line["validation"])
            assert value is not None
            state = "best" if trial == best else trial.state
            rounded = float(f"{figure.scale * value:.6g}")
            points.append({"trial": trial.number, "epoch": line["epoch"], "value": rounded, "state": state})
    if not points:
        return Section("learning", "Learning curves", missing="no trial recorded its epochs")
    chart = sweep_charts.learning(points, f"validation {figure.axis}")
    return Section("learning", "Learning curves", charts={"epochs": chart})
