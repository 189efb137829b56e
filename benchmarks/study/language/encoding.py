"""The rows of every encoding, made of a teacher's hidden states on the device that computes its logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.study.language.arms import Rows
from decant import LogitCache, LogitCacheWriter
from decant.cache.source import sample_chunks
from decant.encodings import Sparse
from decant.objectives import TeacherHead
from decant.pipeline.training.background import BackgroundWriter
from decant.pipeline.training.encoding import RowsOnHost, encode_views, encodes_on

_AT_ONCE = {"cpu": 256, "cuda": 2048}
"""Positions, of which (Q, 49,152) float32 logits exist."""


def fill(hidden: LogitCache, writers: Mapping[Rows, LogitCacheWriter], device: torch.device) -> None:
    """Writes the rows of all samples that one of the caches lacks; rows go to files while the next are made."""
    written = np.logical_and.reduce(
        [writer.is_written(view) for rows, writer in writers.items() for view in range(rows.views)]
    )
    with BackgroundWriter() as write_later:
        for samples in sample_chunks(hidden.lengths, _AT_ONCE.get(device.type, 256)):
            if not written[samples].all():
                _write_chunk(hidden, samples, writers, device, write_later)


def _write_chunk(
    hidden: LogitCache,
    samples: NDArray[np.int64],
    writers: Mapping[Rows, LogitCacheWriter],
    device: torch.device,
    write_later: Callable[..., None],
) -> None:
    states = torch.from_numpy(np.array(hidden.hidden(samples))).to(device)
    logits = TeacherHead.of(hidden).logits(states)
    next_log_prob = _next_log_prob(hidden, samples, logits).cpu().numpy()
    counts = hidden.lengths[samples]
    of = np.repeat(samples, counts)
    within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
    for rows, writer in writers.items():
        made = _encoded(rows.encoding, logits, of, within, rows.views)
        for view, of_view in enumerate(made):
            write_later(_write, writer, samples, of_view, next_log_prob, view)


def _encoded(
    encoding: Sparse, logits: Tensor, of: NDArray[np.int64], within: NDArray[np.int64], views: int
) -> list[Callable[[], Mapping[str, NDArray[Any]]]]:
    """What gives the rows of each view of logits (q, C), of these samples (q,) and positions (q,), and waits for a
    device if need be.
    """
    if not encodes_on(logits.device):
        return [partial(encoding.encode, logits.numpy(), of, view, within) for view in range(views)]
    made = encode_views(logits, encoding, of, range(views), within)
    return [
        partial(RowsOnHost(rows, encoding, logits.shape[1]).wait, of, view, within)
        for view, rows in enumerate(made)
    ]


def _next_log_prob(hidden: LogitCache, samples: NDArray[np.int64], logits: Tensor) -> Tensor:
    """(Q,) of the token that follows each position."""
    assert hidden.positions is not None
    next_ids = torch.from_numpy(hidden.positions.next_tokens(samples)).to(logits.device)
    return (logits.gather(1, next_ids[:, None])[:, 0] - logits.logsumexp(1)).clamp(max=0)


def _write(
    writer: LogitCacheWriter,
    samples: NDArray[np.int64],
    rows: Callable[[], Mapping[str, NDArray[Any]]],
    next_log_prob: NDArray[Any],
    view: int,
) -> None:
    writer.write_encoded(samples, rows(), next_log_prob=next_log_prob, view=view)
