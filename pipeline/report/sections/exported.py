"""The files of `decant export`, and how far their outputs are from the network's."""

from __future__ import annotations

import shlex

from decant.pipeline.deploy.check import HEADINGS
from decant.pipeline.deploy.export import read_summary
from decant.pipeline.errors import DamagedError
from decant.pipeline.report.page import Section
from decant.pipeline.report.subject import Subject


def exported(subject: Subject) -> Section:
    """One table for every run that was exported."""
    tables, problems = [], []
    for result in subject.results:
        try:
            rows = read_summary(result.folder / "export")
        except DamagedError as error:
            problems.append(str(error))
            continue
        if rows:
            tables.append((str(result.folder), [row.cells() for row in rows]))
    command = shlex.join(["decant", "export", str(subject.focus.folder)])
    content = {"columns": HEADINGS, "tables": tables, "problems": problems, "command": command}
    return Section("exported", "Exported files", content)
