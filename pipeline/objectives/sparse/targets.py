"""What a batch of sparse rows says of the teacher's softmax."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import (
    LogitCache,
    MismatchError,
    Sparse,
    SparseRows,
    bounds_in_words,
    interpolated,
    log_tail_bounds,
)
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.sparse.given_rows import as_ids, as_masses, require_rows, require_temperature

Tail = Literal["bucket", "draws", "drop"]
"""What becomes of the outputs that are not stored.

- "bucket": they are one more output, with the mass that they have together. A lower bound of the dense divergence,
  whose gradients on the stored outputs are exact.
- "draws": the stored ones stand for them, a draw for 1/π of its own share. Unbiased; for rows with draws.
- "drop": they have no share, and the stored ones are scaled to a sum of 1. Biased in every row, for rows from elsewhere
  that know no more.
"""
_LEAST = -65_504.0  # the least float16: a probability of 0 all the same


class Shares(NamedTuple):
    """The teacher's softmax at one temperature, as a loss weighs it."""

    log_probs: Tensor
    """(Q, k) log softmax of the stored outputs."""
    weights: Tensor
    """(Q, k) the share that each stands for."""
    log_tail: Tensor | None
    """(Q,) log mass of all other outputs as one; None where they are not counted so."""


@dataclass(frozen=True)
class SparseTargets:
    """Sparse rows of Q positions or samples as tensors; k outputs of each are stored, of `num_outputs` C.

    `SparseTargets.read` takes them from a cache, `SparseTargets.of` from arrays.

    >>> import torch
    >>> targets = SparseTargets.of([[0, 2]], torch.tensor([[0.5, 0.3]]).log(), [[0.2]], num_outputs=4)
    >>> targets.shares(1.0).weights
    tensor([[0.5000, 0.3000]])
    """

    ids: Tensor
    """(Q, k) int64."""
    log_probs: Tensor
    """(Q, k) float32, log softmax at T = 1."""
    log_tail: Tensor
    """(Q, m) float32, log mass of the other outputs at each of the temperatures; −∞ where there are none."""
    temperatures: tuple[float, ...]
    """The m temperatures that are declared."""
    num_outputs: int
    """C."""
    log_sum_exp: Tensor | None = None
    """(Q,) float32, of the raw logits; None where these are not known."""
    certain: Tensor | None = None
    """(Q,) int64: how many of the k, the first, are no draw; None where nothing is drawn."""
    log_tau: Tensor | None = None
    """(Q,) float32, see `decant.encodings.SparseRows`."""
    added: int = 0
    """How many of the temperatures, the last, were interpolated."""

    @classmethod
    def of(
        cls,
        ids: object,
        log_probs: object,
        tail: object = None,
        *,
        num_outputs: int,
        temperatures: Sequence[float] = (1.0,),
    ) -> Self:
        """ids, log_probs: (Q, k). tail: (Q, m) mass of all other outputs at each temperature; None takes what is
        missing from 1 at T = 1. A log-probability of −∞ is a share of 0.

        Raises ValueError for other shapes, ids that are no output or twice in a row, log-probabilities above 0 or NaN,
        temperatures that are no numbers above 0, and a row that, with its tail, does not sum to 1.
        """
        found, log = as_ids(ids, num_outputs), torch.as_tensor(log_probs).float().clamp(min=_LEAST)
        if found.ndim != 2 or found.shape != log.shape or not found.shape[1]:
            raise ValueError(
                f"ids and log_probs: expected (Q, k) both, found {tuple(found.shape)}, {tuple(log.shape)}"
            )
        require_rows(found, log, num_outputs)
        declared = tuple(float(require_temperature(value)) for value in temperatures)
        if not declared or len(set(declared)) < len(declared):
            raise ValueError(f"temperatures: expected different ones, found {tuple(temperatures)}")
        mass = log.double().exp().sum(dim=1, keepdim=True)
        if tail is None:
            if declared != (1.0,):
                raise ValueError(
                    "tail: at other temperatures than 1 it does not follow from the log-probabilities"
                )
            rest = 1 - mass
        else:
            rest = torch.as_tensor(tail).double()
        if rest.shape != (len(found), len(declared)):
            raise ValueError(f"tail: expected {(len(found), len(declared))}, found {tuple(rest.shape)}")
        rest = as_masses(rest, mass if tail is not None and 1.0 in declared else None, declared)
        return cls(found, log, rest.log().float(), declared, num_outputs)

    @classmethod
    def from_rows(
        cls, rows: SparseRows, encoding: Sparse, num_outputs: int, device: torch.device | str | None = None
    ) -> Self:
        """Rows as `LogitCache.rows` returns them, (Q, k), on a device."""

        def tensor(values: NDArray[np.generic], dtype: torch.dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=dtype)

        drawn = rows.certain is not None and rows.log_tau is not None
        return cls(
            tensor(rows.ids, torch.int64),
            tensor(rows.log_probs, torch.float32),
            tensor(rows.log_tail, torch.float32),
            encoding.temperatures,
            num_outputs,
            tensor(rows.log_sum_exp, torch.float32),
            tensor(rows.certain, torch.int64) if drawn and rows.certain is not None else None,
            tensor(rows.log_tau, torch.float32) if drawn and rows.log_tau is not None else None,
        )

    @classmethod
    def read(
        cls,
        cache: LogitCache,
        indices: NDArray[np.integer] | Sequence[int] | slice,
        view: int = 0,
        device: torch.device | str | None = None,
    ) -> Self:
        """The rows of some samples of a sparse cache. Raises TypeError for a cache of another encoding.

        >>> import tempfile
        >>> from decant import LogitCacheWriter, Manifest
        >>> folder = tempfile.TemporaryDirectory()
        >>> manifest = Manifest.build(num_samples=2, num_outputs=4, encoding=Sparse(head=2))
        >>> with LogitCacheWriter(f"{folder.name}/toy.h5", manifest) as writer:
        ...     writer.write([0, 1], torch.tensor([[4.0, 0.0, 2.0, 0.0], [0.0, 3.0, 0.0, 1.0]]))
        ...     targets = SparseTargets.read(LogitCache.open(writer.publish()), [1, 0])
        >>> targets.ids.tolist()
        [[1, 3], [0, 2]]
        >>> folder.cleanup()
        """
        rows, encoding = cache.rows(indices, view), cache.manifest.encoding
        assert isinstance(encoding, Sparse)  # or there were no rows
        return cls.from_rows(rows, encoding, cache.num_outputs, device)

    @property
    def has_draws(self) -> bool:
        """Whether some of the stored outputs were drawn."""
        return self.certain is not None

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """Some of the rows: a slice, a boolean mask (Q,), or their numbers."""
        return self._each(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str, non_blocking: bool = True) -> Self:
        """The same on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The same in page-locked memory, from where copies to a GPU wait for nothing; a DataLoader that pins batches
        calls it.
        """
        return self._each(Tensor.pin_memory)

    def _each(self, change: Callable[[Tensor], Tensor]) -> Self:
        names = ("ids", "log_probs", "log_tail", "log_sum_exp", "certain", "log_tau")
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        changed: dict[str, Any] = {name: change(value) for name, value in fields.items() if value is not None}
        return replace(self, **changed)

    def tail_or_default(self, tail: Tail | None) -> Tail:
        """What becomes of the outputs that are not stored: None is "draws" where there are any, else "bucket". Raises
        ValueError for another word, and for draws where there are none.
        """
        if tail is None:
            return "draws" if self.has_draws else "bucket"
        if tail not in get_args(Tail):
            raise ValueError(f"tail: expected {', '.join(get_args(Tail))}, found {tail!r}")
        if tail == "draws" and not self.has_draws:
            raise ValueError(
                "tail: these rows have no draws, so nothing stands for what is not stored: take 'bucket'"
            )
        return tail

    def shares(self, temperature: float, tail: Tail | None = None, *, interpolate: bool = False) -> Shares:
        """The teacher's softmax at a declared temperature; or at another with `interpolate`, in the middle of what is
        proven about it. Raises MismatchError for one that is not declared, with those that are, and how far apart the
        proven bounds are there.
        """
        chosen = self.tail_or_default(tail)
        require_temperature(temperature)
        if chosen == "drop":
            log_probs = torch.log_softmax(self.log_probs / temperature, dim=1)
            return Shares(log_probs, log_probs.exp(), None)
        if temperature not in self.temperatures:
            return self._interpolated(temperature, interpolate).shares(temperature, chosen)
        log_probs = self._log_probs(temperature)
        if chosen == "bucket":
            rest = None
            if self.num_outputs > self.ids.shape[1]:
                rest = self.log_tail[:, self.temperatures.index(temperature)].clamp(min=_LEAST)
            return Shares(log_probs, log_probs.exp(), rest)
        return Shares(log_probs, (log_probs - self.log_inclusion()).exp(), None)

    def dense(self, temperature: float = 1.0, *, interpolate: bool = False) -> Tensor:
        """(Q, C) float32 logits, for the objectives that compare all of them, such as `dkd`: their softmax at
        `temperature` is what `LogitCache.at_temperature(temperature).logits` has. The outputs that are not stored share
        their mass evenly; with draws the estimate is scaled to a sum of 1, and all others have a share of 0. Takes
        Q·C floats: for some thousand outputs. Raises as `shares` does.

        >>> import torch
        >>> targets = SparseTargets.of([[0, 2]], torch.tensor([[0.5, 0.3]]).log(), [[0.2]], num_outputs=4)
        >>> targets.dense().softmax(1)
        tensor([[0.5000, 0.1000, 0.3000, 0.1000]])
        """
        log_probs, weights, log_tail = self.shares(temperature, interpolate=interpolate)
        raw = 0 if self.log_sum_exp is None else self.log_sum_exp[:, None]
        level = torch.full_like(log_probs[:, :1], temperature * _LEAST)
        if self.has_draws:
            heads = temperature * weights.log() + raw
            level = level + raw
        else:
            heads = self.log_probs + raw
            if log_tail is not None:
                shift = (heads / temperature - log_probs).mean(dim=1, keepdim=True)
                rest = self.num_outputs - self.ids.shape[1]
                level = temperature * (log_tail[:, None] - math.log(rest) + shift).clamp(min=_LEAST)
        return level.expand(-1, self.num_outputs).scatter(1, self.ids, heads)

    def log_inclusion(self) -> Tensor:
        """(Q, k) log π of each stored output: 0 of a certain one, else m/τ, m being the mean of the softmaxes at the
        temperatures that the file declares.
        """
        assert self.certain is not None
        assert self.log_tau is not None
        each = torch.stack(
            [self._log_probs(temperature) for temperature in self.temperatures[: self.declared]], dim=-1
        )
        log_pi = each.logsumexp(dim=-1) - math.log(each.shape[-1]) - self.log_tau[:, None]
        drawn = torch.arange(self.ids.shape[1], device=self.ids.device) >= self.certain[:, None]
        return torch.where(drawn, log_pi, 0.0)

    @property
    def declared(self) -> int:
        """How many of the temperatures the rows themselves have, and not an interpolation."""
        return len(self.temperatures) - self.added

    def _log_probs(self, temperature: float) -> Tensor:
        """(Q, k) log softmax at a declared temperature. The stored ones have 1 − tail of the mass."""
        tail = self.log_tail[:, self.temperatures.index(temperature)].clamp(max=-1e-7)
        tempered = self.log_probs / temperature
        return tempered - tempered.logsumexp(dim=1, keepdim=True) + torch.log(-torch.expm1(tail))[:, None]

    def _interpolated(self, temperature: float, allowed: bool) -> Self:
        """The same with one more declared temperature. Raises MismatchError unless that is `allowed`."""
        log_probs, log_tail = (tensor.cpu().numpy() for tensor in (self.log_probs, self.log_tail))
        bounds = log_tail_bounds(
            log_probs, log_tail, self.temperatures, self.num_outputs, temperature, self._largest_left()
        )
        if not allowed:
            known = ", ".join(f"{value:g}" for value in self.temperatures)
            proven = bounds_in_words(bounds)
            raise MismatchError(
                f"temperature {temperature:g}: the rows have the mass of the outputs that they leave out at T = "
                f"{known}; what these prove of it at {temperature:g} is {proven}: take a declared one, build a "
                "cache that declares it (cache.encoding.temperatures), or take the middle with interpolate=True"
            )
        column = torch.from_numpy(interpolated(bounds)).to(self.log_tail)[:, None]
        return replace(
            self,
            log_tail=torch.cat([self.log_tail, column], dim=1),
            temperatures=(*self.temperatures, temperature),
            added=self.added + 1,
        )

    def _largest_left(self) -> NDArray[np.float32] | None:
        """(Q,) what no output that is not stored exceeds: of draws the least certain one, or nothing known but 0."""
        if self.certain is None:
            return None
        padded = torch.cat([torch.zeros_like(self.log_probs[:, :1]), self.log_probs], dim=1)
        return np.asarray(padded.gather(1, self.certain[:, None])[:, 0].cpu().numpy())


def require_targets(targets: object) -> None:
    """Raises TypeError for rows of another kind."""
    if not isinstance(targets, SparseTargets):
        raise TypeError(
            f"targets: expected SparseTargets, found {type(targets).__name__}; SparseTargets.read takes rows of a "
            "cache, SparseTargets.of arrays"
        )


def require_outputs(outputs: int, expected: int) -> None:
    """Raises RecipeError where a student has another number of outputs than the teacher had."""
    if outputs != expected:
        raise RecipeError(
            f"student.objective: the teacher's rows are of {expected:,} outputs, the student has "
            f"{outputs:,}; of a last layer with padding rows give those of the outputs alone"
        )
