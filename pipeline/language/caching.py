"""`cache_logits`: a causal language model's pass over token samples, into a cache that is found the next time."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from decant.cache import Encoding, Hidden, LogitCache, Manifest, Positions, Sparse
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.corpus.cached import positions_of, samples_manifest
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.language.batches import probe
from decant.pipeline.language.building import batch_by_batch, find_or_build
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.same_teacher import require_same_teacher
from decant.pipeline.language.served import cache_served
from decant.pipeline.language.teacher_pass import TeacherPass
from decant.pipeline.networks.causal import deciding_settings
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.own_loop.joint_pass import Begun
from decant.pipeline.served import ServedTeacher
from decant.pipeline.support.notices import say_once

_HEAD = 64


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

    >>> import tempfile, torch
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer
    >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> teacher = LlamaForCausalLM(LlamaConfig(vocab_size=257, **sizes))
    >>> folder = tempfile.TemporaryDirectory()
    >>> from decant import language
    >>> corpus = language.tokenise(["a text", "and another"], byte_tokenizer(), f"{folder.name}/texts.tokens")
    >>> samples = language.TokenSamples(corpus, max_length=8)
    >>> cache = cache_logits(teacher, samples, f"{folder.name}/teacher.h5")
    >>> cache.lengths.tolist(), cache.rows([0]).ids.shape  # of 7 tokens 6 predict the next one
    ([6, 7], (6, 64))
    >>> folder.cleanup()
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
    with _without_autocast(on):
        stored = _hidden(model, samples, on) if encoding == "hidden" else _stored(encoding, model.num_outputs)
    positions = positions_of(samples)
    manifest = _manifest(model, samples, positions, stored, views, name)
    run = TeacherPass(model, samples, stored, views, tokens_per_batch, show_progress)

    @contextlib.contextmanager
    def begin(processes: int) -> Iterator[Begun]:
        with _without_autocast(on), teachers.evaluating(teacher, on):
            model.prepare(probe(samples))
            head = stored.head if isinstance(stored, Hidden) else None
            yield Begun(manifest, run.windows, batch_by_batch, run.fill, positions, head)

    return find_or_build(place, manifest, begin, partial(_require_same, model, samples, on))


def _require_same(model: CausalModel, samples: TokenSamples, on: torch.device, found: LogitCache) -> None:
    """Raises MismatchError where the teacher says other things than a cache has: where it is, or, where it cannot run
    there, as with attention that is written for GPUs alone, on the device of the pass.
    """
    cast = torch.is_autocast_enabled(on.type)  # by older versions the pass was run under it

    def compare(where: torch.device) -> None:
        with _without_autocast(where), teachers.evaluating(model.network, where):
            require_same_teacher(model, samples, found, cast=cast)

    own = teachers.device_of(model.network, None)
    try:
        compare(own)
    except ModelError:
        if own == on:
            raise
        compare(on)


@contextlib.contextmanager
def _without_autocast(device: torch.device) -> Iterator[None]:
    """Without autocast, of which neither a cache's name nor its file would know."""
    if torch.is_autocast_enabled(device.type):
        say_once(
            "cache_logits: runs the teacher in its own dtype, without the autocast around it; for a pass in half "
            "precision give it as teacher.to(torch.bfloat16)"
        )
    with torch.autocast(device.type, enabled=False):
        yield


def _stored(encoding: Encoding | str | None, num_outputs: int) -> Encoding:
    """How rows are stored: as was asked for, or as the 64 largest of as many outputs as there are. Raises DataError."""
    if not isinstance(encoding, Encoding):
        return Sparse(min(_HEAD, num_outputs))
    if isinstance(encoding, Sparse) and encoding.head + encoding.draws > num_outputs:
        asked = encoding.head + encoding.draws
        raise DataError(
            f"encoding: {asked:,} outputs of a row, head and draws together, are more than the {num_outputs:,} tokens; "
            "set them lower"
        )
    return encoding


def _hidden(model: CausalModel, samples: TokenSamples, device: torch.device) -> Hidden:
    """The encoding of the teacher's hidden states."""
    with teachers.evaluating(model.network, device):
        model.prepare(probe(samples))
        return Hidden.of(model.head())


def _manifest(
    model: CausalModel,
    samples: TokenSamples,
    positions: Positions,
    encoding: Encoding,
    views: int,
    name: str | None,
) -> Manifest:
    settings = deciding_settings(getattr(model.network, "config", None))
    return samples_manifest(
        samples,
        positions,
        {**teachers.identity(model.network, name), **({"settings": settings} if settings else {})},
        encoding=encoding,
        precision=model.dtype,
        num_outputs=model.num_outputs,
        num_views=views,
    )


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
