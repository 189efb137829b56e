"""The samples that a network reads: documents as they are, pieces of them, or rows that several are packed into."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.pipeline.corpus.token_file import Corpus
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

Rows: TypeAlias = Literal["documents", "pieces", "packed"]
_ROWS = ("documents", "pieces", "packed")


class TokenSamples:
    """Samples of a corpus: sample i has `lengths[i]` tokens, of which some places predict the next token.

    rows: "documents", each cut at `max_length`, at the end that `truncation` says; "pieces", documents cut into pieces
    of `max_length`; "packed", all documents one after the other, cut into rows of `max_length`. across: whether a token
    of a packed row sees the documents before its own in the row. Without, positions begin again with each document, and
    nothing is learnt from the step from one document to the next.

    A place predicts where the next token of the sample, and without `across` of the document, is a target. Samples in
    which none does are left out, which is said.

    Raises DataError for settings that cannot be, and where no sample is left.

    >>> import tempfile
    >>> from decant.language import tokenise
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer
    >>> folder = tempfile.TemporaryDirectory()
    >>> corpus = tokenise(["a text", "and another"], byte_tokenizer(), f"{folder.name}/texts.tokens")
    >>> TokenSamples(corpus, max_length=8).lengths.tolist()
    [7, 8]
    >>> packed = TokenSamples(corpus, max_length=8, rows="packed")
    >>> packed.lengths.tolist(), packed.groups(0).tolist()
    ([8, 8, 3], [7, 1])
    >>> folder.cleanup()
    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        max_length: int,
        rows: Rows = "documents",
        documents: ArrayLike | None = None,
        truncation: Literal["left", "right"] = "right",
        across: bool = False,
    ) -> None:
        _check(max_length, rows, truncation)
        self.corpus, self.max_length = corpus, max_length
        self.rows, self.truncation, self.across = rows, truncation, across
        self.documents = _chosen(documents, len(corpus))
        starts, lengths, of_sample = self._segments()
        self._starts, self._segment_lengths, self._offsets = self._predicting(starts, lengths, of_sample)
        self.lengths: NDArray[np.int64] = np.add.reduceat(self._segment_lengths, self._offsets[:-1])
        """(N,) tokens of each sample."""

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def tokens(self, index: int) -> NDArray[np.int64]:
        """(L,) ids of a sample."""
        return np.concatenate([self.corpus.tokens(first, end) for first, end in self._bounds(index)])

    def targets(self, index: int) -> NDArray[np.bool_]:
        """(L,) which tokens of a sample are learnt from, where something predicts them."""
        wanted = np.concatenate([self.corpus.targets(first, end) for first, end in self._bounds(index)])
        wanted[np.cumsum([0, *self.groups(index)[:-1]])] = False
        return wanted

    def positions(self, index: int) -> NDArray[np.int64]:
        """(n,) places 0 … L − 2 of a sample whose next token is learnt from, rising."""
        return np.flatnonzero(self.targets(index)) - 1

    def groups(self, index: int) -> NDArray[np.int64]:
        """Lengths of the parts of a sample that see one another, one after the other; they add up to L."""
        found = self._segment_lengths[slice(*self._offsets[index : index + 2])]
        return found.sum(keepdims=True) if self.across else found

    @property
    def group_lengths(self) -> NDArray[np.int64]:
        """(G,) the `groups` of all samples, one sample after the other."""
        return self.lengths if self.across else self._segment_lengths

    @property
    def group_offsets(self) -> NDArray[np.int64]:
        """(N + 1,) where in `group_lengths` those of each sample begin."""
        return np.arange(len(self) + 1) if self.across else self._offsets

    @property
    def num_positions(self) -> NDArray[np.int64]:
        """(N,) how many places of each sample predict."""
        return self._num_positions

    @property
    def identity(self) -> Mapping[str, Any]:
        """What a cache holds of its data, so that other tokens are refused by name."""
        whole = np.array_equal(self.documents, np.arange(len(self.corpus)))
        chosen = hashlib.sha256(self.documents.astype("<i8").tobytes()).hexdigest()
        return {
            "name": "tokens",
            **self.corpus.identity,
            "samples": {
                "documents": "all" if whole else {"count": len(self.documents), "sha256": chosen},
                "max_length": self.max_length,
                "rows": self.rows,
                **({"truncation": self.truncation} if self.rows == "documents" else {}),
                **({"attention_across_documents": self.across} if self.rows == "packed" else {}),
            },
        }

    def _bounds(self, index: int) -> list[tuple[int, int]]:
        chosen = slice(*self._offsets[index : index + 2].tolist())
        starts, lengths = self._starts[chosen], self._segment_lengths[chosen]
        return list(zip(starts.tolist(), (starts + lengths).tolist(), strict=True))

    def _segments(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """(first token, length, sample) of each stretch of a document that lies in a sample."""
        first = self.corpus.offsets[:-1][self.documents]
        lengths = self.corpus.offsets[1:][self.documents] - first
        if self.rows == "documents":
            kept = np.minimum(lengths, self.max_length)
            self._say_cut(lengths, kept)
            starts = first if self.truncation == "right" else first + lengths - kept
            return starts, kept, np.arange(len(kept))
        # Places in the chosen documents, one after the other, at which a stretch begins.
        ends = np.cumsum(lengths)
        begins = ends - lengths
        if self.rows == "packed":
            cuts = np.union1d(begins, np.arange(0, ends[-1], self.max_length))
            sample = cuts // self.max_length
        else:
            pieces = -(-lengths // self.max_length)
            within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
            cuts = np.repeat(begins, pieces) + within * self.max_length
            sample = np.arange(len(cuts))
        document = np.searchsorted(begins, cuts, side="right") - 1
        return first[document] + cuts - begins[document], np.diff(cuts, append=ends[-1]), sample

    def _predicting(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64], of_sample: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """The stretches of samples in which something is predicted, and where those of each sample begin (N + 1,)."""
        group_begins = np.r_[True, np.diff(of_sample) != 0] if self.across else np.ones(len(starts), np.bool_)
        predicted = (
            lengths - group_begins if self.corpus.all_targets else self._count(starts, lengths, group_begins)
        )
        begins = np.flatnonzero(np.r_[True, np.diff(of_sample) != 0])
        per_sample = np.add.reduceat(predicted, begins)
        kept = per_sample > 0
        if not kept.any():
            raise DataError(f"{self.corpus.path}: no sample has a token that is learnt from")
        if not kept.all():
            say_once(
                f"{self.corpus.path}: {int((~kept).sum()):,} of {len(kept):,} samples are left out: no token of "
                "theirs is learnt from"
            )
        self._num_positions: NDArray[np.int64] = per_sample[kept]
        counts = np.diff(np.r_[begins, len(starts)])
        stays = np.repeat(kept, counts)
        return starts[stays], lengths[stays], np.r_[0, np.cumsum(counts[kept])]

    def _count(
        self, starts: NDArray[np.int64], lengths: NDArray[np.int64], group_begins: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Targets of each stretch, without the first token of a group."""
        skipped = group_begins.astype(np.int64)
        return np.array(
            [
                np.count_nonzero(self.corpus.targets(first, end))
                for first, end in zip((starts + skipped).tolist(), (starts + lengths).tolist(), strict=True)
            ]
        )

    def _say_cut(self, lengths: NDArray[np.int64], kept: NDArray[np.int64]) -> None:
        cut = int((kept < lengths).sum())
        if cut:
            lost = int((lengths - kept).sum())
            say_once(
                f"{self.corpus.path}: {cut:,} of {len(lengths):,} documents are longer than {self.max_length:,} tokens "
                f"and cut: {lost:,} of {int(lengths.sum()):,} tokens are left out; "
                'rows = "pieces" or "packed" keeps them'
            )


def _check(max_length: int, rows: str, truncation: str) -> None:
    if isinstance(max_length, bool) or not isinstance(max_length, int) or max_length < 2:
        raise DataError(f"max_length: expected 2 or more tokens, found {max_length!r}")
    if rows not in _ROWS:
        raise DataError(f"rows: expected one of {', '.join(_ROWS)}, found {rows!r}")
    if truncation not in ("left", "right"):
        raise DataError(f'truncation: expected "left" or "right", found {truncation!r}')


def _chosen(documents: ArrayLike | None, count: int) -> NDArray[np.int64]:
    if documents is None:
        return np.arange(count)
    chosen = np.asarray(documents)
    if chosen.ndim != 1 or chosen.dtype.kind not in "iu" or not len(chosen):
        raise DataError(f"documents: expected indices (D,), found {chosen.dtype} {chosen.shape}")
    if chosen.min() < 0 or chosen.max() >= count:
        raise DataError(
            f"documents: expected 0 to {count - 1:,}, found {int(chosen.min())} to {int(chosen.max())}"
        )
    return chosen.astype(np.int64)
