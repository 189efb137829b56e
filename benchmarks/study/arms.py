"""The ways in which one student can be taught, everything else alike: initialisation, order, epochs, schedule.

The live teacher is here for comparison only. It sees what the student sees, a new view of every sample each
epoch; with `views.count = "all"` the cached student is shown the same pixels to the last one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decant.cache import Keys, SoftLabelDataset, Store
from decant.pipeline import objectives
from decant.pipeline.config.cache_settings import EncodingSettings
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Settings, ViewsSettings
from decant.pipeline.networks.build import specify_network
from decant.pipeline.phases.cache_logits import Cached, cache_logits
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.fingerprints import encoding_of as stored_as
from decant.pipeline.phases.fingerprints import fingerprints
from decant.pipeline.phases.job import TrainingJob
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher_pass import teacher_logits
from decant.pipeline.runs.folders import seed_folder, student_folder
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.evaluation import predict
from decant.pipeline.training.loop import Criterion
from decant.pipeline.views import ViewedData


@dataclass(frozen=True)
class Arm:
    """One way of teaching."""

    name: str
    job: TrainingJob
    cached: Cached | None = None
    """Its cache, where it has one."""


class FixedLogits:
    """The classic mistake: the student sees augmented views, its soft labels are of the images as they are."""

    def __init__(self, viewed: ViewedData, logits: Tensor) -> None:
        """`logits` (N, C) are the teacher's on the images themselves."""
        self.viewed, self.logits = viewed, logits.half().float()

    def __len__(self) -> int:
        return len(self.viewed)

    def batch(self, keys: Any) -> tuple[Tensor, Tensor, Tensor]:
        """(inputs, labels, teacher_logits of other pixels)."""
        inputs, labels = self.viewed.batch(keys)
        return inputs, labels, self.logits[keys[:, 0]]


class LiveTeacher:
    """The teacher runs on every batch; `seconds` counts what that takes."""

    def __init__(self, viewed: ViewedData, teacher: nn.Module, precision: str) -> None:
        self.viewed, self.teacher, self.precision = viewed, teacher, precision
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self.viewed)

    def batch(self, keys: Keys) -> tuple[Tensor, Tensor, Tensor]:
        """(inputs, labels, teacher_logits) of a batch, the logits computed now."""
        inputs, labels = self.viewed.batch(keys)
        started = time.perf_counter()
        logits = teacher_logits(self.teacher, inputs, torch.device("cpu"), self.precision)
        self.seconds += time.perf_counter() - started
        return inputs, labels, torch.from_numpy(logits)


def encoding_of(name: str, temperature: float) -> EncodingSettings:
    """`dense-u8`, `sparse-K` or `draws-K`, for an objective at a temperature. Raises ValueError for another name."""
    kind, _, kept = name.partition("-")
    if name == "dense-u8":
        return EncodingSettings(kind="dense-u8")
    if kind not in ("sparse", "draws") or not kept.isdigit():
        raise ValueError(f"encoding: expected dense-u8, sparse-K or draws-K, found {name!r}")
    kept_as = {"head": int(kept)} if kind == "sparse" else {"draws": int(kept)}
    temperatures = tuple(sorted({1.0, temperature}))
    return EncodingSettings.model_validate({"kind": "sparse", "temperatures": temperatures, **kept_as})


def arms(
    recipe: Recipe,
    counts: tuple[int | str, ...],
    base: Path,
    store: Store,
    teacher: Result,
    encodings: tuple[str, ...] = (),
    equal_bytes: bool = False,
) -> Iterator[Arm]:
    """Every way, with the recipe's epochs and seed; builds the caches that are missing. Each number of views comes with
    every logit, and then in each of the encodings, see `encoding_of`; with `equal_bytes` also with the views for which
    the first has the bytes.
    """
    cpu, settings = torch.device("cpu"), recipe.settings.student
    splits = Splits.load(recipe.settings)
    views = recipe.settings.views
    if "all" in counts:  # which draws as a live teacher's views do, and so shares every pixel with them
        views = views.model_copy(update={"count": "all"})
    live = ViewedData(splits.student_train.data, views)

    def job(name: str, kind: Any, data: Any, criterion: Criterion, view: Any) -> TrainingJob:
        decisive = {
            "arm": name,
            **fingerprints(views, splits.student_train.data),
            "teacher": teacher.weights_sha256,
        }
        folder = seed_folder(student_folder(base, settings, kind, decisive), settings.seed)
        spec = specify_network(settings.network, splits.student_train)
        return TrainingJob(
            kind=kind, spec=spec, settings=settings, data=data, criterion=criterion, views=view, folder=folder
        )

    labels_only = objectives.from_labels(settings.label_smoothing)
    distil = objectives.from_cache(settings.objective, settings.label_smoothing)

    network = load_network(teacher).to(memory_format=torch.channels_last)
    yield Arm("labels only", job("labels only", "labels", live, labels_only, live.live_views))
    images = ViewedData(splits.student_train.data, views.model_copy(update={"augment": (), "count": 1}))
    fixed = FixedLogits(live, predict(network, images, cpu, recipe.settings.cache.precision))
    yield Arm("fixed logits, augmented inputs", job("fixed", "distilled", fixed, distil, live.live_views))
    temperature = float(getattr(settings.objective, "temperature", 1.0))
    for count in counts:
        for encoding, stored in _ways(recipe, count, encodings, equal_bytes, teacher.network.num_classes):
            viewed = ViewedData(splits.student_train.data, stored.settings.views)
            cached = cache_logits(Plan.of(stored, base, store), cpu, lambda holder: None)
            cache = cached.cache.at_temperature(temperature)
            data = SoftLabelDataset(viewed, cache, compare_labels=not viewed.mixes_labels)
            name = str(stored.settings.views.count) + ("" if encoding is None else f", {encoding}")
            arm = job(f"V={name}", "distilled", data, distil, viewed.cached_views)
            yield Arm(f"V = {name}", arm, cached)
    taught = LiveTeacher(live, network, recipe.settings.cache.precision)
    yield Arm("live teacher", job("live", "distilled", taught, distil, live.live_views))


def _ways(
    recipe: Recipe, count: int | str, encodings: tuple[str, ...], equal_bytes: bool, outputs: int
) -> Iterator[tuple[str | None, Recipe]]:
    """(name of an encoding or None, recipe) for every cache with a number of views, and then for those with as many
    views as have its bytes at most.
    """
    every = replace(recipe, settings=_with_count(recipe.settings, count))
    temperature = float(getattr(recipe.settings.student.objective, "temperature", 1.0))
    compact = [(name, _with_encoding(every, encoding_of(name, temperature))) for name in encodings]
    yield None, every
    yield from compact
    for name, chosen in compact if equal_bytes and count != "all" else ():
        row, whole = (stored_as(one.settings.cache).row_bytes(outputs) for one in (chosen, every))
        views = max(1, int(count) * whole // row)
        yield name, replace(chosen, settings=_with_count(chosen.settings, views))


def _with_encoding(recipe: Recipe, encoding: EncodingSettings) -> Recipe:
    cache = recipe.settings.cache.model_copy(update={"encoding": encoding})
    return replace(recipe, settings=recipe.settings.model_copy(update={"cache": cache}))


def _with_count(settings: Settings, count: int | str) -> Settings:
    views = ViewsSettings.model_validate({**settings.views.model_dump(), "count": count})
    return settings.model_copy(update={"views": views})
