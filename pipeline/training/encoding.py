"""Encodes the outputs of a teacher where they lie: of 151,936 logits of a position a few hundred bytes reach the host.

The arithmetic is that of `decant.encodings.Sparse`, which encodes arrays: the same ids, and values that are equal but
for rounding. Nothing here waits for a GPU.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import Sparse, pack_ids, require_finite, uniforms
from decant.pipeline.training.device import OnHost

_CHUNK = 1 << 24  # logits that are encoded at once, in some tensors of float64
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


@torch.inference_mode()
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
    uniform = torch.from_numpy(uniforms(encoding.seed, view, samples, positions)).to(
        logits.device, non_blocking=True
    )
    rows = max(1, _CHUNK // logits.shape[1])
    parts = [
        _encode(logits[first : first + rows], encoding, uniform[first : first + rows])
        for first in range(0, max(1, len(logits)), rows)
    ]
    return parts[0] if len(parts) == 1 else EncodedRows(*(torch.cat(one) for one in zip(*parts, strict=True)))


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


def _encode(logits: Tensor, encoding: Sparse, uniform: Tensor) -> EncodedRows:
    bad = ~(logits.abs() <= torch.finfo(torch.float32).max)
    doubtful = torch.where(bad, logits, 0).gather(1, bad.int().argmax(dim=1, keepdim=True))[:, 0]
    values = torch.where(bad, 0, logits).double()
    kept = _largest(values, encoding.kept)
    ids = _places(kept, encoding.kept)
    order = values.gather(1, ids).argsort(dim=1, descending=True, stable=True)
    ids = ids.gather(1, order)
    whole, centred = values.logsumexp(dim=1), values - values.gather(1, ids[:, :1])
    certain, more = torch.full_like(ids[:, 0], encoding.kept), []
    if encoding.draws:
        ids, certain, tau = _draw(centred, kept, ids, encoding, uniform)
        kept = torch.zeros_like(kept).scatter_(1, ids, True)
        more = [tau.log()]
    others = centred.masked_fill(kept, -math.inf)
    tails = [
        (others / temperature).logsumexp(dim=1) - (centred / temperature).logsumexp(dim=1)
        for temperature in encoding.temperatures
    ]
    log_probs = (values.gather(1, ids) - whole[:, None]).clamp(_LEAST, 0).half()
    stats = torch.stack([whole, *tails, *more], dim=1).float()
    return EncodedRows(ids.int(), log_probs, stats, certain.int(), doubtful.double())


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


def _draw(
    centred: Tensor, kept: Tensor, ids: Tensor, encoding: Sparse, uniform: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """(ids (B, k), h (B,), τ (B,)), as `decant.cache.encodings.draws` has them."""
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
    columns = torch.arange(count, device=ids.device)
    chance = columns >= certain[:, None]
    sizes = design.scatter(1, ids, torch.where(chance, largest, 0))
    chosen = _systematic(sizes, count - certain, uniform, count)
    moved = chosen.gather(1, (columns - certain[:, None]).clamp(min=0))
    order = torch.where(chance, moved, columns - count).argsort(dim=1)
    return torch.where(chance, moved, ids).gather(1, order), certain, tau


def _systematic(sizes: Tensor, counts: Tensor, uniform: Tensor, most: int) -> Tensor:
    """(B, most) int64: first the numbers of what is drawn, `counts` (B,) of each row, in rising order."""
    ends = sizes.cumsum(dim=1)
    ends *= counts[:, None] / torch.where(ends[:, -1:] > 0, ends[:, -1:], 1)
    points = torch.minimum((ends - uniform[:, None]).ceil().clamp(min=0), counts[:, None].to(ends))
    drawn = torch.diff(points, dim=1, prepend=torch.zeros_like(points[:, :1])) > 0
    # By falling rank: what is drawn by its number, then the rest by size, for a row that rounding leaves one short.
    outputs = sizes.shape[1]
    ranks = torch.where(drawn, outputs + 1.0 - torch.arange(outputs, device=sizes.device), sizes)
    return ranks.topk(most, dim=1).indices
