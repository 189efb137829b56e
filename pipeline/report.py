"""What a person looks at: the table of a recipe's networks, as Markdown, and their curves."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pipeline import networks
from pipeline.errors import NotMadeError
from pipeline.files import write_atomically
from pipeline.recipe import Recipe
from pipeline.runs import Result, results
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
    top1: tuple[float, ...]
    """On the test part, a value a seed; none where that has no labels."""
    latency_ms: float
    """Median of one image at batch 1 on the CPU."""
    first: Result
    """The network of the first seed."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.top1)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    @property
    def top1_text(self) -> str:
        """Percent, with spread and seeds; a dash where nothing is known."""
        if not self.top1:
            return "–"
        spread = "" if self.spread is None else f" ± {100 * self.spread:.2f}"
        return f"{100 * self.mean:.2f}{spread} % (n = {len(self.top1)})"


@dataclass(frozen=True)
class Report:
    """The rows and where they were written."""

    rows: tuple[Row, ...]
    gap_closed: list[str]
    table: Path
    curves: Path


HEADINGS = ("network", "learnt from", "parameters", "weight file", "test top-1", "ms an image")


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


def gap_closed(rows: Sequence[Row]) -> list[str]:
    """A sentence for each distilled student: what it gained over its baseline, the labels-only student that
    differs in nothing else, and what share of the gap between that and the teacher it closed.
    """
    teachers = {row.first.weights_sha256: row for row in rows if row.first.kind == "teacher"}
    baselines = {row.first.folder.parent.name: row for row in rows if row.first.kind == "labels"}
    lines = []
    for student in (row for row in rows if row.first.kind == "distilled"):
        alone = baselines.get(student.first.baseline or "")
        if alone is None or not student.top1 or len(alone.top1) != len(student.top1):
            continue
        gain = student.mean - alone.mean
        line = f"{student.name}, {student.kind}: {100 * gain:+.2f} points over labels only"
        line += _error(student, alone)
        teacher = teachers.get(student.first.teacher or "")
        if teacher is not None and teacher.top1 and teacher.mean > alone.mean:
            line += f", {100 * gain / (teacher.mean - alone.mean):.0f} % of the gap to the teacher closed"
        lines.append(line)
    return lines


def format_cells(row: Row) -> tuple[str, ...]:
    """A row of the table, in the order of HEADINGS."""
    return (
        row.name,
        row.kind,
        f"{row.parameters:,}",
        f"{row.weights_bytes:,} B",
        row.top1_text,
        f"{row.latency_ms:.3f}",
    )


def _error(student: Row, alone: Row) -> str:
    """The standard error of the mean gain, seed by seed: both students of a seed begin with the same weights."""
    if len(student.top1) < 2:
        return ""
    gains = [one - other for one, other in zip(student.top1, alone.top1, strict=True)]
    return f" (standard error {100 * statistics.stdev(gains) / len(gains) ** 0.5:.2f})"


def _group(result: Result) -> str:
    return str(result.folder if result.kind == "teacher" else result.folder.parent)


def _row(group: Sequence[Result]) -> Row:
    first = group[0]
    return Row(
        name=str(first.network),
        kind=_learnt(first),
        parameters=first.parameters,
        weights_bytes=first.weights_bytes,
        top1=tuple(result.metrics["top1"] for result in group if "top1" in result.metrics),
        latency_ms=latency_ms(first),
        first=first,
    )


def _learnt(result: Result) -> str:
    """What a network learnt from: teacher, labels, or an objective with its values."""
    if result.objective is None:
        return result.kind
    values = ", ".join(f"{name} {value:g}" for name, value in result.objective.items() if name != "name")
    return f"{result.objective['name']} ({values})"


@torch.inference_mode()
def latency_ms(result: Result, repetitions: int = 50) -> float:
    """Median milliseconds of one image through a finished network at batch 1, on the CPU, warmed up."""
    network = networks.load(result).eval()
    image = torch.zeros((1, *result.network.input_shape), dtype=torch.uint8)
    times = []
    for _ in range(repetitions + 10):
        started = time.perf_counter()
        network(image)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[10:]))


def _markdown(recipe: Recipe, rows: Iterable[Row], closed: Sequence[str]) -> str:
    lines = [f"# {recipe.name}", "", "| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(format_cells(row)) + " |" for row in rows]
    note = (
        "Test top-1: mean ± standard deviation over n seeds. "
        f"Milliseconds: batch 1, CPU, {os.cpu_count()} cores."
    )
    return "\n".join([*lines, "", note, *(f"\n{line}." for line in closed), ""])


def _draw(groups: Sequence[Sequence[Result]], path: Path) -> None:
    """Loss and test top-1 by epoch: the mean over seeds, and their range as a band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for group in groups:
        histories = [_history(result) for result in group]
        if all(histories):
            label = f"{group[0].network}, {_learnt(group[0])}"
            _band(left, [_points(history, _loss) for history in histories], label)
            _band(right, [_points(history, _top1) for history in histories], label)
    left.set(xlabel="epoch", ylabel="training loss (each its own objective)", yscale="log")
    right.set(xlabel="epoch", ylabel="test top-1, %")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    draft = path.with_suffix(f".{os.getpid()}.png")
    figure.savefig(draft, dpi=150)
    pyplot.close(figure)
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


def _top1(line: Epoch) -> float | None:
    share = line.get("test", {}).get("top1")
    return None if share is None else 100 * share


def _history(result: Result) -> list[Epoch]:
    path = result.folder / METRICS
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
