"""Encodes the outputs of a teacher where they lie: of 151,936 logits of a position a few hundred bytes reach the host.

The arithmetic is that of `decant.encodings.Sparse`, which encodes arrays: the same ids, and values that are equal but
for rounding. Nothing here waits for a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from decant.cache import Sparse, pack_ids, require_finite, uniforms
from decant.pipeline.training.device import OnHost

_CHUNK = 1 << 24  # logits that are encoded at once, in some tensors of float64
_CHUNK_OF_HEADS = 1 << 26  # in two of float32, where nothing is drawn
_RUN = 128  # neighbouring logits of which the largest is looked at first
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
    if len(parts) == 1:
        return parts[0]
    return [
        EncodedRows(*(torch.cat(one) for one in zip(*of_view, strict=True)))
        for of_view in zip(*parts, strict=True)
    ]


class RowsOnHost:
    """Encoded rows on their way to the host; `wait` has them as `LogitCacheWriter.write_encoded` takes them."""

    def __init__(self, rows: EncodedRows, encoding: Sparse, num_outputs: int) -> None:
        self._encoding, self._num_outputs = encoding, num_outputs
        self._parts = OnHost(rows._asdict())

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


def _encode(logits: Tensor, encoding: Sparse, uniform: Tensor) -> list[EncodedRows]:
    """The rows of each view; uniform: (V, B) what is drawn by."""
    if not encoding.draws and encoding.kept < logits.shape[1] and logits.dtype != torch.float64:
        return [_encode_head(logits, encoding)] * len(uniform)
    bad = ~(logits.abs() <= torch.finfo(torch.float32).max)
    doubtful = torch.where(bad, logits, 0).gather(1, bad.int().argmax(dim=1, keepdim=True))[:, 0].double()
    values = torch.where(bad, 0, logits).double()
    kept = _largest(values, encoding.kept)
    ids = _places(kept, encoding.kept)
    order = values.gather(1, ids).argsort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, order)
    whole, centred = values.logsumexp(dim=1), values - values.gather(1, ids[:, :1])
    masses = [(centred / temperature).logsumexp(dim=1) for temperature in encoding.temperatures]

    def rows(ids: Tensor, certain: Tensor, *more: Tensor) -> EncodedRows:
        others = centred.scatter(1, ids, -math.inf)
        tails = [
            ((others / temperature).logsumexp(dim=1) - mass).clamp(max=0)
            for temperature, mass in zip(encoding.temperatures, masses, strict=True)
        ]
        log_probs = (values.gather(1, ids) - whole[:, None]).clamp(_LEAST, 0).half()
        stats = torch.stack([whole, *tails, *more], dim=1).float()
        return EncodedRows(ids.int(), log_probs, stats, certain.int(), doubtful)

    if not encoding.draws:
        return [rows(ids, torch.full_like(ids[:, 0], encoding.kept))] * len(uniform)
    design = _design(centred, kept, ids, encoding)
    log_tau = design.tau.log().clamp(max=0)
    return [rows(_draw(design, one), design.certain, log_tau) for one in uniform]


def _encode_head(logits: Tensor, encoding: Sparse) -> EncodedRows:
    """The same where nothing is drawn, in few passes over the logits: all of them but the heads stay in float32, and
    only sums are in float64.
    """
    values, count = logits.float(), encoding.kept
    least, most = values.aminmax(dim=1)
    doubtful = torch.where(torch.isfinite(most), torch.where(torch.isfinite(least), 0.0, least), most)
    first = _first(values, count + 1)  # the largest of the others too, which their sum is relative to
    ids, found = first[:, :count], values.gather(1, first)
    heads, next_one = found[:, :count].double(), found[:, count:]
    tails, whole = [], torch.empty(0)
    for temperature in encoding.temperatures:
        shares = values - next_one
        shares = (shares if temperature == 1 else shares.div_(temperature)).exp_().scatter_(1, ids, 0.0)
        others = shares.sum(dim=1, dtype=torch.float64).log() + next_one[:, 0].double() / temperature
        total = torch.logaddexp((heads / temperature).logsumexp(dim=1), others)
        tails.append(others - total)
        whole = total if temperature == 1 else whole
    log_probs = (heads - whole[:, None]).clamp(_LEAST, 0).half()
    stats = torch.stack([whole, *tails], dim=1).float()
    certain = torch.full_like(ids[:, 0], count)
    return EncodedRows(ids.int(), log_probs, stats, certain.int(), doubtful.double())


def _first(values: Tensor, count: int) -> Tensor:
    """(B, count) int64: the places of the `count` largest of (B, C) float32, the largest first, and of equal ones those
    with the lower places.

    They lie in the `count` runs of places whose largest values are the largest, so only these runs are looked through.
    """
    rows, outputs = values.shape
    runs = -(-outputs // _RUN)
    padded = functional.pad(values, (0, runs * _RUN - outputs), value=-math.inf).view(rows, runs, _RUN)
    if runs > count:
        chosen = _by_size(padded.amax(dim=2), count).sort(dim=1).values[:, :, None]
        padded = padded.gather(1, chosen.expand(-1, -1, _RUN))
        places = (chosen * _RUN + torch.arange(_RUN, device=values.device)).flatten(1)
        return places.gather(1, _by_size(padded.flatten(1), count)).clamp(max=outputs - 1)
    return _by_size(padded.flatten(1), count).clamp(max=outputs - 1)


def _by_size(values: Tensor, count: int) -> Tensor:
    """(B, count) int64, by an order in which no two places are equal: an integer of the value and then the place."""
    bits = (values + 0.0).view(torch.int32)  # −0 becomes 0
    rising = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits).long()
    last = values.shape[1] - 1
    keys = (rising << 32) | torch.arange(last, -1, -1, device=values.device)
    return last - (keys.topk(count, dim=1).values & 0xFFFFFFFF)


def _largest(values: Tensor, count: int) -> Tensor:
    """(B, C) which are the `count` largest of their row; of equal ones those with the lower places."""
    least = values.topk(count, dim=1).values[:, -1:]
    kept = values > least
    equal = values == least
    wanted = count - kept.sum(dim=1, keepdim=True, dtype=torch.int32)
    return kept | equal & (equal.cumsum(dim=1, dtype=torch.int32) <= wanted)


def _places(chosen: Tensor, count: int) -> Tensor:
    """(B, count) int64 in which places of (B, C) `chosen` is true, as often as it is true, in rising order."""
    return chosen.float().topk(count, dim=1).indices.sort(dim=1).values


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


def _design(centred: Tensor, kept: Tensor, ids: Tensor, encoding: Sparse) -> _Design:
    count = encoding.kept
    design = torch.zeros_like(centred)
    for temperature in encoding.temperatures:
        design += (centred / temperature).softmax(dim=1) / len(encoding.temperatures)
    largest = design.gather(1, ids)
    others = design.masked_fill(kept, 0).sum(dim=1, keepdim=True)
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
