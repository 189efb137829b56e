"""Training curves: loss terms, metric and learning rate by epoch."""

from __future__ import annotations

from typing import Any

from decant.pipeline.report import charts, history
from decant.pipeline.report.page import Section
from decant.pipeline.report.subject import Subject

MAX_POINTS = 12_000
"""The most points of all curves together; a longer curve is thinned to even distances."""


def curves(subject: Subject) -> Section:
    """One chart for each quantity that any network recorded, with all networks."""
    by_quantity = {
        quantity: history.curves(subject.rows, quantity)
        for quantity in history.quantities(subject.rows[0].figure, history.measured_part(subject.results))
    }
    by_quantity = {quantity: drawn for quantity, drawn in by_quantity.items() if drawn}
    if not by_quantity:
        return Section("curves", "Curves", missing="no network recorded its epochs")
    each = MAX_POINTS // sum(map(len, by_quantity.values()))
    return Section(
        "curves",
        "Curves",
        {"notes": {quantity.key: quantity.note for quantity in by_quantity}},
        {
            quantity.key: charts.curves(
                points(drawn, each), subject.names, quantity.title, log=quantity.is_logarithmic(drawn)
            )
            for quantity, drawn in by_quantity.items()
        },
    )


def points(drawn: dict[int, history.Curve], most: int) -> list[dict[str, Any]]:
    """Records for `charts.curves`, at most `most` for each curve."""
    return [
        {
            "network": row_index,
            "epoch": epoch,
            **dict(zip(("mean", "low", "high"), map(_rounded, values), strict=True)),
        }
        for row_index, curve in drawn.items()
        for epoch, *values in curve.thinned(max(2, most))
    ]


def _rounded(value: float) -> float:
    """A value rounded to six digits, more than a chart shows: the page holds thousands of values."""
    return float(f"{value:.6g}")
