"""The cache of a teacher's rows of token samples: what identifies it, and whether one is of given samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from decant.cache import Encoding, LogitCache, Manifest, MismatchError, Positions, require_equal
from decant.pipeline.corpus.samples import TokenSamples


def positions_of(samples: TokenSamples) -> Positions:
    """What a cache stores of the samples: their tokens, and at which of them the teacher predicts the next."""
    every = range(len(samples))
    places = np.concatenate([samples.positions(index) for index in every])
    first = np.cumsum(samples.num_positions) - samples.num_positions
    plain = np.arange(len(places)) - np.repeat(first, samples.num_positions)
    return Positions.of(
        samples.num_positions,
        predicts="next",
        tokens=np.concatenate([samples.tokens(index) for index in every]),
        token_lengths=samples.lengths,
        places=None if np.array_equal(places, plain) else places,
    )


def samples_manifest(
    samples: TokenSamples,
    positions: Positions,
    teacher: Mapping[str, Any],
    *,
    encoding: Encoding,
    precision: str,
    num_outputs: int,
    num_views: int = 1,
) -> Manifest:
    """The manifest of the rows that a teacher has of the samples. teacher: what tells it from others; precision: what
    it runs in.
    """
    return Manifest.build(
        num_samples=len(samples),
        num_outputs=num_outputs,
        num_views=num_views,
        encoding={**encoding.identity, "teacher_precision": precision},
        positions=positions,
        teacher=teacher,
        data=samples.identity,
    )


def require_same_samples(samples: TokenSamples, cache: LogitCache) -> None:
    """Raises MismatchError, naming every field that differs, where a cache is of other texts, another tokenizer or
    other samples.
    """
    if not cache.has_positions:
        raise MismatchError(
            f"{cache.path}: is a cache of whole samples, and a language model's has a row for each token; "
            "decant.language.cache_logits makes one"
        )
    require_equal(
        {"data": {**samples.identity, "length": len(samples), "targets": None}},
        {"data": cache.manifest.identity["data"]},
        subject=f"{cache.path}: is of other tokens",
        hint="Tokenise and lay out the texts as the cache says, or cache the teacher's logits of these.",
        sections=("data",),
    )
