"""The charts of a sweep: settings against the metric, and the metric against what a network costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from decant.pipeline.report.charts import HEIGHT, Points

_KINDS = ("students", "baseline")
_BEST = "#D55E00"
_STATES = {
    "best": _BEST,
    "done": "#8C8C8C",
    "pruned": "#56B4E9",
    "failed": "#CC79A7",
    "running": "#E69F00",
}
"""The colours of trials."""


def parallel(points: Points, settings: Sequence[str], title: str) -> alt.Chart:
    """One line for each trial through its settings. Points: trial, setting, place in 0..1, text, value."""
    # a label has a line for each part of student.objective.alpha, or labels would touch on a narrow page
    axis = alt.Axis(labelAngle=0, labelLimit=220, labelExpr="split(datum.label, '.')")
    chart = (
        alt.Chart(alt.Data(values=list(points)))
        .mark_line(opacity=0.7, point=alt.OverlayMarkDef(size=30))
        .encode(
            alt.X("setting:N", sort=list(settings), title=None, axis=axis),
            alt.Y("place:Q", title="smallest to largest value", axis=alt.Axis(labels=False, ticks=False)),
            alt.Detail("trial:N"),
            color=alt.Color("value:Q", title=title, scale=alt.Scale(scheme="viridis")),
            tooltip=["trial:N", "setting:N", "text:N", alt.Tooltip("value:Q", title=title, format=".5~g")],
        )
    )
    return chart.properties(width="container", height=HEIGHT)


def against_setting(points: Points, setting: str, title: str, *, numbers: bool, log: bool) -> alt.LayerChart:
    """The metric of each trial against one setting, and the range of the fresh seeds of the best. Points: kind, x,
    value, trial; of fresh seeds kind, x, mean, low, high.
    """
    x: Any = alt.X("x:N", title=setting, axis=alt.Axis(labelAngle=0, labelLimit=160))
    if numbers:
        scale = alt.Scale(type="log" if log else "linear", zero=False, nice=False, padding=12)
        x = alt.X("x:Q", title=setting, scale=scale, axis=alt.Axis(format=",.3~r"))
    metric = alt.Scale(zero=False, padding=12)
    kinds = alt.Scale(domain=list(_KINDS))
    trials = (
        alt.Chart(alt.Data(values=[one for one in points if "value" in one]))
        .mark_point(filled=True, size=60, opacity=0.7)
        .encode(
            x,
            alt.Y("value:Q", title=title, scale=metric),
            color=alt.Color("kind:N", title=None, scale=kinds, legend=alt.Legend(orient="top")),
            tooltip=[
                "kind:N",
                "trial:N",
                alt.Tooltip("x:Q" if numbers else "x:N", title=setting),
                alt.Tooltip("value:Q", format=".5~g"),
            ],
        )
    )
    spread = alt.Chart(alt.Data(values=[one for one in points if "mean" in one]))
    rule = spread.mark_rule(color=_BEST, strokeWidth=2).encode(
        x, alt.Y("low:Q", title=title, scale=metric), y2="high:Q"
    )
    mean = spread.mark_point(color=_BEST, shape="diamond", size=90).encode(
        x,
        alt.Y("mean:Q", title=title, scale=metric),
        tooltip=[alt.Tooltip(f"{one}:Q", format=".5~g") for one in ("low", "mean", "high")],
    )
    return _layered(trials, rule, mean)


def importances(points: Points) -> alt.Chart:
    """One bar for each setting. Points: setting, share in 0..1."""
    chart = (
        alt.Chart(alt.Data(values=list(points)))
        .mark_bar()
        .encode(
            alt.X("share:Q", title="share of what decides", axis=alt.Axis(format="%")),
            alt.Y("setting:N", title=None, sort="-x", axis=alt.Axis(labelLimit=220)),
            tooltip=["setting:N", alt.Tooltip("share:Q", format=".1%")],
        )
    )
    return chart.properties(width="container", height=max(80, 28 * len(points)))


def learning(points: Points, title: str) -> alt.Chart:
    """One line for each trial, the best in colour. Points: trial, epoch, value, state."""
    found = {point["state"] for point in points}
    states = [state for state in _STATES if state in found]
    chart = (
        alt.Chart(alt.Data(values=list(points)))
        .mark_line(opacity=0.75)
        .encode(
            alt.X(
                "epoch:Q", title="epoch", axis=alt.Axis(tickMinStep=1, tickCount=8, grid=False, format="d")
            ),
            alt.Y("value:Q", title=title, scale=alt.Scale(zero=False)),
            alt.Detail("trial:N"),
            color=alt.Color(
                "state:N",
                title=None,
                scale=alt.Scale(domain=states, range=[_STATES[state] for state in states]),
                legend=alt.Legend(orient="top", columns=3),
            ),
            tooltip=["trial:N", "state:N", "epoch:Q", alt.Tooltip("value:Q", title=title, format=".5~g")],
        )
    )
    return chart.properties(width="container", height=HEIGHT)


def frontier(points: Points, x_title: str, y_title: str) -> alt.LayerChart:
    """The metric against a cost, and the line of the trials that no other beats in both. Points: trial, network, x, y,
    frontier.
    """
    x = alt.X(
        "x:Q",
        title=x_title,
        scale=alt.Scale(type="log", nice=False, padding=20),
        axis=alt.Axis(format=",.3~r"),
    )
    y = alt.Y("y:Q", title=y_title, scale=alt.Scale(zero=False, padding=12))
    every = (
        alt.Chart(alt.Data(values=list(points)))
        .mark_point(filled=True, size=70, opacity=0.7)
        .encode(
            x,
            y,
            tooltip=[
                "trial:N",
                "network:N",
                alt.Tooltip("x:Q", title=x_title),
                alt.Tooltip("y:Q", title=y_title),
            ],
        )
    )
    on_it = [one for one in points if one["frontier"]]
    line = (
        alt.Chart(alt.Data(values=on_it))
        .mark_line(color=_BEST, point=alt.OverlayMarkDef(color=_BEST, size=90), interpolate="step-after")
        .encode(x, y)
    )
    return _layered(every, line)


def _layered(*layers: alt.Chart) -> Any:  # Altair types what `layer` returns as more than it can be here
    return alt.layer(*layers).properties(width="container", height=HEIGHT)
