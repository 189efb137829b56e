"""What a person looks at: finished networks compared, in a table, as Markdown and as one page.

rows.py       networks compared: a row for each kind, over its seeds
markdown.py   the table for a terminal's or a repository's reader
subject.py    what a page is of: the runs, the student that is looked into, its data and its cache
history.py    metrics.jsonl: what networks were like after each epoch;  tensorboard.py  the same as event files
charts.py     how every chart looks
page.py       sections → one HTML file, which reaches nothing outside itself
making.py     the rooms in order

A section of the page is a room, and a template beside it in templates/:
answer.py     student against teacher and against labels only: figures, sizes, speed
curves.py     loss terms, figure and learning rate by epoch
cached.py     what the cache holds
inspector.py  samples one by one, through their views, and labels that the teacher doubts;  chosen.py  which, and why
quality.py    where networks are right, and how far their confidence can be believed
cost.py       what it took, and what a live teacher would have taken
exported.py   the files of `decant export`
"""

from __future__ import annotations

from decant.pipeline.report.rows import Gain, Row, compare, format_cells, gains, headings, learnt, rows_of

__all__ = ["Gain", "Row", "compare", "format_cells", "gains", "headings", "learnt", "rows_of"]
