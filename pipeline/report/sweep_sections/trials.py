"""The result of a sweep in sentences, and all of its trials in a table that can be sorted and filtered."""

from __future__ import annotations

from typing import Any

from decant.pipeline.report.page import Section
from decant.pipeline.report.sweep_subject import SweepSubject
from decant.pipeline.sweeps.record import TrialRecord
from decant.pipeline.sweeps.wording import in_words


def trials(subject: SweepSubject) -> Section:
    """The conclusion with the command that repeats it, what sharing the cache saved, and every trial of the search."""
    record, best = subject.record, subject.best
    conclusion = record.conclusion
    return Section(
        "trials",
        "The trials",
        {
            "lines": list(in_words(record)),
            "shared": subject.shared,
            "command": None if conclusion is None else conclusion.command,
            "baseline_command": None if conclusion is None else conclusion.baseline_command,
            "unfinished": None
            if conclusion is not None
            else f"{record.done:,} of {record.total:,} trials have ended",
            "figure": subject.figure.name,
            "paths": subject.paths,
            "rows": [_row(subject, trial, trial == best) for trial in subject.students.trials],
        },
    )


def _row(subject: SweepSubject, trial: TrialRecord, best: bool) -> dict[str, Any]:
    result = subject.results.get(trial.number)
    figure = subject.figure
    return {
        "number": trial.number,
        "settings": [trial.settings.get(path, "–") for path in subject.paths],
        "state": "best" if best else trial.state,
        "value": "–" if trial.value is None else figure.plain(trial.value),
        "parameters": None if result is None else result.parameters,
        "latency": "–" if result is None or result.latency_ms is None else f"{result.latency_ms:.3f}",
        "seconds": "–" if trial.seconds is None else f"{trial.seconds:.1f}",
        "folder": trial.folder or "",
        "reason": trial.reason or "",
    }
