"""The first section: student against teacher and against labels only, in metrics, sizes and speed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from decant.pipeline.errors import PipelineError
from decant.pipeline.report.charts import scatter
from decant.pipeline.report.page import Section
from decant.pipeline.report.rows import Gain, Row, are_validated, descriptions, gains
from decant.pipeline.report.subject import Subject
from decant.pipeline.runs.footprint import Footprint, measure_footprint
from decant.pipeline.runs.result import Result
from decant.pipeline.support.progress import track

Footprints = Mapping[Path, Footprint]
"""What a network costs to run, by the folder of the run."""


def answer(subject: Subject) -> Section:
    """All networks in a table, the metric against latency and against bytes, and the result in a sentence."""
    footprints, unmeasured = _measure(subject)
    all_gains = gains(subject.rows)
    own = next((gain for gain in all_gains if subject.focus.folder in _folders(gain.student)), None)
    machines = sorted({footprint.machine for footprint in footprints.values()})
    if subject.of_tokens:
        machines = sorted({result.latency_on for result in subject.results if result.latency_on})
    figure = subject.rows[0].figure
    return Section(
        "answer",
        "The answer",
        {
            "lead": None if own is None else _lead(own, footprints),
            "gains": all_gains,
            "unfinished": subject.unfinished,
            "figure": figure.name,
            "better": "down" if figure.less_is_better else "up",
            "validated": are_validated(subject.rows),
            "rows": [(row, row.whole_kind, footprints.get(row.first.folder)) for row in subject.rows],
            "descriptions": descriptions(subject.rows),
            "measures": not subject.of_tokens,
            "machines": machines,
            "unmeasured": unmeasured,
            "examined": f"{subject.focus.result.network.short}, {_learnt(subject)}, seed {subject.focus.result.seed}",
        },
        {
            "latency": scatter(
                _points(
                    subject,
                    lambda result: (
                        result.latency_ms if subject.of_tokens else _latency(footprints.get(result.folder))
                    ),
                ),
                subject.names,
                "median milliseconds at batch 1",
                f"test {figure.axis}",
            ),
            "bytes": scatter(
                _points(subject, lambda result: result.weights_bytes / 1024),
                subject.names,
                "weight file, KiB",
                f"test {figure.axis}",
            ),
        },
    )


def _measure(subject: Subject) -> tuple[Footprints, str | None]:
    """The footprint of each network, measured once for those of the same architecture, and why others have none."""
    if subject.of_tokens:
        return {}, None
    by_network: dict[str, Footprint] = {}
    footprints, problem = dict[Path, Footprint](), None
    try:
        test = subject.splits.test
    except PipelineError as error:
        return {}, str(error)
    for result in track(subject.results, "measuring speed and memory"):
        network = repr(result.network)
        try:
            if network not in by_network:
                by_network[network] = measure_footprint(result, test, subject.device)
            footprints[result.folder] = by_network[network]
        except PipelineError as error:
            problem = str(error)
    return footprints, problem


def _lead(gain: Gain, footprints: Footprints) -> str:
    """The result in one or two sentences."""
    student, teacher, figure = gain.student, gain.teacher, gain.student.figure
    alone = replace(
        gain.alone, results=tuple(one for one in gain.alone.results if one.seed in student.by_seed)
    )
    error = "" if gain.error is None else f"; standard error of the gain {figure.plain(gain.error)}"
    seeds = "" if student.spread is None else f" (mean ± standard deviation of {len(student.values)} seeds)"
    reached = figure.with_spread(student.mean, student.spread)
    told = f" ({student.told_by})" if student.told_by else ""
    lead = (
        f"{student.name}{told} reaches {reached} test {figure.name} from the cache{seeds}: "
        f"{gain.amount} ({figure.with_spread(alone.mean, alone.spread)}{error})."
    )
    if teacher is None or not teacher.values:
        return lead
    lead += f" The teacher, {teacher.name}, has {figure.with_spread(teacher.mean, teacher.spread)}"
    if gain.passes_teacher:
        lead += ", which the student passes"
    elif gain.share is not None:
        lead += f": {100 * gain.share:.0f} % of the gap is closed"
    ratio = teacher.first.parameters / student.first.parameters
    size = _times(ratio, "fewer", "more", "as many") + " parameters"
    waits = [_latency(footprints.get(row.first.folder)) for row in (teacher, student)]
    slow, fast = (wait or 0.0 for wait in waits)
    speed = ""
    if slow and fast:
        speed = f" and {_times(slow / fast, 'faster', 'slower', 'as fast')} at batch 1"
    return f"{lead}, with {size}{speed}."


def _times(ratio: float, less: str, more: str, same: str) -> str:
    """A ratio above 1 with its word, or the inverse with the other word; `same` within one percent."""
    if 0.99 < ratio < 1.01:
        return same
    return f"{ratio:,.3g} times {less}" if ratio >= 1 else f"{1 / ratio:,.3g} times {more}"


def _points(subject: Subject, cost: Callable[[Result], float | None]) -> list[dict[str, Any]]:
    """One point for each network that has a metric and a cost."""
    points = []
    for row_index, row in enumerate(subject.rows):
        for result in row.results:
            value, x = row.figure.value(result.metrics), cost(result)
            if value is not None and x is not None:
                y = row.figure.scale * value
                points.append(
                    {"network": row_index, "kind": result.kind, "seed": result.seed, "x": x, "y": y}
                )
    return points


def _latency(footprint: Footprint | None) -> float | None:
    return None if footprint is None else footprint.batches[0].latency_ms


def _folders(row: Row) -> set[Path]:
    return {result.folder for result in row.results}


def _learnt(subject: Subject) -> str:
    return next(row.whole_kind for row in subject.rows if subject.focus.folder in _folders(row))
