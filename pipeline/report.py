"""What a person looks at: the table of a recipe's networks, as Markdown, and their curves."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
import torch

from pipeline import networks
from pipeline.errors import NotMadeError
from pipeline.files import write_atomically
from pipeline.recipe import Recipe
from pipeline.runs import Result, results
from pipeline.training import METRICS

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
    """On the test part, a value a seed."""
    latency_ms: float
    """Median of one image at batch 1 on the CPU."""

    @property
    def mean(self) -> float:
        return statistics.fmean(self.top1)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None of fewer than two."""
        return statistics.stdev(self.top1) if len(self.top1) > 1 else None

    @property
    def top1_text(self) -> str:
        """Percent, with spread and seeds."""
        spread = "" if self.spread is None else f" ± {100 * self.spread:.2f}"
        return f"{100 * self.mean:.2f}{spread} % (n = {len(self.top1)})"


@dataclass(frozen=True)
class Report:
    """The rows and where they were written."""

    rows: tuple[Row, ...]
    gap_closed: str
    table: Path
    curves: Path


HEADINGS = ("network", "learnt from", "parameters", "weight file", "test top-1", "ms an image")


def make_report(recipe: Recipe, base: Path) -> Report:
    """Writes `report.md` and `curves.png` into the recipe's run folder. Raises NotMadeError where nothing is
    finished.
    """
    finished = list(results(base))
    if not finished:
        raise NotMadeError(f"{base}: no finished network to report; run: {recipe.command('teacher')}")
    groups = [list(group) for _, group in groupby(finished, key=_group)]
    rows = tuple(_row(group) for group in groups)
    closed = gap_closed(rows)
    markdown = _markdown(recipe, rows, closed)
    write_atomically(base / TABLE, markdown.encode())
    _draw(groups, base / CURVES)
    return Report(rows, closed, base / TABLE, base / CURVES)


def gap_closed(rows: Sequence[Row]) -> str:
    """A sentence for each distilled student: the share of the gap between labels only and the teacher that it
    closed.

    It compares a distilled student with the labels-only one of the same network and seeds, where there is
    one.
    """
    teachers = [row for row in rows if row.kind == "teacher"]
    lines = []
    for student in (row for row in rows if row.kind not in ("teacher", "labels")):
        alone = [
            row
            for row in rows
            if row.kind == "labels" and row.name == student.name and len(row.top1) == len(student.top1)
        ]
        if len(teachers) == 1 and len(alone) == 1:
            gap, gain = teachers[0].mean - alone[0].mean, student.mean - alone[0].mean
            lines.append(
                f"{student.kind}: {100 * gain:+.2f} points over labels only" + _error(student, alone[0])
            )
            if gap > 0:
                lines[-1] += f", {100 * gain / gap:.0f} % of the gap to the teacher closed"
    return "; ".join(lines)


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
    """The standard error of the difference of two means."""
    if student.spread is None or alone.spread is None:
        return ""
    variance = student.spread**2 / len(student.top1) + alone.spread**2 / len(alone.top1)
    return f" (standard error {100 * variance**0.5:.2f})"


def _group(result: Result) -> str:
    return str(result.folder if result.kind == "teacher" else result.folder.parent)


def _row(group: Sequence[Result]) -> Row:
    first = group[0]
    return Row(
        name=str(first.network),
        kind=_learnt(first),
        parameters=first.parameters,
        weights_bytes=first.weights_bytes,
        top1=tuple(result.metrics.get("top1", float("nan")) for result in group),
        latency_ms=latency_ms(first),
    )


def _learnt(result: Result) -> str:
    """What a network learnt from: teacher, labels, or an objective with its values."""
    if result.objective is None:
        return result.kind
    values = ", ".join(f"{name} {value:g}" for name, value in result.objective.items() if name != "name")
    return f"{result.objective['name']} ({values})"


@torch.inference_mode()
def latency_ms(result: Result, repetitions: int = 50) -> float:
    """Median milliseconds of one image through a finished network at batch 1, on the CPU, after warming up."""
    network = networks.load(result).eval()
    image = torch.zeros((1, *result.network.input_shape), dtype=torch.uint8)
    times = []
    for _ in range(repetitions + 10):
        started = time.perf_counter()
        network(image)
        times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[10:]))


def _markdown(recipe: Recipe, rows: Iterable[Row], closed: str) -> str:
    lines = [f"# {recipe.name}", "", "| " + " | ".join(HEADINGS) + " |", "|---" * len(HEADINGS) + "|"]
    lines += ["| " + " | ".join(format_cells(row)) + " |" for row in rows]
    note = f"Test top-1: mean ± standard deviation over n seeds. Milliseconds: batch 1, CPU, {os.cpu_count()} cores."
    return "\n".join([*lines, "", note, *(["", f"{closed[0].upper()}{closed[1:]}."] if closed else []), ""])


def _draw(groups: Sequence[Sequence[Result]], path: Path) -> None:
    """Loss and test top-1 by epoch: the mean over seeds, and their range as a band."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for group in groups:
        histories = [_history(result) for result in group]
        if not all(histories):
            continue
        label = f"{group[0].network}, {_learnt(group[0])}"
        _band(left, [[(line["epoch"], line["loss"]) for line in history] for history in histories], label)
        measured = [
            [
                (line["epoch"], 100 * line["test"]["top1"])
                for line in history
                if "top1" in line.get("test", {})
            ]
            for history in histories
        ]
        _band(right, measured, label)
    left.set(xlabel="epoch", ylabel="training loss (each its own objective)", yscale="log")
    right.set(xlabel="epoch", ylabel="test top-1, %")
    right.legend(fontsize="small")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    draft = path.with_suffix(f".{os.getpid()}.png")
    figure.savefig(draft, dpi=150)
    pyplot.close(figure)
    os.replace(draft, path)


def _band(axes: object, curves: list[list[tuple[int, float]]], label: str) -> None:
    epochs = [epoch for epoch, _ in curves[0]]
    values = np.array([[value for _, value in curve] for curve in curves])
    (line,) = axes.plot(epochs, values.mean(0), label=label)  # type: ignore[attr-defined]
    axes.fill_between(epochs, values.min(0), values.max(0), alpha=0.15, color=line.get_color())  # type: ignore[attr-defined]


def _history(result: Result) -> list[dict[str, object]]:
    path = result.folder / METRICS
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.exists() else []
