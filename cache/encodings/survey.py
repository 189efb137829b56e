"""How many outputs a row needs: what heads and draws of several sizes would leave out of some of a teacher's rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.draws import thresholds

SIZES = (8, 16, 32, 64, 128)
_CHUNK = 1 << 22  # logits that are looked at at once


@dataclass(frozen=True)
class SurveyedSize:
    """What k stored outputs would be worth at one temperature, over the rows that were looked at."""

    kept: int
    """k."""
    temperature: float
    tail: float
    """Mean share of the mass that a head of k leaves out."""
    tail_90: float
    """What nine of ten rows leave out at most."""
    draws_error: float
    """√ of the mean of E‖p̂ − p‖², p̂ being the estimate from k draws: with one declared temperature Σ p·(τ − p) of what
    is not certain.
    """


class SparseSurvey:
    """Adds up what sparse rows of several sizes leave out of raw logits, which come in batches.

    temperatures: those that the encoding would declare. sizes: k, of which those are left out that are no less than C.

    >>> survey = SparseSurvey((1.0,), sizes=(2,))
    >>> survey.add(np.log([[0.5, 0.1, 0.3, 0.1]]))
    >>> [(found.kept, round(found.tail, 3), round(found.draws_error, 3)) for found in survey]
    [(2, 0.2, 0.374)]
    """

    def __init__(self, temperatures: Sequence[float] = (1.0,), sizes: Sequence[int] = SIZES) -> None:
        self.temperatures, self.sizes = tuple(temperatures), tuple(sorted(sizes))
        self._tails: dict[tuple[int, float], list[NDArray[np.float64]]] = {}
        self._errors: dict[tuple[int, float], list[NDArray[np.float64]]] = {}

    def add(self, logits: NDArray[np.floating]) -> None:
        """Takes raw logits (B, C)."""
        rows = max(1, _CHUNK // logits.shape[1])
        for first in range(0, len(logits), rows):
            self._add(logits[first : first + rows].astype("f8"))

    def __iter__(self) -> Iterator[SurveyedSize]:
        """Each size at each temperature, the least size first."""
        for (kept, temperature), parts in self._tails.items():
            tails, errors = np.concatenate(parts), np.concatenate(self._errors[kept, temperature])
            yield SurveyedSize(
                kept,
                temperature,
                float(tails.mean()),
                float(np.quantile(tails, 0.9)),
                float(np.sqrt(errors.mean())),
            )

    def _add(self, values: NDArray[np.float64]) -> None:
        sizes = [size for size in self.sizes if size < values.shape[1]]
        values = np.sort(values, axis=1)[:, ::-1]
        values -= values[:, :1]
        exps = [np.exp(values / temperature) for temperature in self.temperatures]
        shares = [exp / exp.sum(axis=1, keepdims=True) for exp in exps]
        design = np.mean(shares, axis=0)
        for kept in sizes:
            rest = design[:, kept:].sum(axis=1)
            certain, tau = thresholds(design[:, :kept], rest, 0)
            drawn = np.arange(values.shape[1]) >= certain[:, None]
            for temperature, share in zip(self.temperatures, shares, strict=True):
                self._tails.setdefault((kept, temperature), []).append(share[:, kept:].sum(axis=1))
                with np.errstate(divide="ignore", invalid="ignore"):
                    odds = np.where(design > 0, tau[:, None] / design - 1, 0)
                variance = np.where(drawn, np.square(share) * odds, 0).sum(axis=1)
                self._errors.setdefault((kept, temperature), []).append(variance)
