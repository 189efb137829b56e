"""`decant report SWEEP` writes `report.html` into the folder of a sweep; it needs the extra `report`."""

from __future__ import annotations

from pathlib import Path

from decant.cache.io.files import write_atomically
from decant.pipeline.errors import ModelError
from decant.pipeline.report.output import PAGE, missing_library
from decant.pipeline.report.sweep_subject import SweepSubject


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
