"""The table of networks as Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from decant.pipeline.report.rows import Row, format_cells, gains, headings


def markdown(title: str, rows: Sequence[Row]) -> str:
    """A title, the table, what it was measured on, and what the students gained."""
    columns = headings(rows)
    lines = [f"# {title}", "", "| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    lines += ["| " + " | ".join(format_cells(row)) + " |" for row in rows]
    machines = sorted({row.first.latency_on for row in rows if row.first.latency_on})
    note = (
        f"Test {rows[0].figure.name}: mean ± standard deviation over n seeds. "
        f"Milliseconds: batch 1; {', '.join(machines) or 'not measured'}."
    )
    return "\n".join([*lines, "", note, *(f"\n{gain}." for gain in gains(rows)), ""])
