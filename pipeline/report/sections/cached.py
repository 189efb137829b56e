"""What the cache holds: confidence and entropy of the soft labels, which classes they confuse, where the file comes
from.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import CacheError, Ensemble, LogitCache, LogitSource, row_chunks, softmax
from decant.pipeline.errors import PipelineError
from decant.pipeline.report import charts
from decant.pipeline.report.page import Section, seconds
from decant.pipeline.report.sections import confusion
from decant.pipeline.report.subject import Subject

MAX_ROWS = 200_000
"""Rows (views of samples) that figures are of, at even distances where there are more."""
MAX_CHECKED = 4 << 30
"""The most bytes of files whose checksums are all verified for the page."""
_BINS = 30


@dataclass(frozen=True)
class SoftLabels:
    """Statistics of soft labels at one temperature."""

    temperature: float
    entropy: NDArray[np.float32]
    """(R,) nats."""
    confidence: NDArray[np.float32]
    """(R,) the largest probability of each row."""
    by_label: NDArray[np.float64] | None
    """(C, C): the mean probabilities of the rows of each label, NaN of a label that no row has; None of more than
    MAX_SQUARE classes.
    """


def cached(subject: Subject) -> Section:
    """Facts and statistics of the cache of the focus, or why there are none."""
    name, title = "cached", "What the cache holds"
    try:
        cache, names = subject.cache, subject.classes
        about = [*facts(cache), ("verification", verification(cache))]
        if cache.manifest.num_targets is not None or cache.manifest.has_sigmoids:
            return Section(
                name, title, {"facts": about, "table": None, "note": None, "why": _why_no_softmax(cache)}
            )
        by_temperature = [
            soft_labels(cache, temperature) for temperature in sorted({1.0, subject.temperature})
        ]
    except (PipelineError, CacheError, FileNotFoundError) as error:
        return Section(name, title, missing=str(error))
    series = [f"T = {one.temperature:g}" for one in by_temperature]
    unlike = subject.unlabelled or _too_many(len(names))
    squares = [] if unlike else [one.by_label for one in by_temperature if one.by_label is not None]
    shown = confusion.most_confused(squares[-1]) if squares else []
    return Section(
        name,
        title,
        {
            "facts": about,
            "table": [
                (label, f"{one.confidence.mean():.4f}", f"{one.entropy.mean():.4f}")
                for label, one in zip(series, by_temperature, strict=True)
            ],
            "note": _note(cache, len(by_temperature[0].entropy), _is_standardized(subject)),
            "unlike": unlike,
            "temperatures": series[: len(squares)],
            "shown": confusion.which_classes(shown, names, "are confused most"),
        },
        {
            "confidence": charts.histogram(
                bins([one.confidence for one in by_temperature], series, 1.0), "top-1 probability", series
            ),
            "entropy": charts.histogram(
                bins([one.entropy for one in by_temperature], series, float(np.log(len(names)))),
                "entropy, nats",
                series,
            ),
            **{
                f"similarity{index}": charts.matrix(
                    confusion.cells(square, shown, names),
                    "class of the soft label",
                    "label",
                    "probability",
                    len(shown),
                )
                for index, square in enumerate(squares)
            },
        },
    )


def soft_labels(cache: LogitSource, temperature: float) -> SoftLabels:
    """Statistics of all rows, or of MAX_ROWS at even distances through views and samples. Raises CorruptError."""
    total = cache.num_views * cache.num_samples
    chosen = np.unique(np.linspace(0, total - 1, min(total, MAX_ROWS)).astype(np.intp))
    entropy, confidence = [], []
    sums = (
        np.zeros((cache.num_outputs, cache.num_outputs))
        if cache.num_outputs <= confusion.MAX_MATRIX
        else None
    )
    counts = np.zeros(cache.num_outputs)
    for places in row_chunks(len(chosen)):
        views, rows = np.divmod(chosen[places], cache.num_samples)
        probabilities = probabilities_of(cache, rows, views, temperature)
        entropy.append(-np.sum(probabilities * np.log(np.maximum(probabilities, 1e-30)), axis=1))
        confidence.append(probabilities.max(1))
        labels = cache.labels[rows]
        order = np.argsort(labels, kind="stable")[np.count_nonzero(labels < 0) :]
        present, firsts, frequencies = np.unique(labels[order], return_index=True, return_counts=True)
        if sums is not None and len(present):
            sums[present] += np.add.reduceat(probabilities[order], firsts, axis=0, dtype=np.float64)
            counts[present] += frequencies
    if sums is not None:
        sums[counts == 0] = np.nan
        sums /= np.maximum(counts, 1)[:, None]
    return SoftLabels(temperature, np.concatenate(entropy), np.concatenate(confidence), sums)


def probabilities_of(
    cache: LogitSource, rows: NDArray[np.intp], views: NDArray[np.intp] | int, temperature: float
) -> NDArray[np.floating]:
    """(B, C) soft labels; with several separate teachers, the mean of theirs."""
    read = _read_for(cache, temperature)
    probabilities = softmax(read.logits(rows, views).astype(np.float32), temperature)
    return probabilities if probabilities.ndim == 2 else probabilities.mean(axis=1)


def _read_for(cache: LogitSource, temperature: float) -> LogitSource:
    """The same, with logits for a softmax at another temperature than the student's, which sparse rows tell apart."""
    if isinstance(cache, LogitCache):
        return cache.at_temperature(temperature)
    # Means of probabilities are of the student's temperature.
    if isinstance(cache, Ensemble) and cache.mean != "probabilities":
        members = [one.at_temperature(temperature) for one in cache.caches]
        return Ensemble(members, cache.mean, cache.temperature, cache.weights)
    return cache


def bins(values: Sequence[NDArray[np.floating]], series: Sequence[str], high: float) -> list[dict[str, Any]]:
    """Percent of the rows in each of equal bins from 0 to `high`: one record for each bin and series."""
    edges = np.linspace(0, high, _BINS + 1)
    records = []
    for name, some in zip(series, values, strict=True):
        counts, _ = np.histogram(np.clip(some, 0, high), edges)
        shares = 100 * counts / len(some)
        records += [
            {"series": name, "low": low, "share": share}
            for low, share in zip(edges.tolist(), [*shares.tolist(), shares[-1]], strict=True)
        ]
    return records


def _why_no_softmax(cache: LogitSource) -> str:
    """Why outputs have neither a largest probability nor an entropy over classes."""
    if cache.manifest.has_sigmoids:
        return "Each output has a sigmoid of its own: there is no softmax, whose confidence and entropy are shown here."
    return "A regression: its outputs are numbers, which have neither confidence nor entropy."


def facts(cache: LogitSource) -> Iterator[tuple[str, str]]:
    """Where a cache comes from, and what it is of, by name."""
    for member in cache.members:
        identity, info = member.manifest.identity, member.manifest.info
        yield "file", str(member.path)
        yield "bytes", f"{member.path.stat().st_size:,}"
        yield "key", member.manifest.key
        yield "teacher", _words(identity["teacher"])
        yield "stored as", _words(identity["encoding"])
        if info:
            yield "made with", _words(info)
    identity = cache.manifest.identity
    yield "samples × views", f"{cache.num_samples:,} × {cache.num_views:,}"
    yield "outputs", f"{cache.num_outputs:,}"
    yield "data", _words({name: value for name, value in identity["data"].items() if name != "classes"})
    yield "views", _words(identity["views"])


def _words(content: Any) -> str:
    """JSON content as text."""
    if isinstance(content, dict):
        return ", ".join(
            f"{name} {_words(value)}" for name, value in content.items() if value not in (None, {}, [])
        )
    if isinstance(content, list):
        return ", ".join(f"({_words(one)})" if isinstance(one, dict) else str(one) for one in content)
    return re.sub(r"\b([0-9a-f]{16})[0-9a-f]{48}\b", r"\1…", str(content))


def verification(cache: LogitSource) -> str:
    """Verifies the checksums of files of at most MAX_CHECKED bytes, and says the result. Raises CorruptError."""
    size = sum(member.path.stat().st_size for member in cache.members)
    if size > MAX_CHECKED:
        return "header and tables checked; each block as it is read (decant cache verify checks all)"
    started = time.perf_counter()
    problems = [problem for member in cache.members for problem in member.verify()]
    if problems:
        return f"{len(problems):,} problems, the first: {problems[0]}"
    took = seconds(time.perf_counter() - started)
    return f"sound: the checksum of every block was verified for this page, in {took}"


def _note(cache: LogitSource, rows: int, standardized: bool) -> str:
    total = cache.num_views * cache.num_samples
    of = f"all {total:,} rows" if rows == total else f"{rows:,} of {total:,} rows, at even distances"
    before = (
        " The objective makes z-scores of the logits first; these figures are without."
        if standardized
        else ""
    )
    return f"Of {of} (a row is a view of a sample).{before}"


def _too_many(count: int) -> str | None:
    return f"there are more than {confusion.MAX_MATRIX:,} classes" if count > confusion.MAX_MATRIX else None


def _is_standardized(subject: Subject) -> bool:
    return bool(getattr(subject.focus.recipe.settings.student.objective, "standardize", False))
