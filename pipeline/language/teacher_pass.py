"""A causal language model's pass over token samples: encoded rows of each position that predicts a token to learn."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import Encoding, Hidden, LogitCacheWriter, Sparse, warn
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.language.batches import TeacherBatch, batches
from decant.pipeline.language.building import Window, windows_of
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.memory import SETTING
from decant.pipeline.language.same_teacher import require_same_as_begun
from decant.pipeline.language.shift import ShiftGuard
from decant.pipeline.objectives.chunked import rows_of_block
from decant.pipeline.support.allocator import freed_memory_kept
from decant.pipeline.support.progress import progress
from decant.pipeline.training.background import BackgroundWriter, at_once, prefetch
from decant.pipeline.training.device import OnHost, beside
from decant.pipeline.training.encoding import (
    EncodedRows,
    RowsOnHost,
    StatesOnHost,
    encode_views,
    encodes_on,
    joined,
)

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
        on_processor = self._model.device.type == "cpu"
        with (
            freed_memory_kept() if on_processor else contextlib.nullcontext(),
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
        """For each view the rows of some positions after others, and log-probabilities (Q,) of the next tokens. A GPU
        encodes them beside the network's next batch.
        """
        hidden = self._model.hidden_at(batch, self._setting)
        device = hidden.device if self._model.ends_in_linear_layer else torch.device("cpu")
        with beside(device, "encoding", hidden, batch.next_ids, batch.current_ids):
            if encodes_on(hidden.device) and isinstance(self._encoding, Hidden | Sparse):
                return self._encoded_there(batch, hidden, self._encoding)
            return self._encoded_here(batch, hidden)

    def _encoded_there(
        self, batch: TeacherBatch, hidden: Tensor, encoding: Hidden | Sparse
    ) -> list[tuple[list[Rows], OnHost]]:
        """The same on the network's device: nothing waits for it, and all rows of a batch are copied together."""
        of, within = self._numbers(batch)
        made: list[list[EncodedRows]] = [[] for _ in range(self._views)]
        log_probs = []
        for some, logits in self._logits(batch, self._model.narrow_logits(hidden)):
            if isinstance(encoding, Sparse):
                encoded = encode_views(logits, encoding, of[some], range(self._views), within[some])
                log_sum_exp = encoded[0].stats[:, 0]
                for parts, rows in zip(made, encoded, strict=True):
                    parts.append(rows)
            else:
                log_sum_exp = _log_sum_exp(logits)
            log_probs.append(_log_probs(logits, batch.next_ids[some], log_sum_exp))
        each: list[RowsOnHost | StatesOnHost]
        if isinstance(encoding, Sparse):
            each = [RowsOnHost(joined(parts), encoding, self._model.num_outputs) for parts in made]
        else:
            each = [StatesOnHost(hidden, encoding)] * self._views
        next_log_prob = OnHost(torch.cat(log_probs))
        waits = [partial(rows.wait, of, view, within) for view, rows in enumerate(each)]
        return [([wait], next_log_prob) for wait in waits]

    def _encoded_here(self, batch: TeacherBatch, hidden: Tensor) -> list[tuple[list[Rows], OnHost]]:
        """The same on the host, some positions at a time."""
        of, within = self._numbers(batch)
        parts: list[list[Rows]] = [[] for _ in range(self._views)]
        log_probs = []
        for some, logits in self._logits(batch, self._model.logits(hidden)):
            of_views, log_sum_exp = self._encode(logits, hidden[some], of[some], within[some])
            for part, rows in zip(parts, of_views, strict=True):
                part.append(rows)
            log_probs.append(_log_probs(logits, batch.next_ids[some], log_sum_exp))
        next_log_prob = OnHost(torch.cat(log_probs))
        return [(part, next_log_prob) for part in parts]

    def _numbers(self, batch: TeacherBatch) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(Q,) the sample of each position of a batch, and (Q,) its number within the sample."""
        counts = self._samples.num_positions[batch.samples]
        of = np.repeat(batch.samples, counts)
        return of, np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)

    def _logits(self, batch: TeacherBatch, parts: Iterable[Tensor]) -> Iterator[tuple[slice, Tensor]]:
        """Which positions parts of the logits are of; until enough were seen, these are looked at."""
        first = 0
        for logits in parts:
            some = slice(first, first + len(logits))
            self._look(logits, batch.next_ids[some], batch.current_ids[some])
            yield some, logits
            first = some.stop

    def _encode(
        self, logits: Tensor, hidden: Tensor, of: NDArray[np.int64], within: NDArray[np.int64]
    ) -> tuple[list[Rows], Tensor]:
        """For each view the rows of logits (q, C) of hidden states (q, d), and the log-sum-exp of the logits."""
        encoding, views = self._encoding, range(self._views)
        if isinstance(encoding, Hidden):
            states = StatesOnHost(hidden, encoding)
            later = [partial(states.wait, of, view, within) for view in views]
            return list[Rows](later), _log_sum_exp(logits)
        made = [_encode_at_once(encoding, logits.cpu().numpy(), of, view, within) for view in views]
        of_views: list[Rows] = [partial(dict[str, NDArray[Any]], rows) for rows in made]
        if isinstance(encoding, Sparse):
            return of_views, torch.from_numpy(made[0]["stats"][:, 0]).to(logits.device)
        return of_views, _log_sum_exp(logits)

    def _look(self, logits: Tensor, next_ids: Tensor, current_ids: Tensor) -> None:
        """Counts whether rows are about the next token, until enough were seen."""
        if self._guard.wants_more:
            self._guard.see(logits.float(), next_ids, current_ids)
            if not self._guard.wants_more:
                self._warn()

    def _warn(self) -> None:
        doubt = self._guard.doubt()
        if doubt is not None and not self._said:
            self._said = True
            warn(f"{type(self._model.network).__name__}: {doubt}")


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


def _log_probs(logits: Tensor, next_ids: Tensor, log_sum_exp: Tensor) -> Tensor:
    """(q,) float32 the log-probability of the token that follows each position."""
    return (logits.gather(1, next_ids[:, None])[:, 0].float() - log_sum_exp).clamp(max=0)


def _log_sum_exp(logits: Tensor) -> Tensor:
    """(q,) float32 of logits (q, C), of which a processor looks at some together: what is made of all of them it would
    write to new pages. Of narrow ones no copy in float32 is made first: what is computed is what `logsumexp` computes.
    """
    if logits.element_size() >= torch.float32.itemsize:
        return torch.cat([block.logsumexp(1) for block in logits.split(rows_of_block(logits))])
    most = logits.amax(dim=1, keepdim=True).float()
    most = most.masked_fill(most.isinf(), 0.0)
    return (logits - most).exp_().sum(dim=1).log_().add_(most[:, 0])


def _write(
    writer: LogitCacheWriter, samples: NDArray[np.int64], parts: list[Rows], next_log_prob: OnHost, view: int
) -> None:
    found = [part() for part in parts]
    rows = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    writer.write_encoded(samples, rows, next_log_prob=next_log_prob.wait().numpy(), view=view)
