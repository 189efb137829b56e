"""Phase two: cache file × data × views → student.

Nothing here, nor in anything that it imports, builds or loads a teacher.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from decant.cache import CheckInputs, LogitSource, Store, Verify
from decant.cache.io.usage import using
from decant.pipeline import objectives
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.data.samples import has_labels, task_of
from decant.pipeline.networks.spec import NetworkSpec, specify_network
from decant.pipeline.phases import plan, soft_labels
from decant.pipeline.phases.datasets import Parts
from decant.pipeline.phases.job import Job, carry_out, finished
from decant.pipeline.runs.folders import student_folder, teacher_folder
from decant.pipeline.runs.result import Result, load_result
from decant.pipeline.runs.saved_logits import load_test_logits
from decant.pipeline.training.loading import BatchedData


def train_students(
    recipe: Recipe,
    base: Path,
    store: Store,
    device: torch.device,
    *,
    verify: Verify = "lazy",
    check_inputs: CheckInputs = "sample",
) -> Iterator[tuple[Result, bool]]:
    """Trains the recipe's students, seed after seed, on labels alone and from the cache; yields each network
    as it is finished, and whether it was there already.

    Both kinds share network, initialisation, order, views, epochs and schedule. Raises NotMadeError, naming
    the command, where the cache has not been built, and MismatchError where the one that is given is of other
    data or views.
    """
    settings = recipe.settings.student
    parts = Parts.load(recipe.settings)
    cache = soft_labels.open_cache(recipe, parts, base, store, verify)
    teacher_logits = _teacher_on_test(recipe, parts, base, cache)
    spec = specify_network(settings.network, parts.train)
    learnt_from = soft_labels.read(recipe.settings, parts, cache, check_inputs, device)
    with contextlib.ExitStack() as stack:
        for member in cache.members:
            stack.enter_context(using(member.path))
        for seed in range(settings.seed, settings.seed + settings.seeds):
            for job in _jobs(recipe, parts, base, cache, spec, seed, learnt_from):
                # A labels-only student serves many teachers: what it agrees with is not its to say.
                agree_with = teacher_logits if job.kind == "distilled" else None
                found = finished(job.folder, parts.test, device, agree_with)
                yield found or carry_out(job, recipe, parts.test, device, agree_with), found is not None


def _jobs(
    recipe: Recipe,
    parts: Parts,
    base: Path,
    cache: LogitSource,
    spec: NetworkSpec,
    seed: int,
    learnt_from: BatchedData,
) -> list[Job]:
    """The networks of one seed: the labels-only student where it is wanted and there are labels, then
    the distilled one.
    """
    settings = recipe.settings.student.model_copy(update={"seed": seed})
    inputs = {
        "views": plan.of_views(recipe.settings.views, parts.train.data),
        "data": plan.of_data(parts.train.data),
    }
    labels_only = Job(
        kind="labels",
        spec=spec,
        settings=settings,
        data=parts.train,
        criterion=objectives.from_labels(settings.label_smoothing, task_of(parts.train.data)),
        views=parts.train.cached_views,
        folder=student_folder(base, settings, "labels", inputs) / f"seed-{seed}",
        lazy=parts.train.data.lazy,
    )
    distilled = replace(
        labels_only,
        kind="distilled",
        data=learnt_from,
        criterion=objectives.from_cache(settings.objective, settings.label_smoothing),
        folder=student_folder(base, settings, "distilled", {**inputs, "cache": cache.manifest.key})
        / f"seed-{seed}",
        origin={
            "objective": settings.objective.model_dump(mode="json", by_alias=True),
            "cache": cache.manifest.key,
            "teacher": cache.manifest.identity["teacher"].get("weights_sha256"),
            "teachers": _weights_of_several(cache),
            "baseline": labels_only.folder.parent.name,
        },
    )
    labelled = has_labels(parts.train.data)
    return [labels_only, distilled] if settings.baseline and labelled else [distilled]


def _weights_of_several(cache: LogitSource) -> list[str] | None:
    """The SHA-256 of the weights of each teacher of an ensemble, of those that are known."""
    if len(cache.members) == 1:
        return None
    found = (member.manifest.identity["teacher"].get("weights_sha256") for member in cache.members)
    return [weights for weights in found if weights is not None]


def _teacher_on_test(recipe: Recipe, parts: Parts, base: Path, cache: LogitSource) -> Tensor | None:
    """(N, C) logits on the test part that the teacher left whose logits the cache holds; None where only its
    cache is at hand.
    """
    data = parts.teacher.data
    views = plan.of_views(recipe.settings.views, data)
    teacher = load_result(
        teacher_folder(base, recipe.settings.teacher, {"views": views, "data": plan.of_data(data)})
    )
    learnt_from = cache.manifest.identity["teacher"].get("weights_sha256")
    if teacher is None or teacher.weights_sha256 != learnt_from:
        return None
    logits = load_test_logits(teacher.folder)
    return torch.from_numpy(logits) if teacher.test_sha256 == parts.test.data.digest() else None
