"""A causal language model's pass over token samples: encoded rows of each position that predicts a token to learn."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import CacheWarning, Encoding, Hidden, LogitCacheWriter, Sparse
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.language.batches import TeacherBatch, batches
from decant.pipeline.language.building import Window, windows_of
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.memory import SETTING
from decant.pipeline.language.same_teacher import require_same_as_begun
from decant.pipeline.language.shift import ShiftGuard
from decant.pipeline.objectives.fused.chunks import rows_of_block
from decant.pipeline.support.progress import progress
from decant.pipeline.training.background import BackgroundWriter, at_once, prefetch
from decant.pipeline.training.device import OnHost
from decant.pipeline.training.encoding import RowsOnHost, encode_views, encodes_on

_FEWEST_ROWS = 16  # that a thread is started for

Rows: TypeAlias = Callable[[], Mapping[str, NDArray[Any]]]
"""Gives the encoded rows (q, …) of some positions, by table; waits for a device if need be."""


class TeacherPass:
    """The teacher's pass over samples, which writes the rows of a cache that are missing."""

    def __init__(
        self,
        model: CausalModel,
        samples: TokenSamples,
        encoding: Encoding,
        views: int,
        tokens_per_batch: int,
        show_progress: bool,
        setting: str = SETTING,
    ) -> None:
        """`setting` is named where memory runs out."""
        self._model, self._samples, self._encoding, self._views = model, samples, encoding, views
        self._tokens_per_batch, self._show_progress = tokens_per_batch, show_progress
        self._setting = setting
        self._guard, self._said = ShiftGuard(), False

    def windows(self, writer: LogitCacheWriter) -> list[Window]:
        """See `building.windows_of`."""
        return windows_of(self._samples, self._tokens_per_batch, writer)

    def fill(
        self,
        writer: LogitCacheWriter,
        windows: Iterable[Window] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> int:
        """Writes the rows of windows that are missing, by default of all, and returns how many positions they are of.

        advance: is given how many rows, a sample and a view each, are written; by default a bar shows tokens.
        """
        require_same_as_begun(self._model, self._samples, writer)
        lengths, computed = self._samples.lengths, 0
        written = np.logical_and.reduce([writer.is_written(view) for view in range(self._views)])
        taken = self.windows(writer) if windows is None else windows
        missing = (batch for window in taken for batch in window if not written[batch].all())
        silent = advance is not None or not self._show_progress
        with (
            progress("teacher", int(lengths.sum()), silent=silent) as show,
            BackgroundWriter() as write_later,
        ):
            show(int(lengths[written].sum()))
            for batch in prefetch(self._batches(missing)):
                for view, (rows, next_log_prob) in enumerate(self._encoded(batch)):
                    write_later(_write, writer, batch.samples, rows, next_log_prob, view)
                new = batch.samples[~written[batch.samples]]
                computed += self._views * int(self._samples.num_positions[new].sum())
                show(int(lengths[new].sum()))
                if advance is not None:
                    advance(self._views * len(new))
        self._warn()
        return computed

    def encode(self, samples: NDArray[np.int64]) -> None:
        """Does all that the pass does for some samples, but writes nothing."""
        for batch in self._batches([samples]):
            for parts, _ in self._encoded(batch):
                for part in parts:
                    part()

    def _batches(self, planned: Iterable[NDArray[np.int64]]) -> Iterator[TeacherBatch]:
        """On the teacher's device."""
        return (batch.to(self._model.device) for batch in batches(self._samples, planned))

    def _encoded(self, batch: TeacherBatch) -> list[tuple[list[Rows], OnHost]]:
        """For each view the rows of some positions after others, and log-probabilities (Q,) of the next tokens."""
        hidden = self._model.hidden_at(batch, self._setting)
        counts = self._samples.num_positions[batch.samples]
        of = np.repeat(batch.samples, counts)
        within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        parts: list[list[Rows]] = [[] for _ in range(self._views)]
        log_probs, first = [], 0
        for logits in self._model.logits(hidden):
            some = slice(first, first + len(logits))
            next_ids = batch.next_ids[some]
            self._look(logits, next_ids, batch.current_ids[some])
            of_views, log_sum_exp = self._encode(logits, hidden[some], of[some], within[some])
            for part, rows in zip(parts, of_views, strict=True):
                part.append(rows)
            log_probs.append((logits.gather(1, next_ids[:, None])[:, 0] - log_sum_exp).clamp(max=0))
            first = some.stop
        next_log_prob = OnHost(torch.cat(log_probs))
        return [(part, next_log_prob) for part in parts]

    def _encode(
        self, logits: Tensor, hidden: Tensor, of: NDArray[np.int64], within: NDArray[np.int64]
    ) -> tuple[list[Rows], Tensor]:
        """For each view the rows of logits (q, C) of hidden states (q, d), or what has them when they have come from
        the device; and the log-sum-exp of the logits.
        """
        encoding, views = self._encoding, range(self._views)
        if isinstance(encoding, Hidden):
            states = OnHost(hidden.float())
            later = [partial(_encode_states, encoding, states, of, view, within) for view in views]
            return list[Rows](later), _log_sum_exp(logits)
        if isinstance(encoding, Sparse) and encodes_on(logits.device):
            encoded = encode_views(logits, encoding, of, views, within)
            on_their_way = [RowsOnHost(rows, encoding, logits.shape[1]) for rows in encoded]
            waits: list[Rows] = [
                partial(rows.wait, of, view, within) for view, rows in zip(views, on_their_way, strict=True)
            ]
            return waits, encoded[0].stats[:, 0]
        made = [_encode_at_once(encoding, logits.cpu().numpy(), of, view, within) for view in views]
        of_views: list[Rows] = [partial(dict[str, NDArray[Any]], rows) for rows in made]
        if isinstance(encoding, Sparse):
            return of_views, torch.from_numpy(made[0]["stats"][:, 0]).to(logits.device)
        return of_views, _log_sum_exp(logits)

    def _look(self, logits: Tensor, next_ids: Tensor, current_ids: Tensor) -> None:
        """Counts whether rows are about the next token, until enough were seen."""
        if self._guard.wants_more:
            self._guard.see(logits, next_ids, current_ids)
            if not self._guard.wants_more:
                self._warn()

    def _warn(self) -> None:
        doubt = self._guard.doubt()
        if doubt is not None and not self._said:
            self._said = True
            warnings.warn(f"{type(self._model.network).__name__}: {doubt}", CacheWarning, stacklevel=5)


def _encode_at_once(
    encoding: Encoding,
    outputs: NDArray[np.floating],
    of: NDArray[np.int64],
    view: int,
    within: NDArray[np.int64],
) -> dict[str, NDArray[Any]]:
    """The encoded rows of outputs (q, C), made by as many threads as the network is computed with."""
    count = max(1, min(torch.get_num_threads(), len(outputs) // _FEWEST_ROWS))
    bounds = np.linspace(0, len(outputs), count + 1).astype(int).tolist()
    parts = [slice(first, end) for first, end in itertools.pairwise(bounds)]
    made = at_once([partial(encoding.encode, outputs[part], of[part], view, within[part]) for part in parts])
    if count == 1:
        return made[0]
    return {name: np.concatenate([rows[name] for rows in made]) for name in made[0]}


def _log_sum_exp(logits: Tensor) -> Tensor:
    """(q,) of logits (q, C), of which a processor looks at some together: what is made of all of them it would write to
    new pages.
    """
    return torch.cat([block.logsumexp(1) for block in logits.split(rows_of_block(logits))])


def _encode_states(
    encoding: Hidden, states: OnHost, of: NDArray[np.int64], view: int, within: NDArray[np.int64]
) -> Mapping[str, NDArray[Any]]:
    return encoding.encode(states.wait().numpy(), of, view, within)


def _write(
    writer: LogitCacheWriter, samples: NDArray[np.int64], parts: list[Rows], next_log_prob: OnHost, view: int
) -> None:
    found = [part() for part in parts]
    rows = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    writer.write_encoded(samples, rows, next_log_prob=next_log_prob.wait().numpy(), view=view)
