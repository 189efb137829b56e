"""A sweep in words: what came of it, for the terminal and the page."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

from decant.pipeline.config.tasks import MetricFormat
from decant.pipeline.sweeps.record import SweepRecord, TrialRecord


def in_words(record: SweepRecord) -> Iterator[str]:
    """The result of a sweep, line by line: which part each figure is of, and which of them are optimistic."""
    figure, conclusion = record.figure, record.conclusion
    for stage in record.stages:
        best = record.best_of(stage)
        if best is not None and best.value is not None and stage.name != "fresh seeds":
            kind = "best" if stage.name == "students" else "baseline, labels only"
            count = f"{stage.total:,}"
            if len(stage.ended) < stage.total:
                count = f"{len(stage.ended):,} of {count}"
            yield (
                f"{kind} of {count} trials: {settings_in_words(best)}: validation {figure.name} "
                f"{figure.with_spread(best.value)}, which is optimistic, as it was chosen by that"
            )
        failed = [trial for trial in stage.trials if trial.state == "failed"]
        if failed:
            yield f"{len(failed):,} of {stage.total:,} trials failed; the first: {failed[0].reason}"
    if conclusion is None:
        return
    if not conclusion.distilled:
        yield "test part: no sample has a label, so nothing is measured on it"
        return
    line = f"test part, measured once, {_seeds(len(conclusion.distilled))}: distilled {_spread(record, 'distilled')}"
    if conclusion.labels:
        line += f", labels only {_spread(record, 'labels')}"
    if record.gain is not None:
        mean, error = record.gain
        line += f": {_difference(figure, mean)}" + (
            "" if error is None else f" (standard error {figure.plain(error)})"
        )
    yield line


def _difference(figure: MetricFormat, gain: float) -> str:
    """By how much distilled students are better, or worse."""
    if not figure.less_is_better:
        return figure.difference(gain)
    unit = "points of " if figure.percent else ""
    return f"{figure.plain(abs(gain))} {unit}{figure.name} {'lower' if gain >= 0 else 'higher'}"


def settings_in_words(trial: TrialRecord) -> str:
    """The settings of a trial as a list."""
    return ", ".join(f"{path}={value}" for path, value in trial.settings.items())


def _spread(record: SweepRecord, kind: str) -> str:
    """Mean and standard deviation of one kind on the test part."""
    assert record.conclusion is not None
    values = list((record.conclusion.distilled if kind == "distilled" else record.conclusion.labels).values())
    spread = statistics.stdev(values) if len(values) > 1 else None
    return record.figure.with_spread(statistics.fmean(values), spread)


def _seeds(count: int) -> str:
    return "one fresh seed" if count == 1 else f"{count:,} fresh seeds"
