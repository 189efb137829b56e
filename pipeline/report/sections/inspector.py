"""Samples one by one: each in its views, with the outputs of teacher and student."""

from __future__ import annotations

import base64
import csv
import io
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from decant.cache import CacheError, LogitSource, softmax
from decant.pipeline.data.samples import spread
from decant.pipeline.errors import PipelineError
from decant.pipeline.report.page import Section
from decant.pipeline.report.sections.cached import probabilities_of
from decant.pipeline.report.sections.sample_choice import REASONS, Judged, choose, divergence, judge
from decant.pipeline.report.sections.sample_display import Shown, shown_of
from decant.pipeline.report.subject import Subject
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.progress import track
from decant.pipeline.support.terminal import one_line
from decant.pipeline.training.device import to_device
from decant.pipeline.views import ViewedData

MAX_SAMPLES = 300
MAX_BYTES = 2_000_000
"""Of images and outputs together; samples are added until they are used."""
MAX_VIEWS = 16
MAX_OUTPUTS = 2_000
"""Of one network for one sample, over its views; with many classes fewer views are shown."""
MAX_POOL = 20_000
"""The most samples that the student is run on, at even distances if there are more."""
MAX_LISTED, MAX_SAVED = 200, 1_500
"""Likely label errors that are listed, and that the CSV file has."""
_BATCH = 256
_BEGIN_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for a formula, also of full width."""


def inspector(subject: Subject) -> Section:
    """The chosen samples of the focus's training part, or why there are none."""
    name, title = "inspector", "Soft labels, one by one"
    try:
        cache = subject.cache
        if cache.manifest.has_sigmoids:
            return Section(
                name, title, missing="each output has a sigmoid of its own, and no soft label of classes"
            )
        if cache.manifest.num_targets is not None:
            return Section(name, title, missing="a regression has no soft labels of classes")
        viewed, network = subject.splits.student_train, load_network(subject.focus.result).to(subject.device)
        judged = judge(cache)
        if subject.unlabelled:
            judged = replace(judged, thresholds=np.full_like(judged.thresholds, np.inf))
        pool = spread(len(viewed), MAX_POOL)
        differs = _differs(network, viewed, cache, pool, subject.device)
        if not np.isfinite(differs).all():
            missing = "the student's outputs are not numbers, as of a training that diverged"
            return Section(name, title, missing=missing)
        shows = shown_of(viewed, subject.focus.recipe.settings)
        chosen = choose(judged, pool, differs, MAX_SAMPLES)
        views = int(np.clip(MAX_OUTPUTS // cache.num_outputs, 1, min(MAX_VIEWS, cache.num_views)))
        samples = _samples(subject, network, judged, chosen, views, shows)
    except (PipelineError, CacheError, OSError) as error:
        return Section(name, title, missing=str(error))
    names, errors = subject.classes, judged.label_errors
    saved = [_error(judged, index, names, shows) for index in errors[:MAX_SAVED].tolist()]
    return Section(
        name,
        title,
        {
            "rule": _rule(subject, judged, len(pool), len(samples), views),
            "errors": saved[:MAX_LISTED],
            "errors_saved": len(saved),
            "unlabelled": subject.unlabelled,
            "held_out": _learnt_elsewhere(subject),
            "errors_found": len(errors),
            "csv": _csv_address(saved),
            "images": shows.are_images,
            "files": bool(shows.files),
            "temperature": subject.temperature,
            "labels": [(label, names[label]) for label in sorted({one["label"] for one in samples} - {-1})],
        },
        data={
            "classes": names,
            "temperature": subject.temperature,
            "views": views,
            "size": shows.size,
            "reasons": REASONS,
            "samples": samples,
        },
    )


def _samples(
    subject: Subject,
    network: nn.Module,
    judged: Judged,
    chosen: Mapping[int, str],
    views: int,
    shows: Shown,
) -> list[dict[str, Any]]:
    """The records of the chosen samples, until MAX_BYTES are used."""
    samples, spent, doubtful = list[dict[str, Any]](), 0, set(judged.label_errors.tolist())
    for index, reason in chosen.items():
        rows, every = np.full(views, index), np.arange(views)
        teacher = _teacher_outputs(subject.cache, rows, every)
        student = _outputs(network, subject.splits.student_train, rows, every, subject.device)
        label = int(judged.labels[index])
        sample = {
            "index": index,
            "label": label,
            "reason": reason,
            "entropy": round(float(judged.entropy[index]), 5),
            "answer": int(judged.answer[index]),
            "doubtful": index in doubtful,
            "labelShare": None if label < 0 else round(float(judged.label_share[index]), 5),
            "viewAnswer": int(teacher[0].argmax()),
            "student": int(student[0].argmax()),
            "differs": round(float(divergence(softmax(student[:1]), softmax(teacher[:1]))[0]), 5),
            "teacherOutputs": _base64(teacher),
            "studentOutputs": _base64(student),
            **shows.sample(index, views),
        }
        spent += sum(len(value) for value in sample.values() if isinstance(value, str))
        if spent > MAX_BYTES and samples:
            break
        samples.append(sample)
    return samples


def _differs(
    network: nn.Module,
    viewed: ViewedData,
    cache: LogitSource,
    pool: NDArray[np.int64],
    device: torch.device,
) -> NDArray[np.float64]:
    """(P,) divergence of the student from the teacher on view 0 of each sample; NaN where outputs are not finite."""
    batches = []
    for start in track(range(0, len(pool), _BATCH), "running the student"):
        some = pool[start : start + _BATCH]
        student = _outputs(network, viewed, some, np.zeros_like(some), device)
        finite = np.asarray(np.isfinite(student).all(axis=1))
        shares = softmax(np.where(finite[:, None], student, 0))
        divergences = divergence(shares, probabilities_of(cache, some, 0, 1.0))
        batches.append(np.where(finite, divergences, np.nan))
    return np.concatenate(batches)


@torch.inference_mode()
def _outputs(
    network: nn.Module,
    viewed: ViewedData,
    indices: NDArray[np.integer],
    views: NDArray[np.integer],
    device: torch.device,
) -> NDArray[np.float32]:
    """(B, C) outputs of the student for some views of samples."""
    network.eval()
    batches = []
    for start in range(0, len(indices), _BATCH):
        keys = np.stack([indices[start : start + _BATCH], views[start : start + _BATCH]], axis=1)
        batches.append(network(to_device(viewed.batch(keys)[0], device)).float().cpu().numpy())
    return np.concatenate(batches)


def _teacher_outputs(
    cache: LogitSource, rows: NDArray[np.integer], views: NDArray[np.integer]
) -> NDArray[np.float32]:
    """(B, C) logits of the cache; with several separate teachers, logits whose softmax is the mean of theirs."""
    logits = cache.logits(rows, views).astype(np.float32)
    return logits if logits.ndim == 2 else np.log(np.maximum(softmax(logits).mean(axis=1), 1e-30))


def _base64(values: NDArray[np.float32]) -> str:
    """Values as little-endian float32 in base64, row by row."""
    return base64.b64encode(np.ascontiguousarray(values, "<f4").tobytes()).decode()


def _error(judged: Judged, index: int, names: tuple[str, ...], shows: Shown) -> dict[str, Any]:
    """A likely label error, as a row of the table and of the CSV file."""
    label, answer = int(judged.labels[index]), int(judged.answer[index])
    return {
        "index": index,
        "label": names[label],
        "teacher": names[answer],
        "label_probability": round(float(judged.label_share[index]), 6),
        "teacher_probability": round(float(judged.answer_share[index]), 6),
        "file": shows.file(index),
    }


def _csv_address(rows: list[dict[str, Any]]) -> str | None:
    """The rows as a CSV file in a data URL; None if there are no rows. Cells that a spreadsheet would read as a
    formula begin with an apostrophe.
    """
    if not rows:
        return None
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _harmless(value) for name, value in row.items()})
    return "data:text/csv;charset=utf-8," + quote(text.getvalue())


def _harmless(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    seen = one_line(value)
    return f"'{seen}" if seen.strip().startswith(_BEGIN_FORMULAS) or value[:1] in ("\t", "\r", "\n") else seen


def _rule(subject: Subject, judged: Judged, pool: int, samples: int, views: int) -> str:
    """How the samples were chosen, in words."""
    cache = subject.cache
    reasons = "; ".join(REASONS[reason] for reason in REASONS if reason != "label" or not subject.unlabelled)
    of_views = _first(judged.views, cache.num_views, "their one view", f"the mean of {judged.views:,} views")
    those = "each" if pool == cache.num_samples else f"{pool:,} of them, at even distances"
    shown = _first(views, cache.num_views, "the one view", "every view")
    return (
        f"{samples:,} of {cache.num_samples:,} training samples, with {shown} of each. They are taken in turn from "
        f"{reasons}; until {MAX_SAMPLES:,} are found or {MAX_BYTES / 1e6:g} MB are used. The teacher was judged on "
        f"all samples, by {of_views}, the student was run on view 0 of {those}."
    )


def _first(views: int, of: int, one: str, every: str) -> str:
    """A number of views in words: all of them, or the first ones."""
    if views == of:
        return one if of == 1 else every
    return f"the first of {of:,} views" if views == 1 else f"the first {views:,} of {of:,} views"


def _learnt_elsewhere(subject: Subject) -> bool:
    """Whether the teacher is known to be trained on other samples."""
    settings = subject.focus.recipe.settings
    return settings.data.transfer is not None and settings.cache.from_ is None
