"""Encodes the outputs of a teacher where they lie: of 151,936 logits of a position a few hundred bytes reach the host.

The arithmetic is that of `decant.encodings.Sparse`, which encodes arrays: the same ids, and values that are equal but
for rounding. Nothing here waits for a GPU.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import Hidden, Sparse, ValueRefusedError, pack_ids, require_finite, uniforms
from decant.pipeline.training.device import OnHost

_CHUNK = 1 << 24  # logits that are encoded at once, in some tensors of float64
_CHUNK_OF_HEADS = 1 << 27  # in one of float32, where nothing is drawn
_RUNS = (128, 16)
"""Neighbouring logits of which the largest is looked at first, and of those that are left then."""
_LEAST = -65_504.0  # the least float16: a probability of 0 all the same


class EncodedRows(NamedTuple):
    """Sparse rows on a device, before ids are packed as files have them."""

    ids: Tensor
    """(B, k) int32."""
    log_probs: Tensor
    """(B, k) float16."""
    stats: Tensor
    """(B, 1 + m) or (B, 2 + m) float32."""
    certain: Tensor
    """(B,) int32; k where nothing is drawn."""
    doubtful: Tensor
    """(B,) a logit that cannot be stored, or 0."""


def encodes_on(device: torch.device) -> bool:
    """Whether logits are better encoded on this device than on the host: a GPU with float64."""
    return device.type == "cuda"


def encode_sparse(
    logits: Tensor,
    encoding: Sparse,
    samples: NDArray[np.integer],
    view: int,
    positions: NDArray[np.integer] | None = None,
) -> EncodedRows:
    """Raw outputs (B, C) on any device, of these samples (B,) and positions (B,), as rows on the same device.

    >>> rows = encode_sparse(torch.tensor([[2.0, 0.0, 1.0]]), Sparse(head=2), np.array([0]), view=0)
    >>> rows.ids.tolist()
    [[0, 2]]
    """
    return encode_views(logits, encoding, samples, [view], positions)[0]


@torch.inference_mode()
def encode_views(
    logits: Tensor,
    encoding: Sparse,
    samples: NDArray[np.integer],
    views: Sequence[int],
    positions: NDArray[np.integer] | None = None,
) -> list[EncodedRows]:
    """The same of several views, which are other draws of the same logits: what they share is worked out once."""
    drawn = [uniforms(encoding.seed, view, samples, positions) for view in views]
    uniform = torch.from_numpy(np.stack(drawn)).to(logits.device, non_blocking=True)
    rows = max(1, (_CHUNK if encoding.draws else _CHUNK_OF_HEADS) // logits.shape[1])
    parts = [
        _encode(logits[first : first + rows], encoding, uniform[:, first : first + rows])
        for first in range(0, max(1, len(logits)), rows)
    ]
    return [joined(of_view) for of_view in zip(*parts, strict=True)]


def joined(parts: Sequence[EncodedRows]) -> EncodedRows:
    """The rows of several calls, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return EncodedRows(*(torch.cat(one) for one in zip(*parts, strict=True)))


class RowsOnHost:
    """Encoded rows on their way to the host; `wait` has them as `LogitCacheWriter.write_encoded` takes them."""

    def __init__(self, rows: EncodedRows, encoding: Sparse, num_outputs: int) -> None:
        self._encoding, self._num_outputs = encoding, num_outputs
        parts = rows._asdict()
        if not encoding.draws:
            del parts["certain"]
        self._parts = OnHost(parts)

    def wait(
        self, samples: NDArray[np.int64], view: int, positions: NDArray[np.int64] | None = None
    ) -> Mapping[str, NDArray[Any]]:
        """Raises ValueRefusedError, naming sample and view, for a logit that cannot be stored."""
        found = {name: part.numpy() for name, part in self._parts.wait().items()}
        require_finite(found["doubtful"][:, None], samples, view, positions)
        drawn = {"certain": found["certain"].astype("<u2")} if self._encoding.draws else {}
        return {
            **pack_ids(found["ids"], self._num_outputs),
            "log_probs": found["log_probs"],
            "stats": found["stats"],
            **drawn,
        }


class StatesOnHost:
    """Hidden states (B, d) on their way to the host; `wait` has them as `LogitCacheWriter.write_encoded` takes them.
    From a GPU they come in the dtype that is stored, which has the same bits wherever they are cast.
    """

    def __init__(self, hidden: Tensor, encoding: Hidden) -> None:
        self._hidden, self._encoding = hidden, encoding
        narrow = encodes_on(hidden.device) and encoding.dtype == "float16"
        self._states = OnHost(hidden.float().half() if narrow else hidden.float())

    def wait(
        self, samples: NDArray[np.int64], view: int, positions: NDArray[np.int64] | None = None
    ) -> Mapping[str, NDArray[Any]]:
        """Raises ValueRefusedError, naming sample, view and value, for what cannot be stored."""
        try:
            return self._encoding.encode(self._states.wait().numpy(), samples, view, positions)
        except ValueRefusedError:  # of what was cast already it names the wrong value
            return self._encoding.encode(self._hidden.float().cpu().numpy(), samples, view, positions)


def _encode(logits: Tensor, encoding: Sparse, uniform: Tensor) -> list[EncodedRows]:
    """The rows of each view; uniform: (V, B) what is drawn by."""
    if not encoding.draws and encoding.kept < logits.shape[1] and logits.dtype != torch.float64:
        return [_encode_head(logits, encoding)] * len(uniform)
    ids, doubtful = _largest(logits, encoding.kept)
    values = torch.where(doubtful[:, None] == 0, logits, 0) if logits.dtype == torch.float64 else logits
    most = values.gather(1, ids[:, :1]).double()
    centred = values - most  # in float64, as that is
    masses = [_divided(centred, temperature).exp().sum(dim=1).log() for temperature in encoding.temperatures]
    whole = masses[encoding.temperatures.index(1.0)] + most[:, 0]

    def rows(ids: Tensor, certain: Tensor, *more: Tensor) -> EncodedRows:
        others = centred.scatter(1, ids, -math.inf)
        tails = [
            (_divided(others, temperature).logsumexp(dim=1) - mass).clamp(max=0)
            for temperature, mass in zip(encoding.temperatures, masses, strict=True)
        ]
        log_probs = (values.gather(1, ids).double() - whole[:, None]).clamp(_LEAST, 0).half()
        stats = torch.stack([whole, *tails, *more], dim=1).float()
        return EncodedRows(ids.int(), log_probs, stats, certain.int(), doubtful)

    if not encoding.draws:
        return [rows(ids, torch.full_like(ids[:, 0], encoding.kept))] * len(uniform)
    design = _design(centred, ids, encoding)
    log_tau = design.tau.log().clamp(max=0)
    return [rows(_draw(design, one), design.certain, log_tau) for one in uniform]


def _encode_head(logits: Tensor, encoding: Sparse) -> EncodedRows:
    """The same where nothing is drawn, in few passes over the logits: they stay in the dtype that they have, their
    exponentials are in float32, and only sums are in float64.
    """
    count = encoding.kept
    # One more than is kept: their sum is relative to the largest of the others.
    first, doubtful = _first_of(logits, count + 1)
    ids, found = first[:, :count], logits.gather(1, first).float()
    heads, next_one = found[:, :count].double(), found[:, count:]
    tails, whole = [], torch.empty(0)
    for temperature in encoding.temperatures:
        shares = logits - next_one  # in float32, as that is
        shares = (shares if temperature == 1 else shares.div_(temperature)).exp_().scatter_(1, ids, 0.0)
        others = shares.sum(dim=1, dtype=torch.float64).log() + next_one[:, 0].double() / temperature
        total = torch.logaddexp((heads / temperature).logsumexp(dim=1), others)
        tails.append(others - total)
        whole = total if temperature == 1 else whole
    log_probs = (heads - whole[:, None]).clamp(_LEAST, 0).half()
    stats = torch.stack([whole, *tails], dim=1).float()
    certain = torch.full_like(ids[:, 0], count)
    return EncodedRows(ids.int(), log_probs, stats, certain.int(), doubtful)


def _first_of(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """See `_first`; and `EncodedRows.doubtful`. One pass over the logits finds both."""
    runs, rest = _in_runs(logits, _RUNS[0])
    if not runs.shape[1]:
        least, most = logits.aminmax(dim=1)
        return _by_size(logits, count), _doubtful(least, most)
    lows, highs = runs.aminmax(dim=2)
    least, most = lows.amin(dim=1), highs.amax(dim=1)
    if rest.shape[1]:
        low, high = rest.aminmax(dim=1)
        least, most = torch.minimum(least, low), torch.maximum(most, high)
    return _first(logits, count, highs), _doubtful(least, most)


def _doubtful(least: Tensor, most: Tensor) -> Tensor:
    """(B,) a value that is not finite, as one of the extremes of its row is, or 0."""
    return torch.where(torch.isfinite(most), torch.where(torch.isfinite(least), 0.0, least), most).double()


def _first(values: Tensor, count: int, highs: Tensor | None = None, sizes: Sequence[int] = _RUNS) -> Tensor:
    """(B, count) int64: the places of the `count` largest of (B, C), the largest first, and of equal ones those with
    the lower places. highs: (B, C // sizes[0]) the largest of each run of neighbours, where it is known.

    They lie in the `count` runs whose largest values are the largest, or among the rest that makes no run. So only
    these are looked through, in shorter runs.
    """
    if not sizes:
        return _by_size(values, count)
    size, *smaller = sizes
    runs, rest = _in_runs(values, size)
    if runs.shape[1] <= count:
        return _first(values, count, None, smaller)
    chosen = _by_size(runs.amax(dim=2) if highs is None else highs, count).sort(dim=1).values
    few = runs.gather(1, chosen[:, :, None].expand(-1, -1, size)).flatten(1)
    if not rest.shape[1]:
        found = _first(few, count, None, smaller)
        return chosen.gather(1, found // size) * size + found % size
    found = _first(torch.cat([few, rest], dim=1), count, None, smaller)
    of_rest = found - few.shape[1]
    places = chosen.gather(1, (found // size).clamp(max=count - 1)) * size + found % size
    return torch.where(of_rest < 0, places, of_rest + values.shape[1] - rest.shape[1])


def _in_runs(values: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """((B, C // size, size) runs of neighbours, (B, C % size) the rest): no copies."""
    end = values.shape[1] // size * size
    return values[:, :end].unflatten(1, (end // size, size)), values[:, end:]


def _by_size(values: Tensor, count: int) -> Tensor:
    """(B, count) int64, by an order in which no two places are equal: an integer of the value and then the place."""
    short = values.element_size() == 2 and values.shape[1] <= 1 << 16
    wide, bits = (torch.int32, torch.int16) if short else (torch.int64, torch.int32)
    room = 16 if short else 32
    number = (values if short else values.float()) + 0.0  # −0 becomes 0
    found = number.view(bits)
    rising = torch.where(found < 0, found ^ torch.iinfo(bits).max, found).to(wide)
    last = values.shape[1] - 1
    keys = (rising << room) | torch.arange(last, -1, -1, device=values.device, dtype=wide)
    return (last - (keys.topk(count, dim=1).values & ((1 << room) - 1))).long()


def _largest(logits: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """See `_first_of`, of any dtype."""
    if logits.dtype != torch.float64:
        return _first_of(logits, count)
    bad = ~(logits.abs() <= torch.finfo(torch.float32).max)
    doubtful = torch.where(bad, logits, 0).gather(1, bad.int().argmax(dim=1, keepdim=True))[:, 0]
    order = torch.where(bad, 0, logits).argsort(dim=1, descending=True, stable=True)
    return order[:, :count], doubtful


def _divided(values: Tensor, temperature: float) -> Tensor:
    return values if temperature == 1 else values / temperature


class _Design(NamedTuple):
    """What rows are drawn by, as `decant.cache.encodings.draws` has it."""

    ids: Tensor
    """(B, k) the largest, of which the first h are certain."""
    certain: Tensor
    """(B,) h."""
    tau: Tensor
    """(B,)."""
    sizes: Tensor
    """(B, C) the chance of each of the others, up to a factor."""
    ends: Tensor
    """(B, C) their sums up to each, scaled to how many are drawn."""


def _design(centred: Tensor, ids: Tensor, encoding: Sparse) -> _Design:
    count, temperatures = encoding.kept, encoding.temperatures
    shares = (_divided(centred, temperature).softmax(dim=1) for temperature in temperatures)
    design = functools.reduce(operator.add, (_divided(share, len(temperatures)) for share in shares))
    largest = design.gather(1, ids)
    others = design.scatter(1, ids, 0).sum(dim=1, keepdim=True)
    left = torch.cat([others, largest.flip(1)], dim=1).cumsum(dim=1)[:, 1:].flip(1)
    limits = left / torch.arange(count, 0, -1, device=ids.device)
    drawn = largest < limits
    drawn[:, : encoding.head] = False
    drawn = torch.cat([drawn, torch.ones_like(drawn[:, :1])], dim=1)
    certain = drawn.int().argmax(dim=1)
    limits = torch.cat([limits, torch.zeros_like(limits[:, :1])], dim=1)
    tau = limits.gather(1, certain[:, None])[:, 0]
    chance = torch.arange(count, device=ids.device) >= certain[:, None]
    sizes = design.scatter(1, ids, torch.where(chance, largest, 0))
    ends = sizes.cumsum(dim=1)
    ends *= (count - certain)[:, None] / torch.where(ends[:, -1:] > 0, ends[:, -1:], 1)
    return _Design(ids, certain, tau, sizes, ends)


def _draw(design: _Design, uniform: Tensor) -> Tensor:
    """(B, k): the ids of a view."""
    ids, certain = design.ids, design.certain
    count = ids.shape[1]
    columns = torch.arange(count, device=ids.device)
    chance = columns >= certain[:, None]
    chosen = _systematic(design.sizes, design.ends, count - certain, uniform, count)
    moved = chosen.gather(1, (columns - certain[:, None]).clamp(min=0))
    order = torch.where(chance, moved, columns - count).argsort(dim=1)
    return torch.where(chance, moved, ids).gather(1, order)


def _systematic(sizes: Tensor, ends: Tensor, counts: Tensor, uniform: Tensor, most: int) -> Tensor:
    """(B, most) int64: first the numbers of what is drawn, `counts` (B,) of each row, in rising order."""
    points = torch.minimum((ends - uniform[:, None]).ceil().clamp(min=0), counts[:, None].to(ends))
    drawn = torch.diff(points, dim=1, prepend=torch.zeros_like(points[:, :1])) > 0
    # By falling rank: what is drawn by its number, then the rest by size, for a row that rounding leaves one short.
    outputs = sizes.shape[1]
    ranks = torch.where(drawn, outputs + 1.0 - torch.arange(outputs, device=sizes.device), sizes)
    return ranks.topk(most, dim=1).indices
