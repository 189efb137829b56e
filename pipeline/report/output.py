"""`decant report` writes three files: `report.md` (the table), `report.html` (the page) and `curves.png`.

Page and curves need the extra `report`; what imports its libraries is imported here when they are there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from decant.cache.io.files import write_atomically
from decant.pipeline.errors import ModelError
from decant.pipeline.report import history, library
from decant.pipeline.report.rows import Gain, Row, gains, markdown_table
from decant.pipeline.report.subject import Subject
from decant.pipeline.support.plugins import optional

if TYPE_CHECKING:
    from decant.pipeline.report.page import Section
    from decant.pipeline.report.sweep_subject import SweepSubject

TABLE = "report.md"
CURVES = "curves.png"
PAGE = "report.html"
_LIBRARIES = ("altair", "vl_convert", "jinja2")
_PICTURE_POINTS = 1_000  # a curve


@dataclass(frozen=True)
class Report:
    """The networks compared, and the files that were written."""

    rows: tuple[Row, ...]
    gains: tuple[Gain, ...]
    table: Path
    curves: Path | None
    """None where no network recorded its epochs, or the libraries are missing."""
    page: Path | None
    """None where the libraries are missing."""
    missing: tuple[str, ...]
    """Sections of the page, or files, that could not be made, and why."""
    unfinished: tuple[str, ...] = ()
    """One line for each kind of student of which not all seeds are finished."""

    @property
    def files(self) -> list[Path]:
        """All files that were written."""
        return [path for path in (self.page, self.table, self.curves) if path is not None]

    def as_json(self) -> dict[str, Any]:
        """The JSON of a report."""
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
            "unfinished": list(self.unfinished),
        }


def make_report(subject: Subject, folder: Path) -> Report:
    """Writes `report.md` into `folder`, and `report.html` and `curves.png` where their libraries are installed."""
    write_atomically(folder / TABLE, markdown_table(subject.title, subject.rows, subject.unfinished).encode())
    reason = missing_library()
    if reason is not None:
        picture, page, missing = None, None, [f"{PAGE} and {CURVES}: {reason}"]
    else:
        with library.bundled_beside():
            picture, (page, missing) = _picture(subject), _page(subject)
    for name, content in ((CURVES, picture), (PAGE, page)):
        if content is not None:
            write_atomically(folder / name, content)
    return Report(
        subject.rows,
        tuple(gains(subject.rows)),
        folder / TABLE,
        None if picture is None else folder / CURVES,
        None if page is None else folder / PAGE,
        tuple(missing),
        subject.unfinished,
    )


def make_sweep_page(subject: SweepSubject, folder: Path) -> Path:
    """Writes the page, and returns its path. Raises ModelError where a library is missing, with the command that
    installs it.
    """
    reason = missing_library()
    if reason is not None:
        raise ModelError(reason)
    from decant.pipeline.report.page import render
    from decant.pipeline.report.sweep_sections.frontier import frontier
    from decant.pipeline.report.sweep_sections.learning import learning
    from decant.pipeline.report.sweep_sections.settings import settings
    from decant.pipeline.report.sweep_sections.trials import trials

    sections = [section(subject) for section in (trials, settings, learning, frontier)]
    write_atomically(folder / PAGE, render(subject.title, sections, ()))
    return folder / PAGE


def missing_library() -> str | None:
    """The library that page and curves lack, with the command that installs it; None where all are there."""
    try:
        for library in _LIBRARIES:
            optional(library, "report", ModelError)
    except ModelError as error:
        return str(error)
    return None


def _page(subject: Subject) -> tuple[bytes, list[str]]:
    """The page in UTF-8, and the sections that could not be made, with the reason."""
    from decant.pipeline.report.page import render

    sections = _sections(subject)
    missing = [f"{section.title}: {section.missing}" for section in sections if section.missing]
    return render(subject.title, sections, subject.names), missing


def _sections(subject: Subject) -> list[Section]:
    """The sections, in the order of the page."""
    from decant.pipeline.report.sections.answer import answer
    from decant.pipeline.report.sections.cached import cached
    from decant.pipeline.report.sections.cost import cost
    from decant.pipeline.report.sections.curves import curves
    from decant.pipeline.report.sections.exported import exported
    from decant.pipeline.report.sections.inspector import inspector
    from decant.pipeline.report.sections.quality import quality
    from decant.pipeline.report.sections.saved import saved
    from decant.pipeline.report.sections.tokens import tokens

    if subject.of_tokens:
        return [section(subject) for section in (answer, curves, tokens, saved)]
    return [section(subject) for section in (answer, curves, cached, inspector, quality, cost, exported)]


def _picture(subject: Subject) -> bytes | None:
    """A PNG of loss and test metric by epoch; None where no network recorded its epochs."""
    import altair as alt
    import vl_convert

    from decant.pipeline.report import charts
    from decant.pipeline.report.sections.curves import points

    figure, loss, *_ = history.quantities(subject.rows[0].figure, history.measured_part(subject.results))
    drawn = {quantity: history.curves(subject.rows, quantity) for quantity in (loss, figure)}
    if not all(drawn.values()):
        return None
    sides = [
        charts.curves(
            points(curves_of_rows, _PICTURE_POINTS),
            subject.names,
            quantity.title,
            log=quantity.is_logarithmic(curves_of_rows),
            legend=True,
        ).properties(width=420)
        for quantity, curves_of_rows in drawn.items()
    ]
    whole = alt.hconcat(*sides).to_dict(validate=False)
    return bytes(vl_convert.vegalite_to_png(whole, scale=2, config=charts.THEMES["picture"]))
