"""The charts of the report, made with Altair in colours that most colour-blind readers can tell apart, light and
dark.

A chart has no theme of its own: the page or the picture adds one of THEMES, and the page the width. Points identify
networks by their place among the rows, `network`; the chart parameter `shown` lists the networks to draw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

AnyChart = alt.Chart | alt.LayerChart
Points = Sequence[Mapping[str, Any]]
"""One record for each mark."""

# Okabe and Ito, "Color Universal Design" (2008), without black and yellow, which white hides; for dark ground lighter.
_ON_LIGHT = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C8C8C")
_ON_DARK = ("#4FA9E2", "#E69F00", "#1FBF8F", "#DB93BD", "#F0843F", "#A5DEF5", "#A8A8A8")
HEIGHT = 240
_SHAPES = {"teacher": "diamond", "labels": "circle", "distilled": "triangle-up"}


def _theme(text: str, grid: str, background: str, palette: Sequence[str]) -> dict[str, Any]:
    return {
        "background": background,
        "font": "system-ui, sans-serif",
        "view": {"stroke": None},
        "axis": {
            "labelColor": text,
            "titleColor": text,
            "gridColor": grid,
            "domainColor": grid,
            "tickColor": grid,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 12,
            "labelSeparation": 6,  # on a narrow page, or a logarithmic axis, labels would touch
        },
        "legend": {
            "labelColor": text,
            "titleColor": text,
            "titleFontWeight": "normal",
            "labelFontSize": 12,
            "titleFontSize": 12,
        },
        "text": {"color": text},
        "rule": {"color": text},
        "range": {"category": list(palette)},  # used over and over where there are more
    }


THEMES = {
    "light": _theme("#24292f", "#d8dee4", "transparent", _ON_LIGHT),
    "dark": _theme("#e6edf3", "#3d444d", "transparent", _ON_DARK),
    "picture": _theme("#24292f", "#d8dee4", "white", _ON_LIGHT),
}


def curves(
    points: Points, names: Sequence[str], title: str, *, log: bool = False, legend: bool = False
) -> alt.LayerChart:
    """Mean by epoch, with the range of the seeds as a band. Points: network, epoch, mean, low, high."""
    network = _named_network(names) if legend else _network(names)
    scale = alt.Scale(type="log") if log else alt.Scale(zero=False)
    over_epochs = alt.X("epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, tickCount=8, grid=False))
    tooltip = [
        "name:N",
        "epoch:Q",
        *(alt.Tooltip(f"{one}:Q", format=".5~g") for one in ("mean", "low", "high")),
    ]
    base = _named(points, names)
    band = base.mark_area(opacity=0.15).encode(
        over_epochs, alt.Y("low:Q", title=title, scale=scale), y2="high:Q", color=network
    )
    line = base.mark_line(point=alt.OverlayMarkDef(size=16)).encode(
        over_epochs,
        alt.Y("mean:Q", title=title, scale=scale, axis=alt.Axis(format=".6~g")),
        color=network,
        tooltip=tooltip,
    )
    return _sized(alt.layer(band, line))


def scatter(points: Points, names: Sequence[str], x_title: str, y_title: str) -> alt.Chart:
    """One mark for each network: its metric against its cost, on a logarithmic axis. Points: network, kind, seed, x,
    y.
    """
    kinds = list(_SHAPES)
    chart = (
        _named(points, names)
        .mark_point(size=90, filled=True, opacity=0.7)
        .encode(
            alt.X(
                "x:Q",
                title=x_title,
                scale=alt.Scale(type="log", nice=False, padding=20),
                axis=alt.Axis(format=",.3~r"),
            ),
            alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False, padding=12)),
            color=_network(names),
            shape=alt.Shape(
                "kind:N", scale=alt.Scale(domain=kinds, range=list(_SHAPES.values())), legend=None
            ),
            tooltip=[
                "name:N",
                "seed:N",
                alt.Tooltip("x:Q", title=x_title, format=",.4~r"),
                alt.Tooltip("y:Q", title=y_title, format=".5~g"),
            ],
        )
    )
    return _sized(chart)


def histogram(points: Points, title: str, series: Sequence[str]) -> alt.Chart:
    """Shares of samples by bin, one step line for each series. Points: series, low, high, share in percent."""
    chart = (
        alt.Chart(_data(points))
        .mark_area(opacity=0.35, interpolate="step-after", line=True)
        .encode(
            alt.X("low:Q", title=title),
            alt.Y("share:Q", title="% of rows", stack=None),
            color=_series(series),
            tooltip=["series:N", alt.Tooltip("low:Q", format=".3~g"), alt.Tooltip("share:Q", format=".3~g")],
        )
    )
    return _sized(chart)


def matrix(points: Points, x_title: str, y_title: str, value_title: str, classes: int) -> alt.Chart:
    """A matrix of shares in 0..1, coloured on a square-root scale. Points: row, column, value and optionally count."""
    side = max(HEIGHT, min(16 * classes, 640))
    tooltip = [
        alt.Tooltip("row:N", title=y_title),
        alt.Tooltip("column:N", title=x_title),
        alt.Tooltip("value:Q", title=value_title, format=".4~f"),
    ]
    if points and "count" in points[0]:
        tooltip.append(alt.Tooltip("count:Q", title="samples", format=","))
    labels = alt.Axis(labelOverlap=True, labelLimit=160)
    chart = (
        alt.Chart(_data(points))
        .mark_rect()
        .encode(
            alt.X("column:N", title=x_title, sort=None, axis=labels),
            alt.Y("row:N", title=y_title, sort=None, axis=labels),
            alt.Color(
                "value:Q",
                title=value_title,
                scale=alt.Scale(type="sqrt", scheme="viridis", domain=[0, 1]),
                legend=alt.Legend(orient="bottom", gradientLength=160, values=[0, 0.05, 0.25, 0.5, 1]),
            ),
            tooltip=tooltip,
        )
    )
    return chart.properties(width="container", height=side)


def reliability(points: Points, series: Sequence[str]) -> alt.LayerChart:
    """Accuracy against confidence (a reliability diagram); the more samples a bin has, the larger is its mark. Points:
    series, confidence, accuracy, count; shares in 0..1.
    """
    unit = alt.Scale(domain=[0, 1])
    diagonal = (
        alt.Chart(_data([{"x": 0, "y": 0}, {"x": 1, "y": 1}]))
        .mark_line(strokeDash=[4, 4], color="#8C8C8C")
        .encode(alt.X("x:Q", scale=unit), alt.Y("y:Q", scale=unit))
    )
    measured = alt.Chart(_data(points)).encode(
        alt.X("confidence:Q", title="confidence, mean of the bin", scale=unit),
        alt.Y("accuracy:Q", title="share that is right", scale=unit),
        color=_series(series),
        tooltip=[
            "series:N",
            *(alt.Tooltip(f"{name}:Q", format=".4~f") for name in ("confidence", "accuracy")),
            alt.Tooltip("count:Q", title="samples", format=","),
        ],
    )
    size = alt.Size("count:Q", scale=alt.Scale(type="sqrt", range=[8, 250]), legend=None)
    marks = measured.mark_point(filled=True, opacity=0.75).encode(size=size)
    return _sized(alt.layer(diagonal, measured.mark_line(opacity=0.4), marks))


def bars(points: Points, title: str, series: Sequence[str], rows: int) -> alt.Chart:
    """One bar for each class and series, to the left or right of zero. Points: class, series, value."""
    chart = (
        alt.Chart(_data(points))
        .mark_bar()
        .encode(
            alt.X("value:Q", title=title),
            alt.Y("class:N", title=None, sort=None, axis=alt.Axis(labelLimit=120)),
            alt.YOffset("series:N", sort=list(series)),
            color=_series(series),
            tooltip=["class:N", "series:N", alt.Tooltip("value:Q", format="+.2f")],
        )
    )
    return chart.properties(width="container", height=max(80, 12 * rows * len(series)))


def against(points: Points, x_title: str, y_title: str, series: Sequence[str]) -> alt.LayerChart:
    """Outputs against targets, with the diagonal. Points: series, x, y."""
    values = [point[axis] for point in points for axis in "xy"]
    low, high = min(values, default=0), max(values, default=1)
    same = (
        alt.Chart(_data([{"x": low, "y": low}, {"x": high, "y": high}]))
        .mark_line(strokeDash=[4, 4], color="#8C8C8C")
        .encode(x="x:Q", y="y:Q")
    )
    measured = (
        alt.Chart(_data(points))
        .mark_point(filled=True, opacity=0.5)
        .encode(
            alt.X("x:Q", title=x_title, scale=alt.Scale(zero=False)),
            alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False)),
            color=_series(series),
            tooltip=["series:N", alt.Tooltip("x:Q", format=".4~g"), alt.Tooltip("y:Q", format=".4~g")],
        )
    )
    return _sized(alt.layer(same, measured))


def rising(points: Points, x_title: str, y_title: str, series: Sequence[str]) -> alt.Chart:
    """Lines of what adds up with every student. Points: series, x, y."""
    chart = (
        alt.Chart(_data(points))
        .mark_line(point=True)
        .encode(
            alt.X("x:Q", title=x_title, axis=alt.Axis(tickMinStep=1, grid=False)),
            alt.Y("y:Q", title=y_title),
            color=_series(series),
            tooltip=[
                "series:N",
                alt.Tooltip("x:Q", title=x_title),
                alt.Tooltip("y:Q", title=y_title, format=",.4~r"),
            ],
        )
    )
    return _sized(chart)


def _data(points: Points) -> alt.Data:
    return alt.Data(values=list(points))


def _sized(chart: Any) -> Any:  # Altair types what `layer` returns as more than it can be here
    return chart.properties(width="container", height=HEIGHT)


def _named(points: Points, names: Sequence[str]) -> alt.Chart:
    """A chart of the networks in `shown`, each with its name."""
    return (
        alt.Chart(_data(points))
        .add_params(alt.param(name="shown", value=list(range(len(names)))))
        .transform_filter("indexof(shown, datum.network) >= 0")
        .transform_calculate(name=f"{json.dumps(list(names))}[datum.network]")
    )


def _network(names: Sequence[str]) -> alt.Color:
    return alt.Color("network:N", scale=alt.Scale(domain=list(range(len(names)))), legend=None)


def _named_network(names: Sequence[str]) -> alt.Color:
    legend = alt.Legend(title=None, orient="bottom", columns=1, labelLimit=400, symbolOpacity=1)
    return alt.Color("name:N", scale=alt.Scale(domain=list(names)), legend=legend)


def _series(series: Sequence[str]) -> alt.Color:
    legend = alt.Legend(orient="top", symbolOpacity=1)
    return alt.Color("series:N", title=None, scale=alt.Scale(domain=list(series)), legend=legend)
