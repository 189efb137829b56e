"""Small caches of samples with several positions each: what a teacher would have said, and the files that hold it."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache import Dense, Encoding, LogitCache, LogitCacheWriter, Manifest, Positions, Quantised, Sparse

C, V = 1000, 2
LENGTHS = (3, 0, 1, 40, 2, 2, 300, 0, 5, 64, 64, 1, 0, 17, 0, 0)
"""Of samples: some without positions, first and last of a block, and one that is longer than a block."""
ENCODINGS: tuple[Encoding, ...] = (Sparse(100, (1.0, 2.0)), Dense("float16"), Quantised())


def positions_of(
    lengths: tuple[int, ...] = LENGTHS, extra: int = 0, predicts: Any = "next", **entries: Any
) -> Positions:
    """With tokens, of which each sample has `extra` ones more than positions."""
    counts = np.array(lengths) + extra
    tokens = np.random.default_rng(7).integers(0, C, counts.sum())
    return Positions.of(
        lengths,
        predicts=predicts,
        tokens=tokens,
        token_lengths=counts if extra else None,
        tokenizer_sha256="cd" * 32,
        **entries,
    )


def manifest_of(positions: Positions, encoding: Encoding = ENCODINGS[0], views: int = V) -> Manifest:
    return Manifest.build(
        num_samples=positions.num_samples,
        num_outputs=C,
        num_views=views,
        encoding=encoding,
        positions=positions,
        teacher={"network": {"name": "lm"}, "sha256": "ab" * 32},
        data={"name": "texts", "split": "train"},
    )


@cache
def logits_of(count: int, view: int) -> NDArray[np.float32]:
    """(P, C) of all positions of a view."""
    values = np.random.default_rng(view).normal(size=(count, C)) ** 3 * 2
    return values.astype("f4")


def sample_logits(positions: Positions, samples: Any, view: int) -> NDArray[np.float32]:
    """(Q, C) of these samples, as `write` takes them; of a teacher that expects what follows."""
    chosen = np.asarray(samples)
    logits = logits_of(positions.num_positions, view)[positions.lengths.rows(chosen)]
    if positions.identity["predicts"] == "next" and positions.tokens is not None:
        after = positions.next_tokens(chosen)
        known = np.flatnonzero(after >= 0)
        logits[known, after[known]] = logits[known].max(axis=1) + 2
    return logits


def write(writer: LogitCacheWriter, positions: Positions, samples: Any, view: int) -> None:
    writer.write(
        samples,
        sample_logits(positions, samples, view),
        labels=np.asarray(samples) % 10,
        input_crc32=np.asarray(samples) + 7 * view,
        view=view,
    )


def write_missing(writer: LogitCacheWriter, positions: Positions, batch: int = 3) -> None:
    """Writes what is not written yet, as a pass over the data does."""
    for view in range(writer.manifest.num_views):
        missing = np.flatnonzero(~writer.is_written(view))
        for start in range(0, len(missing), batch):
            write(writer, positions, missing[start : start + batch], view)


def build(path: Path, positions: Positions | None = None, encoding: Encoding = ENCODINGS[0]) -> Path:
    """A published cache."""
    of = positions_of() if positions is None else positions
    with LogitCacheWriter(path, manifest_of(of, encoding), positions=of) as writer:
        write_missing(writer, of)
        return writer.publish()


def holds_the_answers(cache: LogitCache, positions: Positions, encoding: Encoding) -> bool:
    """Whether every row of every view is what the teacher said, as its encoding stores it."""
    everything = np.arange(positions.num_samples)
    of, within = positions.lengths.within(everything)
    for view in range(cache.num_views):
        logits = sample_logits(positions, everything, view)
        expected = encoding.encode(logits, of, view, within)
        found = cache.encoded(everything, view)
        if any(found[name].tobytes() != expected[name].tobytes() for name in expected):
            return False
        if not np.array_equal(cache.input_crc32[view], everything + 7 * view):
            return False
        if positions.identity["predicts"] == "next":
            after = positions.next_tokens(everything)
            said = cache.next_log_prob(everything, view)
            if not np.array_equal(np.isnan(said), after < 0):
                return False
    return np.array_equal(cache.labels, everything % 10) and np.array_equal(
        cache.tokens(everything)[0], positions.tokens
    )
