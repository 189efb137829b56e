"""What each setting does to the metric: all together, one by one, and how much each decides."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Any

from decant.pipeline.report import sweep_charts
from decant.pipeline.report.page import Section
from decant.pipeline.report.sweep_subject import SweepSubject
from decant.pipeline.sweeps.record import TrialRecord


def settings(subject: SweepSubject) -> Section:
    """Parallel coordinates, a chart for each setting, and the importances."""
    done = [trial for trial in subject.students.trials if trial.value is not None]
    if not done:
        return Section("settings", "The settings", missing="no trial has ended")
    title, paths = f"validation {subject.figure.axis}", subject.paths
    shares = {} if subject.record.conclusion is None else subject.record.conclusion.importances
    charts: dict[str, Any] = {"parallel": sweep_charts.parallel(_lines(subject, done), paths, title)}
    for place, path in enumerate(paths):
        texts = [trial.settings[path] for trial in done if path in trial.settings]
        numbers = _all_numbers(texts)
        log = numbers and min(map(float, texts)) > 0 and max(map(float, texts)) >= 20 * min(map(float, texts))
        charts[f"setting{place}"] = sweep_charts.against_setting(
            _against(subject, done, path, numbers), path, title, numbers=numbers, log=log
        )
    if shares:
        charts["importances"] = sweep_charts.importances(
            [{"setting": path, "share": share} for path, share in shares.items()]
        )
    return Section("settings", "The settings", {"paths": paths, "shares": bool(shares)}, charts)


def _lines(subject: SweepSubject, done: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    points = []
    for path in subject.paths:
        places = _places([trial.settings.get(path, "") for trial in done])
        for trial in done:
            text = trial.settings.get(path, "")
            value = subject.figure.scale * (trial.value or 0.0)
            points.append(
                {"trial": trial.number, "setting": path, "place": places[text], "text": text, "value": value}
            )
    return points


def _places(texts: Sequence[str]) -> dict[str, float]:
    """Where each value lies between the smallest and the largest, 0..1: numbers by their size, others in order."""
    distinct = list(dict.fromkeys(texts))
    if _all_numbers(distinct):
        values = {text: float(text) for text in distinct}
        if min(values.values()) > 0 and max(values.values()) >= 20 * min(values.values()):
            values = {text: math.log(value) for text, value in values.items()}
        low, high = min(values.values()), max(values.values())
        return {text: (value - low) / ((high - low) or 1.0) for text, value in values.items()}
    return {text: place / max(len(distinct) - 1, 1) for place, text in enumerate(distinct)}


def _against(
    subject: SweepSubject, done: Sequence[TrialRecord], path: str, numbers: bool
) -> list[dict[str, Any]]:
    scale = subject.figure.scale
    stages = [("students", done)]
    stages += [("baseline", stage.trials) for stage in subject.record.stages if stage.name == "baseline"]
    points: list[dict[str, Any]] = [
        {
            "kind": kind,
            "trial": trial.number,
            "x": float(trial.settings[path]) if numbers else trial.settings[path],
            "value": scale * trial.value,
        }
        for kind, trials in stages
        for trial in trials
        if trial.value is not None and path in trial.settings
    ]
    best, fresh = subject.best, [scale * (trial.value or 0.0) for trial in subject.fresh]
    if best is not None and fresh and path in best.settings:
        x = float(best.settings[path]) if numbers else best.settings[path]
        spread = {"mean": statistics.fmean(fresh), "low": min(fresh), "high": max(fresh)}
        points.append({"kind": "fresh seeds", "x": x, **spread})
    return points


def _all_numbers(texts: Sequence[str]) -> bool:
    try:
        return bool(texts) and all(math.isfinite(float(text)) for text in texts)
    except ValueError:
        return False
