"""The largest logits of a row, and how much mass all others have together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.encoding import Column, Encoding, require_finite
from decant.cache.errors import FormatError, MismatchError, ValueRefusedError, shorten

_SHORT = 1 << 16  # outputs that two bytes tell apart
_MOST_OUTPUTS = 1 << 18
_MOST_TEMPERATURES = 16
_ROUNDING = 2e-3  # of a mass, from log-probabilities in float16


class SparseRows(NamedTuple):
    """What a sparse row says of a teacher's softmax, by falling probability."""

    ids: NDArray[np.int32]
    """(B, k) outputs."""
    log_probs: NDArray[np.float32]
    """(B, k) log softmax of each, at T = 1."""
    log_tail: NDArray[np.float32]
    """(B, m) log of the mass of all other outputs at each declared temperature; −∞ where there are none."""
    log_sum_exp: NDArray[np.float32]
    """(B,) of the raw logits: log_probs + log_sum_exp are these."""


@dataclass(frozen=True)
class Sparse(Encoding):
    """Four tables: `ids` (V, N, k) uint16, `ids_high` (V, N, ⌈k/4⌉) uint8 with two more bits of each where C exceeds
    65,536, `log_probs` (V, N, k) float16 at T = 1, and `stats` (V, N, 1 + m) float32: the log-sum-exp of the raw
    logits, and the log mass of the other outputs at each of the m declared `temperatures`.

    A row takes 4·k + 4·(1 + m) bytes, whatever C. The softmax is exact on the k outputs, and in their sum on the
    others, at the declared temperatures and no others: log R(1/T), the log of the others' Σ e^(t/T), does not follow
    from its value at another T. Raises ValueError for `head` below 1, or temperatures that are not above 0, rising,
    and 1 among them.

    >>> rows = Sparse(head=2).encode(np.log([[0.5, 0.1, 0.3, 0.1]]), np.array([0]), 0)
    >>> shares, others = (np.exp(rows[name].astype(float)).round(3).tolist() for name in ("log_probs", "stats"))
    >>> rows["ids"].tolist(), shares, others[0][1]
    ([[0, 2]], [[0.5, 0.3]], 0.2)
    """

    head: int = 64
    """k, the outputs that are kept; at most C."""
    temperatures: tuple[float, ...] = (1.0,)
    """T at which the others' mass is kept."""
    format_version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if isinstance(self.head, bool) or not isinstance(self.head, int) or not 1 <= self.head <= _SHORT:
            raise ValueError(f"head: expected 1 to {_SHORT:,}, found {self.head!r}")
        given = self.temperatures
        if not 1 <= len(given) <= _MOST_TEMPERATURES or not all(
            type(value) is float and 0 < value < math.inf for value in given
        ):
            raise ValueError(
                f"temperatures: expected 1 to {_MOST_TEMPERATURES} numbers above 0, found {given!r}"
            )
        if list(given) != sorted(set(given)) or 1.0 not in given:
            raise ValueError(f"temperatures: expected rising ones, 1 among them, found {given!r}")

    @property
    def identity(self) -> dict[str, Any]:
        """Kind, head and temperatures."""
        return {"kind": "sparse", "head": self.head, "temperatures": list(self.temperatures)}

    @classmethod
    def from_identity(cls, content: Mapping[str, Any]) -> Self:
        """Takes `head` and `temperatures`. Raises FormatError."""
        head, given = content.get("head"), content.get("temperatures")
        if type(head) is not int or not isinstance(given, list) or not all(type(t) is float for t in given):
            raise FormatError(
                "manifest: identity.encoding: sparse needs an integer `head` and a list of floats `temperatures`, "
                f"found {shorten(head)} and {shorten(given)}"
            )
        try:
            return cls(head, tuple(given))
        except ValueError as error:
            raise FormatError(f"manifest: identity.encoding.{error}") from None

    @property
    def logits_dtype(self) -> np.dtype[Any]:
        """float32."""
        return np.dtype("<f4")

    @property
    def name(self) -> str:
        """For messages."""
        at = ", ".join(f"{value:g}" for value in self.temperatures)
        return f"the {self.head} largest, the others' mass at T = {at}"

    def check_outputs(self, num_outputs: int) -> None:
        """Raises FormatError where there are fewer outputs than are kept, or too many for the ids."""
        if self.head > num_outputs:
            raise FormatError(
                f"manifest: identity.encoding.head: at most the {num_outputs:,} outputs, found {self.head:,}"
            )
        if num_outputs > _MOST_OUTPUTS:
            raise FormatError(
                f"manifest: identity.encoding: sparse ids tell {_MOST_OUTPUTS:,} outputs apart, found {num_outputs:,}"
            )

    def require_temperature(self, temperature: float) -> None:
        """Raises MismatchError for a temperature at which the mass of the others is not known."""
        if temperature not in self.temperatures:
            known = ", ".join(f"{value:g}" for value in self.temperatures)
            raise MismatchError(
                f"temperature {temperature:g}: the cache has the mass of the outputs that it leaves out at T = {known}"
                ", and it does not follow at another: take one of these, or build a cache that declares it "
                "(cache.encoding.temperatures)"
            )

    def columns(self, num_outputs: int) -> dict[str, Column]:
        """`ids`, perhaps `ids_high`, `log_probs` and `stats`."""
        high = {"ids_high": Column((-(-self.head // 4),), np.dtype("u1"))} if num_outputs > _SHORT else {}
        return {
            "ids": Column((self.head,), np.dtype("<u2")),
            **high,
            "log_probs": Column((self.head,), np.dtype("<f2")),
            "stats": Column((1 + len(self.temperatures),), np.dtype("<f4")),
        }

    def encode(
        self, logits: NDArray[np.floating], samples: NDArray[np.int64], view: int
    ) -> dict[str, NDArray[Any]]:
        """The largest by falling value, and the lower id first where two are equal. Raises ValueRefusedError for NaN,
        Inf and what overflows float32.
        """
        require_finite(logits, samples, view)
        values = logits.astype("f8")
        kept = _largest(values, self.head)
        ids = np.nonzero(kept)[1].reshape(len(values), self.head)
        heads = np.take_along_axis(values, ids, axis=1)
        order = np.argsort(-heads, axis=1, kind="stable")
        ids, heads = np.take_along_axis(ids, order, axis=1), np.take_along_axis(heads, order, axis=1)
        whole, centred = _log_sum_exp(values), values - heads[:, :1]
        others = np.where(kept, -np.inf, centred)
        tails = [
            _log_sum_exp(others / temperature) - _log_sum_exp(centred / temperature)
            for temperature in self.temperatures
        ]
        rows = {
            "ids": (ids & (_SHORT - 1)).astype("<u2"),
            "log_probs": (heads - whole[:, None]).clip(_LEAST, 0).astype("<f2"),
            "stats": np.stack([whole, *tails], axis=1).astype("<f4"),
        }
        return {
            name: rows[name] if name in rows else _high_bits(ids) for name in self.columns(logits.shape[1])
        }

    def check(
        self, rows: Mapping[str, NDArray[Any]], samples: NDArray[np.int64], view: int, num_outputs: int
    ) -> None:
        """Raises ValueRefusedError for ids beyond C or twice, log-probabilities above 0, NaN, or that rise, and a head
        and tail that do not add up to 1.
        """
        found = self.rows(rows)
        with np.errstate(invalid="ignore", over="ignore"):
            mass = np.exp(found.log_probs.astype("f8")).sum(axis=1)
            ordered = np.sort(found.ids, axis=1)
            problems = {
                "ids: one is no output": (found.ids >= num_outputs).any(axis=1),
                "ids: one is there twice": (ordered[:, 1:] == ordered[:, :-1]).any(axis=1),
                "log_probs: must be finite, 0 or below, and fall": ~(
                    np.isfinite(found.log_probs).all(axis=1)
                    & (found.log_probs <= 0).all(axis=1)
                    & (np.diff(found.log_probs, axis=1) <= 0).all(axis=1)
                ),
                "stats: must be a finite log-sum-exp, and log masses of 0 or below": ~(
                    np.isfinite(found.log_sum_exp) & (found.log_tail <= 0).all(axis=1)
                ),
            }
            tail = np.exp(found.log_tail[:, self.temperatures.index(1.0)].astype("f8"))
            problems["head and tail do not add up to 1"] = ~(np.abs(mass + tail - 1) <= _ROUNDING)
        for problem, bad in problems.items():
            if bad.any():
                raise ValueRefusedError(
                    f"sample {samples[int(np.flatnonzero(bad)[0])]}, view {view}: {problem}"
                )

    def rows(self, rows: Mapping[str, NDArray[Any]]) -> SparseRows:
        """The tables' rows as numbers: ids whole, everything else in float32."""
        ids = rows["ids"].astype(np.int32)
        if "ids_high" in rows:
            spread = np.repeat(rows["ids_high"], 4, axis=-1)[..., : self.head].astype(np.int32)
            ids |= (spread >> _SHIFTS[np.arange(self.head) % 4] & 3) << 16
        stats = rows["stats"].astype(np.float32, copy=False)
        return SparseRows(ids, rows["log_probs"].astype(np.float32), stats[..., 1:], stats[..., 0])

    def decode(
        self, rows: Mapping[str, NDArray[Any]], num_outputs: int, temperature: float = 1.0
    ) -> NDArray[np.floating]:
        """(B, C) float32 raw logits: the kept ones, and one value for all others, such that the softmax at
        `temperature` is exact on the kept and has the others' mass spread evenly. Raises MismatchError for a
        temperature that is not declared.
        """
        self.require_temperature(temperature)
        found = self.rows(rows)
        heads = (found.log_probs + found.log_sum_exp[..., None]).astype("f8")
        log_tail = found.log_tail[..., self.temperatures.index(temperature)].astype("f8")
        log_head = _log_sum_exp(heads / temperature)
        # What the softmax is normalised by, from the head: Σ_head e^(t/T) is 1 − tail of it.
        with np.errstate(divide="ignore"):
            whole = log_head - np.log1p(-np.exp(np.minimum(log_tail, -1e-12)))
        rest = max(1, num_outputs - self.head)
        level = temperature * np.maximum(log_tail + whole - math.log(rest), _LEAST)
        logits = np.empty((*found.ids.shape[:-1], num_outputs), "<f4")
        logits[...] = level[..., None]
        np.put_along_axis(logits, found.ids.astype(np.intp), heads.astype("<f4"), axis=-1)
        return logits

    def compare(self, rows: Mapping[str, NDArray[Any]], logits: NDArray[np.floating]) -> tuple[float, float]:
        """The same of the kept logits alone: what the others have was never stored."""
        anew = self.encode(logits, np.arange(len(logits)), 0)
        return self._off(rows, logits), self._off(anew, logits)

    def _off(self, rows: Mapping[str, NDArray[Any]], logits: NDArray[np.floating]) -> float:
        found = self.rows(rows)
        heads = np.take_along_axis(logits, found.ids.astype(np.intp), axis=1)
        return float(np.abs(found.log_probs + found.log_sum_exp[:, None] - heads).max())


_SHIFTS = np.array([0, 2, 4, 6], np.int32)
_LEAST = -65_504.0  # the least float16: a probability of 0 all the same


def _largest(values: NDArray[np.floating], count: int) -> NDArray[np.bool_]:
    """(B, C) which values are the `count` largest of their row; of equal ones those with the lower places."""
    if count == values.shape[1]:
        return np.ones(values.shape, np.bool_)
    least = -np.partition(-values, count - 1, axis=1)[:, count - 1 : count]
    kept = values > least
    equal = values == least
    wanted = count - kept.sum(axis=1, keepdims=True)
    kept |= equal & (np.cumsum(equal, axis=1) <= wanted)
    return kept


def _log_sum_exp(values: NDArray[np.floating]) -> NDArray[np.float64]:
    """(…,) log Σ exp over the last axis; −∞ where every value is."""
    most = values.max(axis=-1, keepdims=True)
    most = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        result: NDArray[np.float64] = np.log(np.exp(values - most).sum(axis=-1)) + most[..., 0]
    return result


def _high_bits(ids: NDArray[np.integer]) -> NDArray[np.uint8]:
    """(B, ⌈k/4⌉): bits 16 and 17 of every four ids in a byte."""
    padded = np.zeros((len(ids), -(-ids.shape[1] // 4) * 4), np.int32)
    padded[:, : ids.shape[1]] = ids >> 16
    parts = padded.reshape(len(ids), -1, 4) << _SHIFTS
    high: NDArray[np.uint8] = np.bitwise_or.reduce(parts, axis=2).astype(np.uint8)
    return high
