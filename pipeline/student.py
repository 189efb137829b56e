"""Phase two: cache file × data × views → student.

Nothing here, nor in anything that it imports, builds or loads a teacher.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cache import CacheError, Ensemble, LogitCache, Manifest, MismatchError, SoftLabelDataset, Store
from cache.dataset import CheckInputs
from cache.manifest import differences, require_same
from cache.reader import Verify
from cache.uses import using
from pipeline import identity, networks, objectives
from pipeline.errors import NotMadeError, RecipeError
from pipeline.job import Job, carry_out, finished
from pipeline.objective_settings import Own
from pipeline.parts import Parts
from pipeline.recipe import Recipe
from pipeline.runs import (
    TEST_LOGITS,
    NetworkSpec,
    Result,
    find_teacher,
    load_result,
    student_folder,
    teacher_folder,
)
from pipeline.samples import NO_LABEL, num_classes
from pipeline.scheduled import Scheduled
from pipeline.settings import Settings


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
    cache = open_cache(recipe, parts, base, store, verify)
    teacher_logits = _teacher_on_test(recipe, parts, base, cache)
    spec = networks.specify(settings.network, parts.train)
    with contextlib.ExitStack() as stack:
        for member in cache.caches if isinstance(cache, Ensemble) else (cache,):
            stack.enter_context(using(member.path))
        for seed in range(settings.seed, settings.seed + settings.seeds):
            for job in _jobs(recipe, parts, base, cache, spec, seed, check_inputs):
                # A labels-only student serves many teachers: what it agrees with is not its to say.
                agree_with = teacher_logits if job.kind == "distilled" else None
                found = finished(job.folder, parts.test, device, agree_with)
                yield found or carry_out(job, recipe, parts.test, device, agree_with), found is not None


def open_cache(
    recipe: Recipe, parts: Parts, base: Path, store: Store, verify: Verify = "lazy"
) -> LogitCache | Ensemble:
    """The cache that these data, views and teacher ask for; or the recipe's own `cache.from`, once data and
    views agree.
    """
    settings = recipe.settings
    data = parts.train.data
    if settings.cache.from_ is not None:
        return _given_cache(recipe, parts, verify)
    teacher = find_teacher(recipe, base, identity.of_views(settings.views, data), identity.of_data(data))
    manifest = identity.of_cache(data, settings.views, teacher, settings.cache)
    path = store.find(manifest)
    if path is None:
        raise NotMadeError(
            f"{store.path(manifest)}: not built yet; run: {recipe.command('cache-logits')}"
            f"{_nearest(store, manifest)}"
        )
    cache = LogitCache.open(path, verify=verify)
    require_same(
        manifest.identity,
        cache.manifest.identity,
        what=f"{path}: is not a cache of what this student trains on",
        mend=f"Build the right one with: {recipe.command('cache-logits')}",
    )
    return cache


def _given_cache(recipe: Recipe, parts: Parts, verify: Verify) -> LogitCache | Ensemble:
    """The recipe's own `cache.from`, once data, views and classes agree with what is trained on."""
    settings, data = recipe.settings, parts.train.data
    names = (settings.cache.from_,) if isinstance(settings.cache.from_, str) else settings.cache.from_ or ()
    caches = [LogitCache.open(name, verify=verify) for name in names]
    for cache in caches:
        require_same(
            {"data": identity.of_data(data), "views": identity.of_views(settings.views, data)},
            cache.manifest.identity,
            what=f"{cache.path}: is not a cache of what this student trains on",
            mend=f"Build the right one with: {recipe.command('cache-logits', without='cache.from')}",
            sections=("data", "views"),
        )
        _require_classes(cache, num_classes(data))
    if len(caches) == 1:
        return caches[0]
    return Ensemble(caches, settings.cache.ensemble, _ensemble_temperature(settings))


def _ensemble_temperature(settings: Settings) -> float:
    """Where softmaxes are averaged. Raises RecipeError where the objective's temperature is a schedule."""
    temperature = getattr(settings.student.objective, "temperature", 1.0)
    if settings.cache.ensemble == "logits" or isinstance(settings.student.objective, Own):
        return 1.0
    if isinstance(temperature, Scheduled):
        raise RecipeError(
            'cache.ensemble: "probabilities" are averaged at one temperature, and '
            'student.objective.temperature is a schedule; set cache.ensemble = "logits"'
        )
    return float(temperature)


def _require_classes(cache: LogitCache, expected: int) -> None:
    if cache.num_outputs != expected:
        raise MismatchError(
            f"{cache.path}: teacher.outputs: the data have {expected} classes, the cache {cache.num_outputs}"
        )


def _nearest(store: Store, manifest: Manifest) -> str:
    """How the most similar cache of the store differs, for somebody who thought it was the one."""
    others = []
    for path in store.paths():
        try:
            found = LogitCache.open(path, verify="off").manifest.identity
        except CacheError:
            continue
        others.append((len(different := differences(manifest.identity, found)), path, different))
    if not others:
        return ""
    _, path, different = min(others)
    return f"\nThe nearest there, {path}, differs in:" + "".join(
        f"\n  {difference}" for difference in different[:6]
    )


def _jobs(
    recipe: Recipe,
    parts: Parts,
    base: Path,
    cache: LogitCache | Ensemble,
    spec: NetworkSpec,
    seed: int,
    check_inputs: CheckInputs,
) -> list[Job]:
    """The networks of one seed: the labels-only student where it is wanted and there are labels, then
    the distilled one.
    """
    settings = recipe.settings.student.model_copy(update={"seed": seed})
    inputs = {
        "views": identity.of_views(recipe.settings.views, parts.train.data),
        "data": identity.of_data(parts.train.data),
    }
    labels_only = Job(
        kind="labels",
        spec=spec,
        settings=settings,
        data=parts.train,
        criterion=objectives.from_labels(settings.label_smoothing),
        views=parts.train.cached_views,
        folder=student_folder(base, recipe, "labels", inputs) / f"seed-{seed}",
        lazy=parts.train.data.lazy,
    )
    distilled = replace(
        labels_only,
        kind="distilled",
        data=SoftLabelDataset(parts.train, cache, check_inputs=check_inputs),
        criterion=objectives.from_cache(settings.objective, settings.label_smoothing),
        folder=student_folder(base, recipe, "distilled", {**inputs, "cache": cache.manifest.key})
        / f"seed-{seed}",
        origin={
            "objective": settings.objective.model_dump(mode="json", by_alias=True),
            "cache": cache.manifest.key,
            "teacher": cache.manifest.identity["teacher"].get("weights_sha256"),
            "baseline": labels_only.folder.parent.name,
        },
    )
    labelled = bool((parts.train.data.labels != NO_LABEL).any())
    return [labels_only, distilled] if settings.baseline and labelled else [distilled]


def _teacher_on_test(recipe: Recipe, parts: Parts, base: Path, cache: LogitCache | Ensemble) -> Tensor | None:
    """(N, C) logits on the test part that the teacher left whose logits the cache holds; None where only its
    cache is at hand.
    """
    data = parts.train.data
    views = identity.of_views(recipe.settings.views, data)
    teacher = load_result(teacher_folder(base, recipe.settings.teacher, views, identity.of_data(data)))
    learnt_from = cache.manifest.identity["teacher"].get("weights_sha256")
    if teacher is None or teacher.weights_sha256 != learnt_from:
        return None
    logits = np.load(teacher.folder / TEST_LOGITS, allow_pickle=False)
    return torch.from_numpy(logits) if teacher.test_sha256 == parts.test.data.digest() else None
