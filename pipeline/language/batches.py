"""Batches for the teacher: samples of about one length, as many as a budget of tokens takes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.pipeline.corpus import TokenSamples
from decant.pipeline.language.blocks import Block, computed_tokens, in_blocks

_BATCHES = 32
"""Of a window, whose samples are sorted by length: those of a batch lie near each other in the file."""


_PROBE_TOKENS = 32


class TeacherBatch(NamedTuple):
    """Some samples, each part that sees itself alone as a row of its own, padded on the right. Where samples have
    several parts, rows of about one length are a block, which a network computes by itself.
    """

    samples: NDArray[np.int64]
    """(B,) which samples."""
    blocks: list[Block]
    """Rows (R, L) each; one block where every sample is one part."""
    tokens: Tensor
    """(T,) int64, where in all places, R·L of each block after the other, the samples' tokens are, in their order."""
    places: Tensor
    """(Q,) int64, where in all places these samples' positions are, those of one sample after those of another."""
    next_ids: Tensor
    """(Q,) int64, the token that follows each."""
    current_ids: Tensor
    """(Q,) int64, the token at each."""

    def to(self, device: torch.device) -> TeacherBatch:
        """What a network takes and is compared with on a device, to which it may still be copying: from page-locked
        memory, so that nobody waits for a GPU.
        """

        def moved(tensor: Tensor) -> Tensor:
            held = tensor.pin_memory() if device.type == "cuda" else tensor
            return held.to(device, non_blocking=True)

        return self._replace(
            blocks=[Block(*map(moved, block)) for block in self.blocks],
            places=moved(self.places),
            next_ids=moved(self.next_ids),
            current_ids=moved(self.current_ids),
        )

    @property
    def token_ids(self) -> Tensor:
        """(T,) int64, the tokens of all samples without padding, as the blocks have them."""
        return torch.cat([block.ids.flatten() for block in self.blocks])[self.tokens]

    @property
    def size(self) -> str:
        """In words, with padding, as `4 × 128`."""
        return " + ".join(
            f"{rows:,} × {longest:,}" for rows, longest in (one.ids.shape for one in self.blocks)
        )


def plan_of(
    samples: TokenSamples, tokens_per_batch: int, starts: NDArray[np.int64] | None = None
) -> list[list[NDArray[np.int64]]]:
    """The batches of each window of samples: what a network computes of each, with padding, is at most
    `tokens_per_batch`, or one sample. See `plan`.
    """
    return plan(computed_tokens(samples), tokens_per_batch, starts)


def plan(
    lengths: NDArray[np.int64], tokens_per_batch: int, starts: NDArray[np.int64] | None = None
) -> list[list[NDArray[np.int64]]]:
    """The batches of each window: samples (B,), whose number times the longest is at most `tokens_per_batch`, or one
    sample. Those of a batch are of about one length.

    A window is some samples that follow each other, enough for several batches; it begins at one of `starts`, where
    those are given. A function of the arguments alone, so a pass that goes on after a kill, or is shared by several
    processes, makes the same batches.

    >>> [batch.tolist() for batch in plan(np.array([5, 2, 4, 2]), tokens_per_batch=8)[0]]
    [[1, 3], [2], [0]]
    """
    ends = np.cumsum(lengths)
    may = np.arange(len(lengths)) if starts is None else starts
    wanted = np.arange(0, ends[-1], _BATCHES * tokens_per_batch)
    first = np.unique(may[np.searchsorted((ends - lengths)[may], wanted, side="right") - 1])
    bounds = np.r_[first, len(lengths)].tolist()
    return [_batches(lengths, begin, end, tokens_per_batch) for begin, end in itertools.pairwise(bounds)]


def _batches(
    lengths: NDArray[np.int64], begin: int, end: int, tokens_per_batch: int
) -> list[NDArray[np.int64]]:
    order = begin + np.argsort(lengths[begin:end], kind="stable")
    found, first = [], 0
    for place in range(1, len(order) + 1):
        if place == len(order) or (place + 1 - first) * lengths[order[place]] > tokens_per_batch:
            found.append(np.sort(order[first:place]))
            first = place
    return found


def collate(samples: TokenSamples, indices: NDArray[np.int64]) -> TeacherBatch:
    """The batch of some samples. A part of a sample that sees itself alone (`TokenSamples.groups`) is a row: no network
    has to be told which tokens see one another.
    """
    rows: list[NDArray[np.int64]] = []
    places: list[tuple[int, NDArray[np.int64]]] = []  # (row, places in it), rows rise
    next_ids, current_ids = [], []
    for index in indices.tolist():
        ids, at = samples.tokens(index), samples.positions(index)
        next_ids.append(ids[at + 1])
        current_ids.append(ids[at])
        ends = np.cumsum(samples.groups(index))
        group = np.searchsorted(ends, at, side="right")
        begins = ends - samples.groups(index)
        for number, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            places.append((len(rows), at[group == number] - begin))
            rows.append(ids[begin:end])
    blocks, row_begins = in_blocks(rows, alike=len(rows) == len(indices))
    tokens = np.concatenate(
        [begin + np.arange(len(row)) for begin, row in zip(row_begins, rows, strict=True)]
    )
    flat = np.concatenate([row_begins[row] + within for row, within in places])
    found = (tokens, flat, np.concatenate(next_ids), np.concatenate(current_ids))
    return TeacherBatch(indices, blocks, *map(torch.from_numpy, found))


def batches(samples: TokenSamples, planned: Iterable[NDArray[np.int64]]) -> Iterator[TeacherBatch]:
    """The batches of a plan."""
    for indices in planned:
        yield collate(samples, indices)


def probe(samples: TokenSamples) -> Tensor:
    """(2, L) the first tokens of a sample, and the same in the reverse order."""
    ids = torch.from_numpy(samples.tokens(0)[:_PROBE_TOKENS])
    return torch.stack([ids, ids.flip(0)])
