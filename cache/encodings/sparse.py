"""The largest logits of a row, or some drawn with a known probability, and how much mass all others have together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.draws import draw_rows, uniforms
from decant.cache.encodings.encoding import Column, Encoding, require_finite, row_name
from decant.cache.encodings.half import as_float32
from decant.cache.encodings.ids import MOST, SHORT, id_columns, pack_ids, unpack_ids
from decant.cache.encodings.log_sums import largest_places, log_rest, log_sum_exp
from decant.cache.encodings.sparse_rows import (
    SparseRows,
    log_normaliser,
    log_shares,
    problems_of_draws,
    problems_of_rows,
)
from decant.cache.encodings.temperatures import Bounds, interpolated, log_tail_bounds
from decant.cache.errors import FormatError, MismatchError, ValueRefusedError, shorten

_MOST_TEMPERATURES = 16
_CHUNK = 1 << 18  # logits that are encoded at once: arrays of float64 that stay in a processor's cache
_ROUNDING = 2e-3  # of a mass, from log-probabilities in float16


@dataclass(frozen=True)
class Sparse(Encoding):
    """Four tables: `ids` (V, N, k) uint16, `ids_high` (V, N, ⌈k/4⌉) uint8 with two more bits of each where C exceeds
    65,536, `log_probs` (V, N, k) float16 at T = 1, and `stats` (V, N, 1 + m) float32: the log-sum-exp of the raw
    logits, and the log mass of the other outputs at each of the m declared `temperatures`.

    A row takes 4·k + 4·(1 + m) bytes, whatever C. The softmax is exact on the k outputs, and in their sum on the
    others, at the declared temperatures and no others: log R(1/T), the log of the others' Σ e^(t/T), does not follow
    from its value at another T.

    With `draws` n, k = head + n: at least `head` of the largest are certain, and the places that are left are drawn
    without replacement, an output with probability π = m/τ, where m is the mean of the softmaxes at the declared
    temperatures and τ such that Σ min(1, π) fills the places (see `cache.encodings.draws`). p/π is then an unbiased
    estimate of the softmax p at each declared temperature, whose squared error Σ p(τ − p) no student changes. The
    draws are a hash of (seed, view, sample, position). A row has 6 bytes more: a table `certain` (V, N) uint16, and
    log τ at the end of `stats`.

    Raises ValueError for k below 1, or temperatures that are not above 0, rising, and 1 among them.

    >>> rows = Sparse(head=2).encode(np.log([[0.5, 0.1, 0.3, 0.1]]), np.array([0]), 0)
    >>> shares, others = (np.exp(rows[name].astype(float)).round(3).tolist() for name in ("log_probs", "stats"))
    >>> rows["ids"].tolist(), shares, others[0][1]
    ([[0, 2]], [[0.5, 0.3]], 0.2)
    >>> drawn = Sparse(head=0, draws=2).encode(np.log([[0.5, 0.1, 0.3, 0.1]]), np.array([0]), 0)
    >>> drawn["certain"].tolist(), np.exp(drawn["stats"][0, 2]).round(3)
    ([1], np.float32(0.5))
    """

    head: int = 64
    """The largest outputs, which are kept in any case; at most C."""
    temperatures: tuple[float, ...] = (1.0,)
    """T at which the others' mass is kept."""
    draws: int = 0
    """More outputs that are kept, chosen by chance."""
    seed: int = 0
    """Of the draws."""
    interpolates: bool = field(default=False, compare=False, repr=False)
    """Whether `decode` serves other temperatures too, see `interpolating`; no setting of what is stored."""
    format_version: ClassVar[int] = 2

    def __post_init__(self) -> None:
        for name, least, most in (
            ("draws", 0, SHORT),
            ("head", 0 if self.draws else 1, SHORT),
            ("seed", 0, 2**63 - 1),
        ):
            value = getattr(self, name)
            if type(value) is not int or not least <= value <= most:
                raise ValueError(f"{name}: expected {least} to {most:,}, found {value!r}")
        if self.seed and not self.draws:
            raise ValueError(f"seed: is of draws, and there are none, found {self.seed}")
        if isinstance(self.temperatures, list):
            object.__setattr__(self, "temperatures", tuple(self.temperatures))
        given = self.temperatures
        if (
            not isinstance(given, tuple)
            or not 1 <= len(given) <= _MOST_TEMPERATURES
            or not all(type(value) is float and 0 < value < math.inf for value in given)
        ):
            raise ValueError(
                f"temperatures: expected 1 to {_MOST_TEMPERATURES} floats above 0, found {given!r}"
            )
        if list(given) != sorted(set(given)) or 1.0 not in given:
            raise ValueError(f"temperatures: expected rising ones, 1 among them, found {given!r}")

    @property
    def identity(self) -> dict[str, Any]:
        """Kind, head and temperatures; draws and their seed where there are any."""
        drawn = {"draws": self.draws, "seed": self.seed} if self.draws else {}
        return {"kind": "sparse", "head": self.head, "temperatures": list(self.temperatures), **drawn}

    @classmethod
    def from_identity(cls, content: Mapping[str, Any]) -> Self:
        """Takes `head` and `temperatures`, and `draws` and `seed` where there are draws. Raises FormatError."""
        head, given = content.get("head"), content.get("temperatures")
        draws, seed = content.get("draws", 0), content.get("seed", 0)
        if "draws" in content and not draws:
            raise FormatError(
                f"manifest: identity.encoding.draws: expected 1 or more, found {shorten(draws)}"
            )
        if type(head) is not int or not isinstance(given, list) or not all(type(t) is float for t in given):
            raise FormatError(
                "manifest: identity.encoding: sparse needs an integer `head` and a list of floats `temperatures`, "
                f"found {shorten(head)} and {shorten(given)}"
            )
        try:
            return cls(head, tuple(given), draws, seed)
        except ValueError as error:
            raise FormatError(f"manifest: identity.encoding.{error}") from None

    @property
    def name(self) -> str:
        """For messages."""
        at = ", ".join(f"{value:g}" for value in self.temperatures)
        stored = [f"the {self.head} largest"] * bool(self.head) + [f"{self.draws} draws"] * bool(self.draws)
        kept = " and ".join(stored)
        return f"{kept}, the others' mass at T = {at}"

    @property
    def kept(self) -> int:
        """k, the outputs of a row that are stored."""
        return self.head + self.draws

    def check_outputs(self, num_outputs: int) -> None:
        """Raises FormatError where there are fewer outputs than are kept, or too many for the ids."""
        if self.kept > num_outputs:
            both = " and draws" if self.draws else ""
            raise FormatError(
                f"manifest: identity.encoding.head{both}: at most the {num_outputs:,} outputs, found {self.kept:,}"
            )
        if num_outputs > MOST:
            raise FormatError(
                f"manifest: identity.encoding: sparse ids tell {MOST:,} outputs apart, found {num_outputs:,}"
            )

    def interpolating(self) -> Sparse:
        """The same, whose `decode` takes the middle of what rows prove of the others' mass at any other temperature,
        see `log_tail_bounds`. Of draws it scales to a sum of 1 what they stand for there, which is unbiased at the
        declared ones alone.

        >>> Sparse(head=2).interpolating().require_temperature(2.0)
        """
        return replace(self, interpolates=True)

    def require_temperature(self, temperature: float) -> None:
        """Raises MismatchError for a temperature at which the mass of the others is not known."""
        if temperature not in self.temperatures and not self.interpolates:
            known = ", ".join(f"{value:g}" for value in self.temperatures)
            raise MismatchError(
                f"temperature {temperature:g}: the cache has the mass of the outputs that it leaves out at T = {known}"
                ", and it does not follow at another: take one of these, build a cache that declares it "
                "(cache.encoding.temperatures)"
            )

    def columns(self, num_outputs: int) -> dict[str, Column]:
        """`ids`, perhaps `ids_high`, `log_probs` and `stats`, and `certain` where there are draws."""
        drawn = self.draws > 0
        return {
            **id_columns(self.kept, num_outputs),
            "log_probs": Column((self.kept,), np.dtype("<f2")),
            "stats": Column((1 + len(self.temperatures) + drawn,), np.dtype("<f4")),
            **({"certain": Column((), np.dtype("<u2"))} if drawn else {}),
        }

    def encode(
        self,
        logits: NDArray[np.floating],
        samples: NDArray[np.int64],
        view: int,
        positions: NDArray[np.int64] | None = None,
    ) -> dict[str, NDArray[Any]]:
        """The largest by falling value, and the lower id first where two are equal; then what is drawn, by id. Raises
        ValueRefusedError for NaN, Inf and what overflows float32.
        """
        require_finite(logits, samples, view, positions)
        uniform = uniforms(self.seed, view, samples, positions)
        rows = max(1, _CHUNK // logits.shape[1])
        room = np.empty((1 + len(self.temperatures), min(rows, len(logits)), logits.shape[1]))
        parts = [
            self._encode(logits[first : first + rows], uniform[first : first + rows], room)
            for first in range(0, max(1, len(logits)), rows)
        ]
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _encode(
        self, logits: NDArray[np.floating], uniform: NDArray[np.float64], room: NDArray[np.float64]
    ) -> dict[str, NDArray[Any]]:
        """`room` (1 + m, B or more, C) is written over: the pages of a new array take as long as the sums."""
        ids = largest_places(logits, self.kept)
        values, *exps = room[:, : len(logits)]
        values[...] = logits
        largest = np.take_along_axis(values, ids, axis=1)
        order = np.argsort(-largest, axis=1, kind="stable")
        ids, largest = np.take_along_axis(ids, order, axis=1), np.take_along_axis(largest, order, axis=1)
        values -= largest[:, :1]
        for temperature, exp in zip(self.temperatures, exps, strict=True):
            np.exp(values if temperature == 1 else np.divide(values, temperature, out=exp), out=exp)
        sums = [exp.sum(axis=1) for exp in exps]
        whole = np.log(sums[self.temperatures.index(1.0)]) + largest[:, 0]
        drawn, log_tau = {}, []
        if self.draws:
            certain, tau = draw_rows(exps, sums, ids, self.head, uniform)
            drawn = {"certain": certain.astype("<u2")}
            with np.errstate(divide="ignore"):
                log_tau = [np.log(np.minimum(tau, 1))]  # by rounding it may be above
        kept = np.take_along_axis(logits, ids, axis=1).astype("f8")
        tails = [
            np.minimum(log_rest(exp, ids, values, temperature) - np.log(total), 0)
            for exp, total, temperature in zip(exps, sums, self.temperatures, strict=True)
        ]
        found = {
            **pack_ids(ids, values.shape[1]),
            "log_probs": (kept - whole[:, None]).clip(_LEAST, 0).astype("<f2"),
            "stats": np.stack([whole, *tails, *log_tau], axis=1).astype("<f4"),
        }
        return {**found, **drawn}

    def check(
        self,
        rows: Mapping[str, NDArray[Any]],
        samples: NDArray[np.int64],
        view: int,
        num_outputs: int,
        positions: NDArray[np.int64] | None = None,
    ) -> None:
        """Raises ValueRefusedError for ids beyond C or twice, log-probabilities above 0, NaN, or that rise, and a head
        and tail that do not add up to 1; and for draws out of order, or whose probabilities do not add up.
        """
        found = self.rows(rows)
        with np.errstate(invalid="ignore", over="ignore"):
            problems = {**problems_of_rows(found, num_outputs), **problems_of_draws(found, self.head)}
            mass = np.exp(found.log_probs.astype("f8")).sum(axis=1)
            tail = np.exp(found.log_tail[:, self.temperatures.index(1.0)].astype("f8"))
            problems["head and tail do not add up to 1"] = ~(np.abs(mass + tail - 1) <= _ROUNDING)
        for problem, bad in problems.items():
            if bad.any():
                place = int(np.flatnonzero(bad)[0])
                raise ValueRefusedError(f"{row_name(samples, view, place, positions)}: {problem}")

    def rows(self, rows: Mapping[str, NDArray[Any]]) -> SparseRows:
        """The tables' rows as numbers: ids whole, everything else in float32."""
        log_probs = as_float32(rows["log_probs"])
        stats = rows["stats"].astype(np.float32, copy=False)
        tails = stats[..., 1 : 1 + len(self.temperatures)]
        found = SparseRows(unpack_ids(rows), log_probs, tails, stats[..., 0])
        if not self.draws:
            return found
        return found._replace(certain=rows["certain"].astype(np.int32), log_tau=stats[..., -1])

    def log_tail(self, rows: SparseRows, num_outputs: int, temperature: float = 1.0) -> NDArray[np.float64]:
        """(…,) log of the mass of all other outputs at a temperature. Raises MismatchError for one that is not
        declared, unless the encoding is `interpolating`.
        """
        if temperature in self.temperatures or not self.interpolates:
            return self._declared_tail(rows, temperature)
        return interpolated(self.log_tail_bounds(rows, num_outputs, temperature))

    def log_tail_bounds(self, rows: SparseRows, num_outputs: int, temperature: float) -> Bounds:
        """((…,) least, (…,) most): what rows prove of that at any temperature.

        >>> encoding = Sparse(head=2)
        >>> shares = np.array([[0.5, 0.15, 0.3, 0.05]])
        >>> rows = encoding.rows(encoding.encode(np.log(shares), np.array([0]), 0))
        >>> least, most = encoding.log_tail_bounds(rows, num_outputs=4, temperature=2.0)
        >>> bool(least[0] < np.log((shares**0.5)[0, [1, 3]].sum() / (shares**0.5).sum()) < most[0])
        True
        """
        largest = None
        if rows.certain is not None:  # of draws, none that is left is larger than the least certain one
            padded = np.concatenate([np.zeros_like(rows.log_probs[..., :1]), rows.log_probs], axis=-1)
            certain = np.minimum(rows.certain, self.kept)
            largest = np.take_along_axis(padded, certain[..., None], axis=-1)[..., 0]
        return log_tail_bounds(
            rows.log_probs, rows.log_tail, self.temperatures, num_outputs, temperature, largest
        )

    def log_shares(self, rows: SparseRows, temperature: float = 1.0) -> NDArray[np.float64]:
        """(…, k) log softmax of the stored outputs at a declared temperature. Raises MismatchError for another."""
        return log_shares(rows, temperature, self._declared_tail(rows, temperature))

    def log_estimates(self, rows: SparseRows, temperature: float = 1.0) -> NDArray[np.float64]:
        """(…, k) log of the share that each stored output stands for at a declared temperature: its own, and of a draw
        that divided by its inclusion probability. Raises MismatchError for another temperature.

        >>> drawn = Sparse(head=0, draws=2)
        >>> rows = drawn.rows(drawn.encode(np.log([[0.5, 0.1, 0.3, 0.1]]), np.array([0]), 0))
        >>> np.exp(drawn.log_estimates(rows)).round(3).tolist()
        [[0.5, 0.5]]
        """
        return self._log_estimates(rows, temperature, self._declared_tail(rows, temperature))

    def _declared_tail(self, rows: SparseRows, temperature: float) -> NDArray[np.float64]:
        if temperature not in self.temperatures:
            replace(self, interpolates=False).require_temperature(temperature)
        return np.asarray(rows.log_tail[..., self.temperatures.index(temperature)].astype("f8"))

    def _log_estimates(
        self, rows: SparseRows, temperature: float, log_tail: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        own = log_shares(rows, temperature, log_tail)
        if rows.certain is None or rows.log_tau is None:
            return own
        at_each = np.stack([self.log_shares(rows, each) for each in self.temperatures], axis=-1)
        log_inclusion = log_sum_exp(at_each) - math.log(len(self.temperatures)) - rows.log_tau[..., None]
        drawn = np.arange(self.kept) >= rows.certain[..., None]
        return np.where(drawn, own - log_inclusion, own)

    def decode(
        self, rows: Mapping[str, NDArray[Any]], num_outputs: int, temperature: float = 1.0
    ) -> NDArray[np.floating]:
        """(B, C) float32 logits. Without draws they are the raw ones that are kept, and one value for all others, such
        that the softmax at `temperature` is exact on the kept and has the others' mass spread evenly. With draws their
        softmax at `temperature` is the estimate, scaled to a sum of 1, and all others have a share of 0. Raises
        MismatchError for a temperature that is not declared, unless the encoding is `interpolating`.
        """
        found = self.rows(rows)
        raw = found.log_sum_exp[..., None].astype("f8")
        log_tail = self.log_tail(found, num_outputs, temperature)
        if self.draws:
            heads = temperature * self._log_estimates(found, temperature, log_tail) + raw
            level = raw[..., 0] + temperature * _LEAST
        else:
            heads = (found.log_probs + found.log_sum_exp[..., None]).astype("f8")
            whole = log_normaliser(heads / temperature, log_tail)
            rest = max(1, num_outputs - self.kept)
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


_LEAST = -65_504.0  # the least float16: a probability of 0 all the same
