"""Rows of a batch in blocks of about one length, so that little of what a network computes is padding.

Parts of a sample that do not see one another are rows of their own, of any length: padded to the longest of a batch,
they would take many times the tokens that they have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.pipeline.corpus import TokenSamples

_STEPS = np.array([1, *(step << power for power in range(32) for step in (2, 3))], np.int64)
"""1, 2, 3, 4, 6, 8, 12, 16, 24, …: rows of a block are longer than one of these and at most as long as the next."""


class Block(NamedTuple):
    """Rows that a network computes together, padded on the right."""

    ids: Tensor
    """(R, L) int64."""
    mask: Tensor
    """(R, L) int64, 1 for a token and 0 for padding."""


def computed_tokens(samples: TokenSamples) -> NDArray[np.int64]:
    """(N,) the tokens that each sample takes in a batch of several parts: its own, and the padding of those parts that
    see themselves alone. Samples of a batch, as many as they are, take no more than their number times the largest.

    A sample of one part takes its length, as its batch is padded to the longest.
    """
    lengths, offsets = samples.group_lengths, samples.group_offsets
    padded = _STEPS[np.searchsorted(_STEPS, lengths)]
    sums: NDArray[np.int64] = np.add.reduceat(padded, offsets[:-1])
    return np.where(np.diff(offsets) == 1, samples.lengths, sums)


def in_blocks(rows: Sequence[NDArray[np.int64]], alike: bool) -> tuple[list[Block], NDArray[np.int64]]:
    """The blocks of rows of tokens, those of the longest rows first, and where each row begins among the places of all
    blocks, one after the other: (R,). Rows that are `alike` in length are one block.

    >>> rows = [np.array([7, 8, 9]), np.array([5]), np.array([6, 4])]
    >>> blocks, begins = in_blocks(rows, alike=False)
    >>> [block.ids.tolist() for block in blocks], begins.tolist()
    ([[[7, 8, 9]], [[6, 4]], [[5]]], [0, 5, 3])
    >>> [block.mask.tolist() for block in in_blocks(rows, alike=True)[0]]
    [[[1, 1, 1], [1, 0, 0], [1, 1, 0]]]
    """
    lengths = np.array([len(row) for row in rows])
    steps = np.zeros_like(lengths) if alike else np.searchsorted(_STEPS, lengths)
    blocks, begins, end = list[Block](), np.empty_like(lengths), 0
    for step in np.unique(steps)[::-1]:
        chosen = np.flatnonzero(steps == step)
        longest = int(lengths[chosen].max())
        ids = np.zeros((len(chosen), longest), np.int64)
        for place, row in enumerate(chosen.tolist()):
            ids[place, : len(rows[row])] = rows[row]
        mask = (np.arange(longest) < lengths[chosen, None]).astype(np.int64)
        begins[chosen] = end + longest * np.arange(len(chosen))
        end += ids.size
        blocks.append(Block(torch.from_numpy(ids), torch.from_numpy(mask)))
    return blocks, begins
