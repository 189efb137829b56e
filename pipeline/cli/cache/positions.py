"""What `decant cache info` shows of a cache whose samples have several rows each: lengths, places, a sample, a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from decant.pipeline.cli.options import percent, print_table, say

if TYPE_CHECKING:
    from decant.cache import LogitCache


def show_positions(cache: LogitCache, sample: int | None) -> None:
    """Prints lengths, how spread rows are by their place in the sample, and the rows of a sample, if one is given."""
    from decant.cache import profile_positions, sample_rows
    from decant.pipeline.report import position_words as words

    profile = profile_positions(cache)
    say(f"    positions: {words.lengths_in_words(cache)}")
    say(f"    certain rows, with an output of 0.99 or more: {percent(float(profile.certain_rows.mean()))}")
    if profile.facts.certain is not None:
        say(f"    outputs of a row that are no draw: {profile.facts.certain.mean():.1f} on average")
    print_table(words.PLACE_COLUMNS, words.by_place(profile))
    if sample is not None:
        print_table(words.ROW_COLUMNS, [words.row_cells(row) for row in sample_rows(cache, sample)])


def write_page(cache: LogitCache, path: Path) -> None:
    """Writes the page of the cache alone. Raises ModelError, with the command, where the extra `report` is missing."""
    from decant.cache.io.files import write_atomically
    from decant.pipeline.errors import ModelError
    from decant.pipeline.report.output import missing_library

    reason = missing_library()
    if reason is not None:
        raise ModelError(f"--page: {reason}")
    from decant.pipeline.report.page import render
    from decant.pipeline.report.sections.positions import positions

    write_atomically(path, render(cache.path.name, [positions(cache)], []))
    say(f"made {path}; open it in any browser: {path.absolute().as_uri()}")
