"""What a person looks at: the table of a recipe's networks, as Markdown, and their curves."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pipeline.errors import NotMadeError
from pipeline.files import write_atomically
from pipeline.recipe import Recipe
from pipeline.runs import Result, results
from pipeline.tasks import Figure, headline
from pipeline.training import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Epoch = dict[str, Any]
"""A line of metrics.jsonl."""

TABLE = "report.md"
CURVES = "curves.png"


@dataclass(frozen=True)
class Row:
    """One kind of network over its seeds."""

    name: str
    kind: str
    parameters: int
    weights_bytes: int
    figure: Figure
    """What networks of this task are compared by."""
    values: tuple[float, ...]
    """The figure on the test part, a value a seed; none where that has no labels."""
    latency_ms: float | None
    """Median of one sample at batch 1, measured when the network was finished; None of older runs."""
    first: Result
    """The network of the first seed."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def figure_text(self) -> str:
        """The mean with spread and seeds; a dash where nothing is known."""
        if not self.values:
            return "–"
        return f"{self.figure.worded(self.mean, self.spread)} (n = {len(self.values)})"


@dataclass(frozen=True)
class Report:
    """The rows and where they were written."""

    rows: tuple[Row, ...]
    gap_closed: list[str]
    table: Path
    curves: Path


def headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """Of the columns of a table of these rows."""
    figure = rows[0].figure.name
    return ("network", "learnt from", "parameters", "weight file", f"test {figure}", "ms a sample")


def make_report(recipe: Recipe, base: Path) -> Report:
    """Writes `report.md` and `curves.png` into the recipe's run folder. Raises NotMadeError where nothing is
    finished.
    """
    finished = list(results(base, recipe.settings.data))
    if not finished:
        raise NotMadeError(f"{base}: no finished network to report; run: {recipe.command('teacher')}")
    groups = [list(group) for _, group in groupby(finished, key=_group)]
    rows = tuple(_row(group) for group in groups)
    closed = gap_closed(rows)
    markdown = _markdown(recipe, rows, closed)
    write_atomically(base / TABLE, markdown.encode())
    _draw(groups, base / CURVES)
    return Report(rows, closed, base / TABLE, base / CURVES)


def compare(recipe: Recipe, base: Path, students: Sequence[Result]) -> tuple[Row, ...]:
    """The rows of some students, after those of the teachers that they learnt from and that lie in the run folder."""
    of = {weights for student in students for weights in (student.teacher, *(student.teachers or ()))}
    teachers = [
        result
        for result in results(base, recipe.settings.data)
        if result.kind == "teacher" and result.weights_sha256 in of
    ]
    order = {"teacher": 0, "labels": 1, "distilled": 2}
    found = sorted([*teachers, *students], key=lambda result: (order[result.kind], _group(result)))
    return tuple(_row(list(group)) for _, group in groupby(found, key=_group))


def gap_closed(rows: Sequence[Row]) -> list[str]:
    """A sentence for each distilled student: what it gained over its baseline, the labels-only student that
    differs in nothing else, and what share of the gap between that and the teacher it closed, or that it passes
    the teacher.
    """
    teachers = {row.first.weights_sha256: row for row in rows if row.first.kind == "teacher"}
    baselines = {row.first.folder.parent.name: row for row in rows if row.first.kind == "labels"}
    lines = []
    for student in (row for row in rows if row.first.kind == "distilled"):
        alone = baselines.get(student.first.baseline or "")
        if alone is None or not student.values or len(alone.values) != len(student.values):
            continue
        gain = student.mean - alone.mean
        line = f"{student.name}, {student.kind}: {student.figure.gain(gain)} over labels only"
        line += _error(student, alone)
        teacher = teachers.get(student.first.teacher or "")
        if teacher is not None and teacher.values and student.mean > teacher.mean:
            line += ", and it passes the teacher"
        elif teacher is not None and teacher.values and teacher.mean > alone.mean:
            line += f", {100 * gain / (teacher.mean - alone.mean):.0f} % of the gap to the teacher closed"
        lines.append(line)
    return lines


def format_cells(row: Row) -> tuple[str, ...]:
    """A row of the table, in the order of `headings`."""
    return (
        row.name,
        row.kind,
        f"{row.parameters:,}",
        f"{row.weights_bytes:,} B",
        row.figure_text,
        "–" if row.latency_ms is None else f"{row.latency_ms:.3f}",
    )


def _error(student: Row, alone: Row) -> str:
    """The standard error of the mean gain, seed by seed: both students of a seed begin with the same weights."""
    if len(student.values) < 2:
        return ""
    gains = [one - other for one, other in zip(student.values, alone.values, strict=True)]
    return f" (standard error {student.figure.number(statistics.stdev(gains) / len(gains) ** 0.5)})"


def _group(result: Result) -> str:
    return str(result.folder if result.kind == "teacher" else result.folder.parent)


def _row(group: Sequence[Result]) -> Row:
    first = group[0]
    figure = headline(first.metrics)
    return Row(
        name=str(first.network),
        kind=learnt(first),
        parameters=first.parameters,
        weights_bytes=first.weights_bytes,
        figure=figure,
        values=tuple(value for result in group if (value := figure.value(result.metrics)) is not None),
        latency_ms=first.latency_ms,
        first=first,
    )


def learnt(result: Result) -> str:
    """What a network learnt from: teacher, labels, or an objective with its values."""
    if result.objective is None:
        return result.kind
    values = (f"{name} {_shown(value)}" for name, value in result.objective.items() if name != "name")
    return f"{result.objective['name']} ({', '.join(values)})".removesuffix(" ()")


def _shown(value: Any) -> str:
    """A setting of an objective, of one's own too: a schedule by its ends."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return f"{value:g}"
        case {"from": first, "to": last, **rest}:
            shape = rest.get("schedule", "linear")
            return f"{_shown(first)} → {_shown(last)}" + ("" if shape == "linear" else f" {shape}")
        case list() | tuple():
            return "[" + ", ".join(map(_shown, value)) + "]"
    return str(value)


def _markdown(recipe: Recipe, rows: Sequence[Row], closed: Sequence[str]) -> str:
    columns = headings(rows)
    lines = [f"# {recipe.name}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(format_cells(row)) + " |" for row in rows]
    machines = sorted({row.first.latency_on for row in rows if row.first.latency_on})
    note = (
        f"Test {rows[0].figure.name}: mean ± standard deviation over n seeds. "
        f"Milliseconds: batch 1; {', '.join(machines) or 'not measured'}."
    )
    return "\n".join([*lines, "", note, *(f"\n{line}." for line in closed), ""])


def _draw(groups: Sequence[Sequence[Result]], path: Path) -> None:
    """Loss and test figure by epoch: the mean over seeds, and their range as a band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    picture, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    figure = headline(groups[0][0].metrics)

    def tested(line: Epoch) -> float | None:
        value = figure.value(line.get("test", {}))
        return value if value is None else figure.scale * value

    for group in groups:
        histories = [_history(result) for result in group]
        if all(histories):
            label = f"{group[0].network}, {learnt(group[0])}"
            _band(left, [_points(history, _loss) for history in histories], label)
            _band(right, [_points(history, tested) for history in histories], label)
    left.set(xlabel="epoch", ylabel="training loss (each its own objective)", yscale="log")
    right.set(xlabel="epoch", ylabel=f"test {figure.axis}")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    draft = path.with_suffix(f".{os.getpid()}.png")
    picture.savefig(draft, dpi=150)
    pyplot.close(picture)
    os.replace(draft, path)


def _band(axes: Axes, curves: Sequence[Sequence[tuple[int, float]]], label: str) -> None:
    found = [dict(curve) for curve in curves]
    epochs = sorted(set.intersection(*(set(curve) for curve in found)))  # seeds may be measured unlike often
    if not epochs:
        return
    values = np.array([[curve[epoch] for epoch in epochs] for curve in found])
    (line,) = axes.plot(epochs, values.mean(0), label=label)
    axes.fill_between(epochs, values.min(0), values.max(0), alpha=0.15, color=line.get_color())


def _points(history: Sequence[Epoch], value: Callable[[Epoch], float | None]) -> list[tuple[int, float]]:
    """(epoch, value) of every epoch that has one."""
    return [(line["epoch"], found) for line in history if (found := value(line)) is not None]


def _loss(line: Epoch) -> float | None:
    return float(line["loss"])


def _history(result: Result) -> list[Epoch]:
    path = result.folder / METRICS
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
