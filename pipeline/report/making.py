"""Finished networks → the table, the curves and the page."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from decant.cache.io.files import write_atomically
from decant.pipeline.report import charts, history
from decant.pipeline.report.markdown import markdown
from decant.pipeline.report.page import render
from decant.pipeline.report.rows import Gain, Row, gains
from decant.pipeline.report.sections.answer import answer
from decant.pipeline.report.sections.cached import cached
from decant.pipeline.report.sections.cost import cost
from decant.pipeline.report.sections.curves import curves, points
from decant.pipeline.report.sections.exported import exported
from decant.pipeline.report.sections.inspector import inspector
from decant.pipeline.report.sections.quality import quality
from decant.pipeline.report.subject import Subject

TABLE = "report.md"
CURVES = "curves.png"
PAGE = "report.html"
_PICTURE_POINTS = 1_000  # a curve


@dataclass(frozen=True)
class Report:
    """The rows, and where they were written."""

    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    table: Path
    curves: Path | None
    """None where no network noted its epochs."""
    page: Path
    missing: tuple[str, ...]
    """Sections of the page that could not be made, and why."""

    @property
    def files(self) -> list[Path]:
        """All that was written."""
        return [path for path in (self.page, self.table, self.curves) if path is not None]

    def as_json(self) -> dict[str, Any]:
        """The same for programs."""
        return {
            "files": self.files,
            "networks": [
                {
                    "network": str(row.first.network),
                    "learnt_from": row.kind,
                    "figure": row.figure.key,
                    "by_seed": row.by_seed,
                    "parameters": row.first.parameters,
                    "weights_bytes": row.first.weights_bytes,
                    "folders": [result.folder for result in row.results],
                }
                for row in self.rows
            ],
            "gains": [
                {
                    "folder": gain.student.first.folder.parent,
                    "gain": gain.mean,
                    "standard_error": gain.error,
                    "gap_closed": gain.share,
                }
                for gain in self.gains
            ],
            "missing": list(self.missing),
        }


def make_report(subject: Subject, folder: Path) -> Report:
    """Writes `report.md`, `curves.png` and `report.html` into a folder."""
    write_atomically(folder / TABLE, markdown(subject.title, subject.rows).encode())
    picture = _picture(subject)
    if picture is not None:
        write_atomically(folder / CURVES, picture)
    sections = [section(subject) for section in (answer, curves, cached, inspector, quality, cost, exported)]
    write_atomically(folder / PAGE, render(subject.title, sections, subject.names))
    return Report(
        subject.rows,
        tuple(gains(subject.rows)),
        folder / TABLE,
        None if picture is None else folder / CURVES,
        folder / PAGE,
        tuple(f"{section.title}: {section.missing}" for section in sections if section.missing),
    )


def _picture(subject: Subject) -> bytes | None:
    """Loss and test figure by epoch, as a PNG."""
    import altair as alt
    import vl_convert

    figure, loss, *_ = history.quantities(subject.rows[0].figure)
    drawn = {quantity: history.curves(subject.rows, quantity) for quantity in (loss, figure)}
    if not all(drawn.values()):
        return None
    sides = [
        charts.curves(
            points(found, _PICTURE_POINTS),
            subject.names,
            quantity.title,
            log=quantity.is_logarithmic(found),
            legend=True,
        ).properties(width=420)
        for quantity, found in drawn.items()
    ]
    whole = alt.hconcat(*sides).to_dict()
    return bytes(vl_convert.vegalite_to_png(whole, scale=2, config=charts.THEMES["picture"]))
