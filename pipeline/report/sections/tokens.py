"""What a language model's teacher and student say of test tokens: samples side by side, and certainty by place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import CacheError, Hidden, LogitCache, PositionSummary, summarize
from decant.pipeline.errors import NotMadeError, PipelineError
from decant.pipeline.language.batches import collate, probe
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.dataset import targets_of
from decant.pipeline.objectives import SparseTargets
from decant.pipeline.phases.language.student import held_out_of_teacher
from decant.pipeline.report import charts
from decant.pipeline.report.page import Section
from decant.pipeline.report.subject import Subject
from decant.pipeline.runs.saved_network import load_network

MAX_SAMPLES = 64
"""Test samples whose positions are looked at, at even distances."""
SHOWN_SAMPLES = 4
SHOWN_POSITIONS = 12
"""Of each sample that is shown, at even distances."""
_TOP = 5
_AROUND = 8
_PLACES = 12  # points of a curve
_NO_LETTER = "\N{REPLACEMENT CHARACTER}"


class Looked(NamedTuple):
    """What both say at the positions of some samples."""

    sample: int
    ids: NDArray[np.int64]
    """(L,) tokens."""
    places: NDArray[np.int64]
    """(Q,) of the positions in the sample."""
    teacher_top: tuple[Tensor, Tensor]
    """(Q, n) most likely tokens and their log-probabilities."""
    student_top: tuple[Tensor, Tensor]
    teacher_entropy: NDArray[np.float64]
    """(Q,) in nats; of sparse rows with all other tokens as one."""
    student_entropy: NDArray[np.float64]
    tail: NDArray[np.float64]
    """(Q,) the mass of the tokens that the cache leaves out."""


def tokens(subject: Subject) -> Section:
    """The section, or why there is none."""
    name, title = "tokens", "Next tokens, side by side"
    try:
        cache = _cache_of(subject)
        looked = list(look(subject, cache))
    except (PipelineError, CacheError, OSError) as error:
        return Section(name, title, missing=str(error))
    tokenizer = subject.language_plan.data.tokenizer
    own = "student" if subject.focus.result.kind == "distilled" else "network"
    entropies = [
        *_curve(looked, [one.teacher_entropy for one in looked], "teacher"),
        *_curve(looked, [one.student_entropy for one in looked], own),
    ]
    return Section(
        name,
        title,
        {
            "facts": list(_facts(cache, looked, own)),
            "samples": [_shown(one, tokenizer) for one in looked[:: max(1, len(looked) // SHOWN_SAMPLES)]][
                :SHOWN_SAMPLES
            ],
            "columns": ["text before", "next", "teacher", own],
        },
        {
            "entropy": charts.rising(entropies, "place in the sample", "entropy, nats", ["teacher", own]),
            "tail": charts.rising(
                _curve(looked, [100 * one.tail for one in looked], "left out"),
                "place in the sample",
                "% of the teacher's mass",
                ["left out"],
            ),
        },
    )


@torch.inference_mode()
def look(subject: Subject, cache: LogitCache) -> Iterator[Looked]:
    """Teacher, by its cache, and the focus at the positions of some test samples."""
    samples = subject.language_plan.data.samples("test")
    network = load_network(subject.focus.result).to(subject.device).eval()
    model = CausalModel(network, cache.num_outputs)
    model.prepare(probe(samples))
    for index in np.unique(np.linspace(0, len(samples) - 1, MAX_SAMPLES).astype(int)).tolist():
        batch = collate(samples, np.array([index]))
        logits = torch.cat(list(model.logits(model.hidden_at(batch)))).cpu()
        theirs = _of_teacher(cache, index, batch.next_ids)
        ours = logits.log_softmax(1)
        yield Looked(
            index,
            samples.tokens(index),
            samples.positions(index),
            theirs[0],
            _top(ours),
            theirs[1],
            _entropy(ours),
            theirs[2],
        )


def _cache_of(subject: Subject) -> LogitCache:
    focus = subject.focus.result
    if focus.kind == "teacher":
        raise NotMadeError(f"{focus.folder}: a teacher, and no student that learnt from it is finished")
    plan = subject.language_plan
    cache = held_out_of_teacher(plan, "test", focus.teacher or plan.teacher_digest)
    if cache is None:
        command = subject.focus.recipe.command("cache-logits")
        raise NotMadeError(
            f"there is no cache of the test part, of what the teacher says of it; run: {command}"
        )
    return cache


def _of_teacher(
    cache: LogitCache, index: int, next_ids: Tensor
) -> tuple[tuple[Tensor, Tensor], NDArray[np.float64], NDArray[np.float64]]:
    """Most likely tokens, entropies and masses left out, of the positions of a sample."""
    rows = targets_of(cache, np.array([index]), next_ids.numpy(), 0)
    if isinstance(rows, SparseTargets):
        shares = rows.shares(1.0, "bucket")
        order = rows.log_probs.argsort(dim=1, descending=True)[:, :_TOP]
        top = rows.ids.gather(1, order), shares.log_probs.gather(1, order)
        parts = shares.log_probs
        if shares.log_tail is not None:
            parts = torch.cat([parts, shares.log_tail[:, None]], dim=1)
        tail = torch.zeros(len(parts)) if shares.log_tail is None else shares.log_tail.exp()
        return top, _entropy(parts), tail.double().numpy()
    logits = rows.float()
    if isinstance(cache.manifest.encoding, Hidden):
        logits = torch.from_numpy(np.array(cache.head.logits(rows.numpy()), np.float32))
    log_probs = logits.log_softmax(1)
    return _top(log_probs), _entropy(log_probs), np.zeros(len(logits))


def _top(log_probs: Tensor) -> tuple[Tensor, Tensor]:
    found = log_probs.topk(min(_TOP, log_probs.shape[1]))
    return found.indices, found.values


def _entropy(log_probs: Tensor) -> NDArray[np.float64]:
    wide = log_probs.double()
    return np.asarray(-(wide.exp() * wide.clamp(min=-1e4)).sum(dim=1).numpy())


def _curve(looked: list[Looked], values: list[NDArray[np.float64]], series: str) -> list[dict[str, Any]]:
    """The mean by place, over about as many samples each point."""
    places, flat = np.concatenate([one.places for one in looked]), np.concatenate(values)
    edges = np.unique(np.quantile(places, np.linspace(0, 1, _PLACES + 1)).astype(int))
    of = np.clip(np.searchsorted(edges, places, side="right") - 1, 0, max(0, len(edges) - 2))
    return [
        {
            "series": series,
            "x": float(round(places[of == bin_].mean(), 1)),
            "y": float(f"{flat[of == bin_].mean():.5g}"),
        }
        for bin_ in np.unique(of)
    ]


def _shown(one: Looked, tokenizer: Any) -> dict[str, Any]:
    chosen = np.unique(np.linspace(0, len(one.places) - 1, SHOWN_POSITIONS).astype(int)).tolist()
    rows = []
    for row in chosen:
        place = int(one.places[row])
        before = tokenizer.decode(one.ids[max(0, place + 1 - _AROUND) : place + 1].tolist())
        rows.append(
            (
                f"{'…' if place >= _AROUND else ''}{before}",
                _quoted(tokenizer, int(one.ids[place + 1])),
                _likely(tokenizer, one.teacher_top, row, int(one.ids[place + 1])),
                _likely(tokenizer, one.student_top, row, int(one.ids[place + 1])),
            )
        )
    return {"caption": f"Test sample {one.sample:,}, {len(one.places):,} positions", "rows": rows}


def _likely(
    tokenizer: Any, top: tuple[Tensor, Tensor], row: int, following: int
) -> list[tuple[str, str, bool]]:
    """Tokens with their probabilities, and whether each is the one that follows."""
    ids, log_probs = (values[row].tolist() for values in top)
    return [
        (_quoted(tokenizer, id_), f"{100 * np.exp(log_prob):.1f} %", id_ == following)
        for id_, log_prob in zip(ids, log_probs, strict=True)
    ]


def _quoted(tokenizer: Any, id_: int) -> str:
    """The text of a token, a line break as \\n; of one that is a part of a letter, or has other characters that are not
    to be seen, what the tokenizer calls it.
    """
    text = tokenizer.decode([id_]).replace("\n", r"\n").replace("\t", r"\t")
    if _NO_LETTER in text or not text.isprintable():
        return str(tokenizer.convert_ids_to_tokens(id_))
    return f"“{text}”"


def _facts(cache: LogitCache, looked: list[Looked], own: str) -> Iterator[tuple[str, str]]:
    positions = sum(len(one.places) for one in looked)
    yield "looked at", f"{len(looked):,} test samples, {positions:,} positions"
    yield "the teacher's rows", f"{cache.path}: {cache.manifest.encoding.name}"
    summary = summarize(cache)
    if isinstance(summary, PositionSummary) and summary.next_log_prob is not None:
        yield "perplexity, teacher", f"{np.exp(-summary.next_log_prob):.2f} on all, from the cache"
    tail = np.concatenate([one.tail for one in looked])
    yield (
        "mass left out",
        f"{100 * tail.mean():.2f} % on average, {100 * np.quantile(tail, 0.9):.2f} % at the 90th percentile",
    )
    for name, which in (("teacher", 0), (own, 1)):
        entropy = np.concatenate([(one.teacher_entropy, one.student_entropy)[which] for one in looked])
        yield f"entropy, {name}", f"{entropy.mean():.3f} nats"
