"""Compares finished networks: `decant report`.

rows.py         one row for each kind of network, over its seeds; the table as cells and as Markdown
told_apart.py   which of several networks of one name each is
subject.py      which runs a report is about, the student that it looks into, its data and its cache
history.py      the curves over epochs and seeds
charts.py       how every chart looks
position_words.py  rows of positions in words, for the page and for `decant cache info`
page.py         renders sections into one HTML file that fetches nothing
tensorboard.py  metrics.jsonl as TensorBoard event files
library.py      the script of the plotting library
output.py       writes report.md, report.html and curves.png
sections/       one module for each section of the page; its template is in templates/
sweep_subject.py, sweep_charts.py, sweep_sections/    the page of a sweep

Only `rows` is imported with the package: page and charts need the libraries of the extra `report`.
"""

from __future__ import annotations

from decant.pipeline.report.rows import (
    Gain,
    Row,
    are_validated,
    compare,
    format_cells,
    gains,
    headings,
    learnt,
    rows_of,
)

__all__ = [
    "Gain",
    "Row",
    "are_validated",
    "compare",
    "format_cells",
    "gains",
    "headings",
    "learnt",
    "rows_of",
]
