"""The files of `decant export`: what each is, and how far it is from the network that it was made from."""

from __future__ import annotations

import shlex

from pipeline.errors import DamagedError
from pipeline.export.check import HEADINGS
from pipeline.export.exporting import read_summary
from pipeline.report.page import Section
from pipeline.report.subject import Subject


def exported(subject: Subject) -> Section:
    """A table for every run that was exported."""
    tables, problems = [], []
    for result in subject.results:
        try:
            rows = read_summary(result.folder)
        except DamagedError as error:
            problems.append(str(error))
            continue
        if rows:
            tables.append((str(result.folder), [row.cells() for row in rows]))
    command = shlex.join(["decant", "export", str(subject.focus.folder)])
    content = {"columns": HEADINGS, "tables": tables, "problems": problems, "command": command}
    return Section("exported", "Exported files", content)
