"""Compares networks: one row for each kind, over its seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from decant.cache.io.redaction import redacted
from decant.pipeline.config.tasks import MetricFormat, headline
from decant.pipeline.report.told_apart import told_apart
from decant.pipeline.runs.result import Result, find_results
from decant.pipeline.support.terminal import one_line

_VALIDATION = (
    "Epochs and settings may have been chosen by the validation part, whose figure is then too good. "
)


@dataclass(frozen=True)
class Row:
    """One kind of network, over its seeds."""

    results: tuple[Result, ...]
    """One for each seed."""
    figure: MetricFormat
    """The metric that networks of this task are compared by."""
    told_by: str = ""
    """What tells it from the other rows of its name and kind: settings, or the digest of its folder."""

    @property
    def first(self) -> Result:
        """The network of the first seed."""
        return self.results[0]

    @property
    def name(self) -> str:
        return self.first.network.short

    @property
    def kind(self) -> str:
        """What it was trained on, in words."""
        return learnt(self.first)

    @property
    def whole_kind(self) -> str:
        """The same, with what tells it from the other rows of its name and kind."""
        return f"{self.kind}, {self.told_by}" if self.told_by else self.kind

    @property
    def by_seed(self) -> dict[int, float]:
        """The test metric of each seed; empty if the test part has no labels."""
        metrics = {result.seed: self.figure.value(result.metrics) for result in self.results}
        return {seed: value for seed, value in metrics.items() if value is not None}

    @property
    def validation_text(self) -> str:
        """The metric on the validation part, mean and standard deviation over the seeds; a dash where there is none."""
        found = [self.figure.value(result.validation or {}) for result in self.results]
        values = [value for value in found if value is not None]
        spread = statistics.stdev(values) if len(values) > 1 else None
        return self.figure.with_spread(statistics.fmean(values), spread) if values else "–"

    @property
    def values(self) -> tuple[float, ...]:
        """The metrics of all seeds."""
        return tuple(self.by_seed.values())

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for fewer than two."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def figure_text(self) -> str:
        """Mean, standard deviation and number of seeds, and of how many if some have no metric; a dash if none has."""
        if not self.values:
            return "–"
        of = "" if len(self.values) == len(self.results) else f" of {len(self.results)}"
        return f"{self.figure.with_spread(self.mean, self.spread)} (n = {len(self.values)}{of})"


@dataclass(frozen=True)
class Gain:
    """The gain of a distilled student over the labels-only student that differs in nothing else, seed by seed."""

    student: Row
    alone: Row
    teacher: Row | None
    """The student's teacher, if it is among the rows."""

    @property
    def alone_values(self) -> list[float]:
        """The labels-only student's metrics, for the seeds of the distilled one."""
        return [self.alone.by_seed[seed] for seed in self.student.by_seed]

    @property
    def gains(self) -> list[float]:
        """The gain of each seed; both students of a seed start from the same weights."""
        figure = self.student.figure
        return [
            figure.gain(one, other) for one, other in zip(self.student.values, self.alone_values, strict=True)
        ]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.gains)

    @property
    def error(self) -> float | None:
        """The standard error of the mean gain; None for a single seed."""
        return statistics.stdev(self.gains) / len(self.gains) ** 0.5 if len(self.gains) > 1 else None

    @property
    def share(self) -> float | None:
        """The share of the gap between labels only and the teacher that was closed: above 1 if the student passes the
        teacher; None if there is no gap or no gain.
        """
        if self.teacher is None or not self.teacher.values or self.mean <= 0:
            return None
        gap = self.student.figure.gain(self.teacher.mean, statistics.fmean(self.alone_values))
        return self.mean / gap if gap > 0 else None

    @property
    def amount(self) -> str:
        """The mean gain or loss, in words."""
        figure = self.student.figure
        if figure.less_is_better:
            worse = "below" if self.mean >= 0 else "above"
            return f"{figure.difference(abs(self.mean)).removeprefix('+')} {worse} labels only"
        if self.mean < 0:
            return f"{figure.difference(-self.mean).removeprefix('+')} below labels only"
        return f"{figure.difference(self.mean)} over labels only"

    @property
    def passes_teacher(self) -> bool:
        """Whether the student is better than its teacher."""
        if self.teacher is None or not self.teacher.values:
            return False
        return self.student.figure.gain(self.student.mean, self.teacher.mean) > 0

    def __str__(self) -> str:
        figure = self.student.figure
        line = f"{self.student.name}, {self.student.whole_kind}: {self.amount}"
        if self.error is not None:
            line += f" (standard error {figure.plain(self.error)})"
        if self.passes_teacher:
            return f"{line}, and it passes the teacher"
        closed = "" if self.share is None else f", {100 * self.share:.0f} % of the gap to the teacher closed"
        return line + closed


def headings(rows: Sequence[Row]) -> tuple[str, ...]:
    """The column headings of a table of these rows."""
    figure = rows[0].figure.name
    validation = (f"validation {figure}",) if are_validated(rows) else ()
    return (
        *("network", "learnt from", "parameters", "weight file"),
        *(f"test {figure}", *validation, "ms a sample"),
    )


def are_validated(rows: Sequence[Row]) -> bool:
    """Whether any of these networks was measured on a validation part, so that a table has a column for it."""
    return any(result.validation for row in rows for result in row.results)


def rows_of(results: Iterable[Result]) -> tuple[Row, ...]:
    """One row for each run folder's seeds, teachers first. Rows of one name and kind know what tells them apart."""
    order = {"teacher": 0, "labels": 1, "distilled": 2}
    in_order = sorted(results, key=lambda result: (order[result.kind], str(result.seeds_folder), result.seed))
    groups = [tuple(seeds) for _, seeds in groupby(in_order, key=lambda result: result.seeds_folder)]
    rows = [Row(seeds, headline(seeds[0].any_metrics)) for seeds in groups]
    names = [f"{row.name}, {row.kind}" for row in rows]
    told = told_apart(names, [(row.first.folder, row.first.seeds_folder) for row in rows])
    return tuple(replace(row, told_by=words) for row, words in zip(rows, told, strict=True))


def compare(base: Path, students: Sequence[Result]) -> tuple[Row, ...]:
    """The rows of some students, after those of their teachers in the run folder."""
    of = {weights for student in students for weights in (student.teacher, *(student.teachers or ()))}
    measured_on = {student.test_sha256 for student in students if student.is_tested}
    teachers = [
        result
        for result in find_results(base, skip_damaged=True)
        if result.kind == "teacher"
        and result.weights_sha256 in of
        and (result.test_sha256 in measured_on or not measured_on)
    ]
    return rows_of([*teachers, *students])


def gains(rows: Sequence[Row]) -> list[Gain]:
    """The gain of each distilled student whose labels-only counterpart has all of its seeds."""
    teachers = {row.first.weights_sha256: row for row in rows if row.first.kind == "teacher"}
    baselines = {row.first.folder.parent.name: row for row in rows if row.first.kind == "labels"}
    all_gains = []
    for student in (row for row in rows if row.first.kind == "distilled"):
        alone = baselines.get(student.first.baseline or "")
        if alone is not None and student.values and student.by_seed.keys() <= alone.by_seed.keys():
            all_gains.append(Gain(student, alone, teachers.get(student.first.teacher or "")))
    return all_gains


def format_cells(row: Row, validated: bool = False) -> tuple[str, ...]:
    """The cells of a row, in the order of `headings`; `validated` is what `are_validated` says of all rows."""
    return (
        row.name,
        row.whole_kind,
        f"{row.first.parameters:,}",
        f"{row.first.weights_bytes:,} B",
        row.figure_text,
        *((row.validation_text,) if validated else ()),
        "–" if row.first.latency_ms is None else f"{row.first.latency_ms:.3f}",
    )


def markdown_table(title: str, rows: Sequence[Row], unfinished: Sequence[str] = ()) -> str:
    """The table in Markdown, with a title, what it was measured on, the gains of students, and what is unfinished."""
    columns = headings(rows)
    lines = [f"# {_plain(title)}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(map(_plain, format_cells(row, are_validated(rows)))) + " |" for row in rows]
    machines = sorted({_plain(row.first.latency_on) for row in rows if row.first.latency_on})
    note = (
        f"Test {rows[0].figure.name}: mean ± standard deviation over n seeds. "
        f"{_VALIDATION if are_validated(rows) else ''}"
        f"Milliseconds: batch 1; {', '.join(machines) or 'not measured'}."
    )
    notes = [note, *map(_plain, descriptions(rows)), *(f"{_plain(str(gain))}." for gain in gains(rows))]
    notes += [f"{_plain(line)}." for line in unfinished]
    return "\n".join([*lines, "", "\n\n".join(notes), ""])


def descriptions(rows: Sequence[Row]) -> list[str]:
    """All arguments of each network whose name in a table is short."""
    networks = [row.first.network for row in rows]
    return list(dict.fromkeys(f"{one.short}: {one}." for one in networks if one.short != str(one)))


def _plain(text: str) -> str:
    """Text that stays one cell of one line of Markdown, without HTML and links."""
    escaped = one_line(redacted(text)).replace("\\", "\\\\").replace("|", "\\|").replace("](", "]\\(")
    return escaped.replace("&", "&amp;").replace("<", "&lt;")


def learnt(result: Result) -> str:
    """What a network was trained on: teacher, labels, or an objective with its values."""
    if result.objective is None:
        return result.kind
    values = (f"{name} {_shown(value)}" for name, value in result.objective.items() if name != "name")
    return f"{result.objective['name']} ({', '.join(values)})".removesuffix(" ()")


def _shown(value: Any) -> str:
    """The value of an objective's setting as text; a schedule by its two ends."""
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
