"""What the cache of a language model saved: bytes against every logit of every token, and passes of the teacher."""

from __future__ import annotations

from collections.abc import Iterator

from decant.cache import CacheError, LogitCache
from decant.pipeline.errors import PipelineError
from decant.pipeline.report.page import Section, seconds
from decant.pipeline.report.subject import Subject
from decant.pipeline.runs.notes import pass_of
from decant.pipeline.training.epoch_log import read_epochs

_DENSE = {"float16": 2, "float32": 4}
"""Bytes of a logit."""


def saved(subject: Subject) -> Section:
    """The section, or why there is none."""
    name, title = "saved", "What the cache saved"
    try:
        (cache,) = subject.cache.members
    except (PipelineError, CacheError, OSError) as error:
        return Section(name, title, missing=str(error))
    return Section(name, title, {"facts": [*_bytes(cache), *_passes(subject, cache)]})


def _bytes(cache: LogitCache) -> Iterator[tuple[str, str]]:
    size, rows = cache.path.stat().st_size, cache.manifest.num_rows
    views = "" if cache.num_views == 1 else f", {cache.num_views:,} views of each"
    yield "positions", f"{rows:,} of {cache.num_samples:,} samples{views}"
    yield "on the disk", f"{size:,} bytes, {size / rows:,.0f} a position: {cache.manifest.encoding.name}"
    for dtype, width in _DENSE.items():
        each = width * cache.num_outputs
        yield (
            f"every logit in {dtype}",
            f"{each:,} bytes a position, {each * rows:,} in all: {each * rows / size:,.3g} times as many",
        )


def _passes(subject: Subject, cache: LogitCache) -> Iterator[tuple[str, str]]:
    """How often the teacher read the texts, and what a live teacher would have taken."""
    students = [result for result in subject.results if result.cache == cache.manifest.key]
    epochs = sum(len(read_epochs(student.folder)) for student in students)
    of = f"{epochs:,} epochs of {len(students):,} student{'' if len(students) == 1 else 's'}"
    yield "passes of the teacher", f"one, in place of one for each of the {of}"
    noted = pass_of(subject.base, cache.manifest.key)
    if noted is None or not noted.rows:
        return
    whole = noted.seconds / noted.rows * cache.manifest.num_rows
    yield "the teacher's pass", f"{seconds(whole)}, once"
    verb = f"saved {seconds((epochs - 1) * whole)}" if epochs > 1 else "saved nothing yet"
    yield "a live teacher", f"{seconds(epochs * whole)} for these epochs: the cache {verb}"
