"""Samples of several positions each: what a cache of them says in its identity, and what is known of them beforehand.

A position is a place at which the teacher says something: a token of a text, a frame of speech, a pixel. How many
positions each sample has is known when the cache is begun.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from decant.cache.errors import FormatError, ValueRefusedError, shorten
from decant.cache.io.checksum import is_sha256
from decant.cache.io.redaction import without_secrets
from decant.cache.lengths import Even, Lengths, Ragged

Predicts = Literal["next", "here"]
"""What the row of a position is about: the token that follows it, or the position itself."""

MOST_POSITIONS = 2**44
_TOKEN_DTYPES: dict[str, np.dtype[Any]] = {"uint16": np.dtype("<u2"), "uint32": np.dtype("<u4")}
_OFFSETS = np.dtype("<i8")  # of arrays; files have the same bytes as uint64
_OWN = ("count", "length", "offsets_sha256", "predicts", "tokens", "places_sha256")


@dataclass(frozen=True)
class Axis:
    """How many rows samples have, as an identity says it: all `length`, or as the offsets with a SHA-256 say."""

    count: int
    """Rows of all samples together."""
    length: int | None
    sha256: str | None

    @classmethod
    def read(cls, content: Mapping[str, Any], name: str, num_samples: int) -> Self:
        """From fields `count`, and `length` or `offsets_sha256`. Raises FormatError, naming the field."""
        count, length, sha256 = (content.get(field) for field in ("count", "length", "offsets_sha256"))
        if type(count) is not int or not 1 <= count <= MOST_POSITIONS:
            raise FormatError(
                f"manifest: identity.{name}.count must be 1 to {MOST_POSITIONS:,}, found {shorten(count)}"
            )
        if (length is None) == (sha256 is None):
            raise FormatError(f"manifest: identity.{name} must have either `length` or `offsets_sha256`")
        if sha256 is not None:
            require_sha256(sha256, f"{name}.offsets_sha256")
        elif type(length) is not int or length * num_samples != count:
            raise FormatError(
                f"manifest: identity.{name}.length must be count / data.length, {count:,} / {num_samples:,}, "
                f"found {shorten(length)}"
            )
        return cls(count, length, sha256)

    def lengths(self, num_samples: int, offsets: NDArray[np.int64] | None) -> Lengths:
        """As numbers; offsets (N + 1,) where samples have different ones."""
        if self.length is not None:
            return Even(num_samples, self.length)
        assert offsets is not None  # which every layout has read
        return Ragged(offsets)


@dataclass(frozen=True)
class Description:
    """What `identity.positions` of a manifest says, checked."""

    axis: Axis
    predicts: Predicts
    token_dtype: np.dtype[Any] | None
    """None where tokens are not stored."""
    token_axis: Axis | None
    """None where every sample has as many tokens as positions."""
    token_sha256: str | None
    places_sha256: str | None

    @classmethod
    def read(cls, content: object, num_samples: int) -> Self:
        """Raises FormatError, naming the field, for what cannot be."""
        if not isinstance(content, Mapping):
            raise FormatError(f"manifest: identity.positions must be a table, found {shorten(content)}")
        axis = Axis.read(content, "positions", num_samples)
        predicts = content.get("predicts")
        if predicts not in get_args(Predicts):
            raise FormatError(
                f"manifest: identity.positions.predicts must be next or here, found {shorten(predicts)}"
            )
        dtype, token_axis, sha256 = _read_tokens(content.get("tokens"), axis, num_samples)
        places = content.get("places_sha256")
        if places is not None:
            require_sha256(places, "positions.places_sha256")
            if dtype is None:
                raise FormatError("manifest: identity.positions.places_sha256: there are no tokens")
        return cls(axis, "next" if predicts == "next" else "here", dtype, token_axis, sha256, places)


def _read_tokens(
    content: object, axis: Axis, num_samples: int
) -> tuple[np.dtype[Any] | None, Axis | None, str | None]:
    if content is None:
        return None, None, None
    if not isinstance(content, Mapping):
        raise FormatError(f"manifest: identity.positions.tokens must be a table, found {shorten(content)}")
    dtype = content.get("dtype")
    if not isinstance(dtype, str) or dtype not in _TOKEN_DTYPES:
        raise FormatError(
            f"manifest: identity.positions.tokens.dtype must be one of {', '.join(_TOKEN_DTYPES)}, found "
            f"{shorten(dtype)}"
        )
    digest = require_sha256(content.get("sha256"), "positions.tokens.sha256")
    own = None
    if content.keys() & {"count", "length", "offsets_sha256"}:
        own = Axis.read(content, "positions.tokens", num_samples)
        if own == axis:
            raise FormatError("manifest: identity.positions.tokens: lengths of its own that are not others")
    return _TOKEN_DTYPES[dtype], own, digest


def require_sha256(value: object, name: str) -> str:
    """A field of an identity. Raises FormatError unless it is 64 hexadecimal digits."""
    if not isinstance(value, str) or not is_sha256(value):
        raise FormatError(
            f"manifest: identity.{name} must be 64 hexadecimal digits in lower case, found {shorten(value)}"
        )
    return value


@dataclass(frozen=True)
class Positions:
    """How many positions each sample has, what the teacher read there, and what tells them from others.

    `Positions.of` makes one. It is given to `Manifest.build`, which takes its `identity`, and to `LogitCacheWriter`,
    which stores the arrays.

    >>> positions = Positions.of([2, 3], tokens=[5, 1, 7, 5, 2], predicts="next", max_length=3)
    >>> positions.num_samples, positions.num_positions, positions.next_tokens(np.array([1])).tolist()
    (2, 5, [5, 2, -1])
    """

    identity: Mapping[str, Any]
    """Plain JSON, for `identity.positions` of a manifest."""
    lengths: Lengths
    tokens: NDArray[np.unsignedinteger] | None = None
    """(T,) ids of all samples, one after another."""
    token_lengths: Lengths | None = None
    """How many tokens each sample has; None where tokens are not stored."""
    places: NDArray[np.uint32] | None = None
    """(P,): at which token of its sample each position is; None where position j is at token j."""

    @classmethod
    def of(
        cls,
        lengths: ArrayLike,
        *,
        predicts: Predicts,
        tokens: ArrayLike | None = None,
        token_lengths: ArrayLike | None = None,
        places: ArrayLike | None = None,
        **entries: Any,
    ) -> Self:
        """lengths: (N,) integers, the positions of each sample, 0 or more. predicts: "next" where the row of a position
        is about the token after it, as of a language model; "here" where it is about the position itself.

        tokens: (T,) integers in 0..2³² − 1, what the teacher read, of all samples one after another. token_lengths:
        (N,), where a sample has another number of tokens than of positions. places: (P,) integers that rise within a
        sample: at which of its tokens each position is, if position j is not at token j, as where only some tokens
        have rows. entries: what else tells these positions from others, as plain JSON: the digest of the tokenizer, the
        longest sample, how texts are cut and packed; passwords and tokens in texts are left out.

        Raises ValueRefusedError, naming the sample, where lengths, tokens and places do not fit each other.

        >>> of = Positions.of([1, 2], tokens=[3, 4, 5, 6, 7], token_lengths=[2, 3], places=[0, 1, 2], predicts="here")
        >>> sorted(of.identity)
        ['count', 'offsets_sha256', 'places_sha256', 'predicts', 'tokens']
        """
        if predicts not in get_args(Predicts):
            raise ValueRefusedError(f"predicts: expected next or here, found {predicts!r}")
        taken = sorted(set(entries) & set(_OWN))
        if taken:
            raise ValueRefusedError(f"positions: {taken[0]} follows from lengths and tokens: leave it out")
        of_positions = _lengths("lengths", lengths)
        identity = {**without_secrets(entries), "predicts": predicts, **_axis(of_positions), "tokens": None}
        if tokens is None:
            if token_lengths is not None or places is not None:
                raise ValueRefusedError("token_lengths and places: there are no tokens")
            return cls(identity, of_positions)
        ids = _unsigned("tokens", tokens)
        of_tokens = of_positions if token_lengths is None else _lengths("token_lengths", token_lengths)
        if of_tokens.num_samples != of_positions.num_samples or of_tokens.total != len(ids):
            raise ValueRefusedError(
                f"tokens: expected {of_tokens.total:,} of {of_positions.num_samples:,} samples as their lengths say, "
                f"found {len(ids):,} of {of_tokens.num_samples:,}"
            )
        own = {} if _axis(of_tokens) == _axis(of_positions) else _axis(of_tokens)
        identity["tokens"] = {"dtype": ids.dtype.name, "sha256": sha256(ids), **own}
        at = None if places is None else _unsigned("places", places).astype("<u4", copy=False)
        _check_places(of_positions, of_tokens, at)
        if at is not None:
            identity["places_sha256"] = sha256(at)
        return cls(identity, of_positions, ids, of_tokens, at)

    @property
    def num_samples(self) -> int:
        """N."""
        return self.lengths.num_samples

    @property
    def num_positions(self) -> int:
        """P, of all samples together."""
        return self.lengths.total

    def tables(self) -> dict[str, NDArray[Any]]:
        """What of it a file holds, by the tables' names."""
        found: dict[str, NDArray[Any]] = {}
        if isinstance(self.lengths, Ragged):
            found["offsets"] = self.lengths.offsets
        if self.tokens is not None:
            if isinstance(self.token_lengths, Ragged) and "count" in self.identity["tokens"]:
                found["token_offsets"] = self.token_lengths.offsets
            found["tokens"] = self.tokens
        if self.places is not None:
            found["places"] = self.places
        return found

    def token_rows(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """(Q,): at which of all tokens each position of these samples is. Tokens must be stored."""
        assert self.token_lengths is not None
        of, within = self.lengths.within(samples)
        if self.places is not None:
            within = self.places[self.lengths.rows(samples)].astype(np.int64)
        return self.token_lengths.starts(of) + within

    def next_tokens(self, samples: NDArray[np.integer]) -> NDArray[np.int64]:
        """(Q,): the token that follows each position of these samples; −1 where none does. Tokens must be stored."""
        assert self.token_lengths is not None
        assert self.tokens is not None
        rows = self.token_rows(samples) + 1
        of = np.repeat(samples, self.lengths.of(samples))
        inside = rows < self.token_lengths.starts(of + 1)
        found = np.full(len(rows), -1, np.int64)
        found[inside] = self.tokens[rows[inside]]
        return found


def sha256(table: NDArray[Any]) -> str:
    """Of the bytes of a table."""
    return hashlib.sha256(np.ascontiguousarray(table).data).hexdigest()


def _axis(lengths: Lengths) -> dict[str, Any]:
    """The fields of an identity that `Axis.read` reads."""
    if isinstance(lengths, Even):
        return {"count": lengths.total, "length": lengths.length}
    assert isinstance(lengths, Ragged)
    return {"count": lengths.total, "offsets_sha256": sha256(lengths.offsets.astype(_OFFSETS, copy=False))}


def _lengths(name: str, given: ArrayLike) -> Lengths:
    counts = _integers(name, given, MOST_POSITIONS)
    if not len(counts) or not counts.any():
        raise ValueRefusedError(f"{name}: there are none in {len(counts):,} samples")
    if float(counts.sum(dtype=np.float64)) > MOST_POSITIONS:
        raise ValueRefusedError(f"{name}: more than {MOST_POSITIONS:,} in all")
    if (counts == counts[0]).all():
        return Even(len(counts), int(counts[0]))
    offsets = np.zeros(len(counts) + 1, _OFFSETS)
    np.cumsum(counts, out=offsets[1:])
    return Ragged(offsets)


def _integers(name: str, given: ArrayLike, most: int) -> NDArray[np.int64]:
    return _in_range(name, given, most).astype(np.int64)


def _unsigned(name: str, given: ArrayLike) -> NDArray[np.unsignedinteger]:
    """In two bytes each, or four where these are too few; not copied where they are so already, as there may be
    billions of them.
    """
    found = _in_range(name, given, 2**32 - 1)
    return found.astype("<u2" if found.max(initial=0) < 2**16 else "<u4", copy=False)


def _in_range(name: str, given: ArrayLike, most: int) -> NDArray[np.integer]:
    try:
        found = np.asarray(given)
    except ValueError as error:
        raise ValueRefusedError(f"{name}: {error}") from None
    if found.ndim != 1 or (found.size and found.dtype.kind not in "iu"):
        raise ValueRefusedError(f"{name}: expected (…,) integers, found {found.shape} {found.dtype}")
    if found.size and not 0 <= int(found.min()) <= int(found.max()) <= most:
        place = int(np.flatnonzero((found < 0) | (found > most))[0])
        raise ValueRefusedError(f"{name}: expected 0 to {most:,}, found {found[place]} at {place:,}")
    return found


def _check_places(positions: Lengths, tokens: Lengths, places: NDArray[np.uint32] | None) -> None:
    """Raises ValueRefusedError where a position is at no token of its sample, or two are at one."""
    samples = np.arange(positions.num_samples)
    counts, most = positions.of(samples), tokens.of(samples)
    if places is None:
        bad = np.flatnonzero(counts > most)
        if len(bad):
            raise ValueRefusedError(
                f"sample {bad[0]}: {counts[bad[0]]:,} positions, and {most[bad[0]]:,} tokens: give `places`, or the "
                "tokens of all positions"
            )
        return
    if len(places) != positions.total:
        raise ValueRefusedError(f"places: expected {positions.total:,}, found {len(places):,}")
    of = np.repeat(samples, counts)
    falls = np.r_[False, (np.diff(places.astype(np.int64)) <= 0) & (np.diff(of) == 0)]
    bad = np.flatnonzero(falls | (places >= most[of]))
    if len(bad):
        raise ValueRefusedError(
            f"sample {of[bad[0]]}: places must rise, and be below its {most[of[bad[0]]]:,} tokens, found "
            f"{places[bad[0]]}"
        )
