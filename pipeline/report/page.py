"""Renders sections into one HTML file that opens from disk and fetches nothing.

The plotting library's script is in the file; a content security policy forbids everything else that a page could
fetch or run. The template engine escapes whatever comes from data or runs, in text, attributes and JSON alike.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import metadata
from typing import Any

import jinja2
from markupsafe import Markup

from decant.cache.io.redaction import redacted
from decant.pipeline.report import library
from decant.pipeline.report.charts import THEMES
from decant.pipeline.support.terminal import printable


@dataclass(frozen=True)
class Section:
    """A section of the page: the content of its template, `templates/NAME.html`."""

    name: str
    title: str
    content: Mapping[str, Any] = field(default_factory=dict)
    charts: Mapping[str, Any] = field(default_factory=dict)
    """Altair charts by name; the template places each."""
    data: Any = None
    """JSON content for the section's script."""
    missing: str | None = None
    """Why the section is empty; None if it is not."""


def render(title: str, sections: Sequence[Section], networks: Sequence[str]) -> bytes:
    """The page, in UTF-8. `networks` are the names of the networks in charts, in their order."""
    charts = {
        f"{section.name}-{name}": _specification(chart)
        for section in sections
        for name, chart in section.charts.items()
    }
    text = (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            version=metadata.version("decant-kd"),
            sections=sections,
            networks=networks,
            charts=_json(charts),
            themes=_json(THEMES),
            data=_json({section.name: section.data for section in sections if section.data is not None}),
            library=_script(library.script()),
            scripts=[_script(_source(name)) for name in ("page.js", "inspector.js", "trials.js")],
            style=Markup(_source("page.css")),
        )
    )
    return text.encode()


def _specification(chart: Any) -> dict[str, Any]:
    """The specification of a chart, without Altair's version of Vega-Lite, which the page's own need not be."""
    return {name: value for name, value in chart.to_dict(validate=False).items() if name != "$schema"}


def _script(source: str) -> Markup:
    """A script with every `</script` escaped, which would end its element."""
    return Markup(source.replace("</script", r"<\/script"))


def _json(content: Any) -> Markup:
    """JSON that is safe inside a script element. Raises ValueError for NaN, which JSON does not have."""
    text = json.dumps(_clean(content), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026"))


def _clean(content: Any) -> Any:
    """The same content without secrets in its texts, and without the controls and marks of direction that would change
    the page around them; the keys of tables are ours.
    """
    if isinstance(content, str):
        return content if isinstance(content, Markup) else printable(redacted(content), keep="\n\t")
    if isinstance(content, Mapping):
        return {name: _clean(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_clean(value) for value in content]
    return content


@cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("decant.pipeline.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: _clean(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda value: "–" if value is None else f"{value:,}"
    environment.filters["seconds"] = seconds
    return environment


def seconds(value: float | None) -> str:
    """A duration in a fitting unit; a dash if it is not known."""
    if value is None:
        return "–"
    if value < 0.001:
        return "less than 1 ms"
    if value < 1:
        return f"{1000 * value:,.3g} ms"
    if value < 120:
        return f"{value:,.3g} s" if value < 10 else f"{value:,.0f} s"
    return f"{value / 60:,.1f} min" if value < 7200 else f"{value / 3600:,.1f} h"


def _source(name: str) -> str:
    environment = _environment()
    assert environment.loader is not None
    return environment.loader.get_source(environment, name)[0]
