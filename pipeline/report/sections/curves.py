"""Curves: how networks came to be what they are, epoch by epoch."""

from __future__ import annotations

from typing import Any

from decant.pipeline.report import charts, history
from decant.pipeline.report.page import Section
from decant.pipeline.report.subject import Subject

MAX_POINTS = 12_000
"""Of all curves of the page together, each at even distances where there are more."""


def curves(subject: Subject) -> Section:
    """A chart for each quantity that any network noted, all networks in it."""
    found = {
        quantity: history.curves(subject.rows, quantity)
        for quantity in history.quantities(subject.rows[0].figure)
    }
    found = {quantity: drawn for quantity, drawn in found.items() if drawn}
    if not found:
        return Section("curves", "Curves", missing="no network noted its epochs")
    each = MAX_POINTS // sum(map(len, found.values()))
    return Section(
        "curves",
        "Curves",
        {"notes": {quantity.key: quantity.note for quantity in found}},
        {
            quantity.key: charts.curves(
                points(drawn, each), subject.names, quantity.title, log=quantity.is_logarithmic(drawn)
            )
            for quantity, drawn in found.items()
        },
    )


def points(drawn: dict[int, history.Curve], most: int) -> list[dict[str, Any]]:
    """Records for `charts.curves`, at most so many a curve."""
    return [
        {
            "network": place,
            "epoch": epoch,
            **dict(zip(("mean", "low", "high"), map(_rounded, values), strict=True)),
        }
        for place, curve in drawn.items()
        for epoch, *values in curve.thinned(max(2, most))
    ]


def _rounded(value: float) -> float:
    """Six digits, which a chart shows no more of: the page holds thousands."""
    return float(f"{value:.6g}")
