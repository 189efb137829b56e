"""What a cache holds whose samples have several rows each: lengths, how sure the teacher is and where, some samples row
by row. It is drawn from the cache alone, for the page of a cache and for that of a run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from decant.cache import LogitCache, PositionProfile, profile_positions, sample_rows
from decant.pipeline.report import charts
from decant.pipeline.report.page import Section
from decant.pipeline.report.position_words import (
    PLACE_COLUMNS,
    ROW_COLUMNS,
    Decode,
    by_place,
    lengths_in_words,
    row_cells,
)
from decant.pipeline.report.sections.cached import bins, facts, verification

NAME, TITLE = "positions", "What the rows say"
MAX_SAMPLES = 6
MAX_SHOWN = 60
"""Rows of a sample, the first of it."""
_LIKELIEST = 5
_SERIES = ("T = 1",)


def positions(cache: LogitCache, decode: Decode | None = None) -> Section:
    """The section of a cache with positions. decode: makes text of token ids, where a tokenizer is at hand; a cache
    knows ids alone. Raises CorruptError.
    """
    profile = profile_positions(cache)
    entropy, tail = profile.facts.entropy, profile.facts.tail
    drawn = {
        "entropy": charts.histogram(
            bins([entropy], _SERIES, float(np.log(cache.num_outputs))), "entropy, nats", _SERIES
        ),
        "confidence": charts.histogram(
            bins([profile.facts.confidence], _SERIES, 1.0), "top-1 probability", _SERIES
        ),
    }
    if tail.any():
        drawn["tail"] = charts.histogram(bins([tail], _SERIES, 1.0), "mass of what is not stored", _SERIES)
    content = {
        "facts": [*facts(cache), ("verification", verification(cache)), *_about(cache, profile)],
        "columns": PLACE_COLUMNS,
        "by_place": by_place(profile),
        "note": _rows_in_words(len(tail), cache.num_views * cache.num_positions),
        "tail": "tail" in drawn,
        "sample_columns": ROW_COLUMNS,
        "samples": _samples(cache, decode),
    }
    return Section(NAME, TITLE, content, drawn)


def _rows_in_words(looked_at: int, there: int) -> str:
    if looked_at == there:
        return f"Of all {there:,} rows."
    return f"Of {looked_at:,} of {there:,} rows, of samples at even distances."


def _first_in_words(rows: int) -> str:
    return f"{rows:,} rows" if rows <= MAX_SHOWN else f"the first {MAX_SHOWN} of {rows:,} rows"


def _about(cache: LogitCache, profile: PositionProfile) -> list[tuple[str, str]]:
    found = [
        ("positions", lengths_in_words(cache)),
        ("rows with an output of 0.99 or more", f"{100 * profile.certain_rows.mean():.1f} %"),
    ]
    certain = profile.facts.certain
    if certain is not None:
        found.append(("outputs of a row that are no draw", f"{certain.mean():.1f} on average"))
    return found


def _samples(cache: LogitCache, decode: Decode | None) -> list[dict[str, Any]]:
    """Some samples at even distances that have rows, with the first rows of each."""
    having = np.flatnonzero(cache.lengths)
    chosen = np.unique(having[np.linspace(0, len(having) - 1, min(MAX_SAMPLES, len(having))).astype(np.intp)])
    return [
        {
            "title": f"sample {index:,}, {_first_in_words(int(cache.lengths[index]))}",
            "rows": [
                row_cells(row, decode)
                for row in sample_rows(cache, index, likeliest=_LIKELIEST, limit=MAX_SHOWN)
            ],
        }
        for index in chosen.tolist()
    ]
