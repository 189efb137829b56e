"""Which documents are for training, validation and test: by their content, so that equal ones are in one part."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.corpus.token_file import Corpus
from decant.pipeline.errors import DataError


def split_documents(
    corpus: Corpus, shares: Mapping[str, float], seed: int = 0
) -> dict[str, NDArray[np.int64]]:
    """The documents of each part: indices (D_part,) in their order. A document's part is decided by the SHA-256 of its
    tokens and the seed alone, so it stays where it is when others are added, and two that are equal are never in two
    parts.

    shares: of each part, which add up to 1. Raises DataError where they do not, or a part has no document.

    >>> import tempfile
    >>> from decant.language import tokenise
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer
    >>> folder = tempfile.TemporaryDirectory()
    >>> corpus = tokenise([f"text {n}" for n in range(8)], byte_tokenizer(), f"{folder.name}/texts.tokens")
    >>> parts = split_documents(corpus, {"train": 0.75, "test": 0.25})
    >>> parts["train"].tolist(), parts["test"].tolist()
    ([0, 1, 2, 3, 4, 6, 7], [5])
    >>> folder.cleanup()
    """
    values = list(shares.values())
    if not values or not all(0 < value <= 1 for value in values) or not math.isclose(sum(values), 1):
        raise DataError(f"shares: expected numbers above 0 that add up to 1, found {dict(shares)}")
    places = np.array([_place(corpus.document(index), seed) for index in range(len(corpus))])
    ends = np.cumsum(values)
    ends[-1] = 1.0
    part = np.searchsorted(ends, places, side="right")
    found = {name: np.flatnonzero(part == number) for number, name in enumerate(shares)}
    for name, documents in found.items():
        if not len(documents):
            different = len(np.unique(places))
            equal = "" if different == len(corpus) else f", of which {different:,} are different"
            raise DataError(
                f"{corpus.path}: the part {name} has none of {len(corpus):,} documents{equal}; "
                "give it a larger share (of a recipe data.test_share and data.validation), "
                "or split the texts into more documents (separator)"
            )
    return found


def shared_documents(corpus: Corpus, other: Corpus) -> NDArray[np.int64]:
    """(N,) numbers of the documents of `corpus` whose tokens are those of a document of `other`."""
    theirs = {_digest(other.document(index)) for index in range(len(other))}
    return np.array([i for i in range(len(corpus)) if _digest(corpus.document(i)) in theirs], np.int64)


def _digest(ids: NDArray[np.int64]) -> bytes:
    return hashlib.sha256(ids.astype("<u4").tobytes()).digest()[:8]


def _place(ids: NDArray[np.int64], seed: int) -> float:
    """A number in [0, 1) that a document and a seed decide."""
    digest = hashlib.sha256(f"{seed} ".encode() + ids.astype("<u4").tobytes()).digest()
    return int.from_bytes(digest[:6], "little") / 2**48
