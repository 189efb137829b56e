"""`cache_logits`: a causal language model's pass over token samples, into a cache that is found the next time."""

from __future__ import annotations

import contextlib
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decant.cache import (
    CacheWarning,
    Encoding,
    Head,
    Hidden,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    Positions,
    Sparse,
)
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.language.batches import TeacherBatch, batches, plan
from decant.pipeline.language.building import Fill, build, first_of_blocks, positions_of
from decant.pipeline.language.head import CausalModel
from decant.pipeline.language.served import cache_served
from decant.pipeline.language.shift import ShiftGuard
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.served import ServedTeacher
from decant.pipeline.support.progress import progress
from decant.pipeline.training.background import BackgroundWriter, prefetch
from decant.pipeline.training.encoding import RowsOnHost, encode_sparse, encodes_on

Rows: TypeAlias = Callable[[], Mapping[str, NDArray[Any]]]
"""Gives the encoded rows (q, …) of some positions, by table; waits for a device if need be."""

_PROBE_TOKENS = 32
_SETTINGS = (
    "model_type",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logits_scaling",
    "logit_scale",
)
"""What of a configuration decides logits, and is not in the weights."""


def cache_logits(
    teacher: nn.Module | ServedTeacher,
    samples: TokenSamples,
    path: str | os.PathLike[str],
    *,
    encoding: Encoding | Literal["hidden"] | None = None,
    views: int = 1,
    tokens_per_batch: int = 4096,
    device: str | torch.device | None = None,
    name: str | None = None,
    num_outputs: int | None = None,
    show_progress: bool = True,
) -> LogitCache:
    """Runs a causal language model once over samples and stores what it says of each next token that is learnt from, at
    `path`; finds what is there.

    A pass that was killed goes on where it was when the same lines are run again. The ranks of a script under
    `torchrun` that call this share the work: each takes more as it is done. A cache at `path` of another teacher,
    other texts, another tokenizer or other samples is refused, with every field that differs.

    teacher: one of transformers, or any module that takes `input_ids` (B, L), perhaps `attention_mask`, and returns
    logits (B, L, R). It is run as it is, in evaluation mode and in its own dtype, and gets its modes and its device
    back. samples: of `decant.language.TokenSamples`. The head is applied to some positions at a time, so that (B, L, C)
    never exists. Or a `decant.language.ServedTeacher`, which is asked for the k likeliest tokens of each place.

    encoding: by default `decant.encodings.Sparse(head=64)`; "hidden" stores what the head is applied to, and the head
    once: exact at every temperature, in 2·d bytes a position. views: of an encoding with draws, how many draws of each
    position are stored. tokens_per_batch: how many tokens, with padding, the teacher reads at once. num_outputs: C, by
    default the number of the tokenizer's tokens; rows of the head beyond, which pad a vocabulary, are left out.

    Raises MismatchError and other CacheErrors; ModelError where the teacher fails, gives no logits, has fewer outputs
    than tokens or fewer positions than a sample has; ServerError where a server does not answer as it must; DataError
    for settings that cannot be. Warns where the teacher seems to be untrained, or its outputs to be shifted by one.
    """
    place = Path(path)
    _check(teacher, samples, encoding, views, tokens_per_batch)
    if isinstance(teacher, ServedTeacher):
        return cache_served(
            teacher,
            samples,
            place,
            encoding=encoding,
            tokens_per_batch=tokens_per_batch,
            num_outputs=num_outputs,
            name=name,
            show_progress=show_progress,
        )
    model = CausalModel(teacher, num_outputs or samples.corpus.num_ids)
    _check_lengths(model, samples)
    on = teachers.device_of(teacher, device)
    stored = _hidden(model, samples, on) if encoding == "hidden" else encoding or Sparse()
    positions = positions_of(samples)
    manifest = _manifest(model, samples, positions, stored, views, name)
    run = _Pass(model, samples, stored, views, tokens_per_batch, show_progress)

    @contextlib.contextmanager
    def running() -> Iterator[Fill]:
        with teachers.evaluating(teacher, on):
            model.prepare(probe(samples))
            yield run.fill

    return build(place, manifest, running, positions=positions, head=_head_of(stored))


class _Pass:
    """The teacher's pass over samples."""

    def __init__(
        self,
        model: CausalModel,
        samples: TokenSamples,
        encoding: Encoding,
        views: int,
        tokens_per_batch: int,
        show_progress: bool,
    ) -> None:
        self._model, self._samples, self._encoding, self._views = model, samples, encoding, views
        self._tokens_per_batch, self._show_progress = tokens_per_batch, show_progress
        self._guard, self._said = ShiftGuard(), False

    def fill(self, writer: LogitCacheWriter, count: Callable[[], int] | None = None) -> None:
        """Writes the rows that are missing: all of them, or those of the windows that `count` gives, which counts
        from 1 over all processes.
        """
        lengths = self._samples.lengths
        windows = plan(lengths, self._tokens_per_batch, first_of_blocks(writer, len(lengths)))
        taken = windows if count is None else _taken(windows, count)
        written = np.logical_and.reduce([writer.is_written(view) for view in range(self._views)])
        missing = (batch for window in taken for batch in window if not written[batch].all())
        with (
            progress("teacher", int(lengths.sum()), silent=not self._show_progress) as advance,
            BackgroundWriter() as write_later,
        ):
            advance(int(lengths[written].sum()))
            for batch in prefetch(batches(self._samples, missing)):
                for view, (rows, next_log_prob) in enumerate(self._encoded(batch)):
                    write_later(_write, writer, batch.samples, rows, next_log_prob, view)
                advance(int(lengths[batch.samples][~written[batch.samples]].sum()))
        self._warn()

    def _encoded(self, batch: TeacherBatch) -> list[tuple[list[Rows], Tensor]]:
        """For each view the rows of some positions after others, and log-probabilities (Q,) of the next tokens."""
        device = self._model.device
        hidden = self._model.hidden(batch.ids.to(device), batch.mask.to(device)).flatten(0, 1)[
            batch.places.to(device)
        ]
        counts = self._samples.num_positions[batch.samples]
        of = np.repeat(batch.samples, counts)
        within = np.arange(len(of)) - np.repeat(np.cumsum(counts) - counts, counts)
        parts: list[list[Rows]] = [[] for _ in range(self._views)]
        log_probs, first = [], 0
        for logits in self._model.logits(hidden):
            some = slice(first, first + len(logits))
            next_ids = batch.next_ids[some].to(device)
            self._look(logits, next_ids, batch.current_ids[some])
            for view, part in enumerate(parts):
                rows, log_sum_exp = self._encode(logits, hidden[some], of[some], view, within[some])
                part.append(rows)
            log_probs.append((logits.gather(1, next_ids[:, None])[:, 0] - log_sum_exp).clamp(max=0))
            first = some.stop
        return [(part, torch.cat(log_probs)) for part in parts]

    def _encode(
        self, logits: Tensor, hidden: Tensor, of: NDArray[np.int64], view: int, within: NDArray[np.int64]
    ) -> tuple[Rows, Tensor]:
        """The rows of logits (q, C) of hidden states (q, d), or what has them when they have come from the device; and
        the log-sum-exp of the logits.
        """
        encoding = self._encoding
        if isinstance(encoding, Hidden):
            rows = encoding.encode(hidden.float().cpu().numpy(), of, view, within)
            return lambda: rows, logits.logsumexp(1)
        if isinstance(encoding, Sparse) and encodes_on(logits.device):
            encoded = encode_sparse(logits, encoding, of, view, within)
            on_its_way = RowsOnHost(encoded, encoding, logits.shape[1])
            return partial(on_its_way.wait, of, view, within), encoded.stats[:, 0]
        rows = encoding.encode(logits.cpu().numpy(), of, view, within)
        if isinstance(encoding, Sparse):
            return lambda: rows, torch.from_numpy(rows["stats"][:, 0]).to(logits.device)
        return lambda: rows, logits.logsumexp(1)

    def _look(self, logits: Tensor, next_ids: Tensor, current_ids: Tensor) -> None:
        """Counts whether rows are about the next token, until enough were seen."""
        if self._guard.wants_more:
            self._guard.see(logits, next_ids, current_ids.to(logits.device))
            if not self._guard.wants_more:
                self._warn()

    def _warn(self) -> None:
        doubt = self._guard.doubt()
        if doubt is not None and not self._said:
            self._said = True
            warnings.warn(f"{type(self._model.network).__name__}: {doubt}", CacheWarning, stacklevel=5)


def _taken(
    windows: list[list[NDArray[np.int64]]], count: Callable[[], int]
) -> Iterator[list[NDArray[np.int64]]]:
    while (number := count() - 1) < len(windows):
        yield windows[number]


def _hidden(model: CausalModel, samples: TokenSamples, device: torch.device) -> Hidden:
    """The encoding of the teacher's hidden states."""
    with teachers.evaluating(model.network, device):
        model.prepare(probe(samples))
        return Hidden.of(model.head())


def _head_of(encoding: Encoding) -> Head | None:
    return encoding.head if isinstance(encoding, Hidden) else None


def _write(
    writer: LogitCacheWriter, samples: NDArray[np.int64], parts: list[Rows], next_log_prob: Tensor, view: int
) -> None:
    found = [part() for part in parts]
    rows = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    writer.write_encoded(samples, rows, next_log_prob=next_log_prob.cpu().numpy(), view=view)


def _manifest(
    model: CausalModel,
    samples: TokenSamples,
    positions: Positions,
    encoding: Encoding,
    views: int,
    name: str | None,
) -> Manifest:
    config = getattr(model.network, "config", None)
    settings = {key: value for key in _SETTINGS if (value := getattr(config, key, None)) is not None}
    return Manifest.build(
        num_samples=len(samples),
        num_outputs=model.num_outputs,
        num_views=views,
        encoding={**encoding.identity, "teacher_precision": model.dtype},
        positions=positions,
        teacher={
            **teachers.identity(model.network, name),
            **({"settings": json.loads(json.dumps(settings, default=str))} if settings else {}),
        },
        data=samples.identity,
    )


def probe(samples: TokenSamples) -> Tensor:
    """(2, L) the first tokens of a sample, and the same in the reverse order."""
    ids = torch.from_numpy(samples.tokens(0)[:_PROBE_TOKENS])
    return torch.stack([ids, ids.flip(0)])


def _check(teacher: object, samples: object, encoding: object, views: int, tokens_per_batch: int) -> None:
    if not isinstance(teacher, nn.Module | ServedTeacher):
        raise DataError(
            f"teacher: expected a module, or decant.language.ServedTeacher, found {type(teacher).__name__}"
        )
    if not isinstance(samples, TokenSamples):
        raise DataError(
            f"samples: expected decant.language.TokenSamples, found {type(samples).__name__}; a corpus becomes samples "
            "by TokenSamples(corpus, max_length=…)"
        )
    if encoding is not None and encoding != "hidden" and not isinstance(encoding, Encoding):
        raise DataError(
            f'encoding: expected one of decant.encodings, as Sparse(head=64), or "hidden", found {encoding!r}'
        )
    if views < 1 or (views > 1 and not getattr(encoding, "draws", 0)):
        raise DataError(f"views: expected 1, found {views}: views are other draws, and the encoding has none")
    if tokens_per_batch < 1:
        raise DataError(f"tokens_per_batch: expected 1 or more, found {tokens_per_batch}")


def _check_lengths(model: CausalModel, samples: TokenSamples) -> None:
    longest = int(samples.lengths.max())
    most = model.max_length
    if most is not None and longest > most:
        raise ModelError(
            f"{type(model.network).__name__}: takes {most:,} tokens at most, and sample "
            f"{int(samples.lengths.argmax()):,} has {longest:,}; set max_length = {most} of TokenSamples"
        )
