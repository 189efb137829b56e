"""What a student learns from: the cache or caches of its teachers, found or given, checked, and read from where they
are quickest.
"""

from __future__ import annotations

from pathlib import Path

import torch

from decant.cache import (
    CacheError,
    CheckInputs,
    Ensemble,
    LogitCache,
    LogitSource,
    Manifest,
    MismatchError,
    SoftLabelDataset,
    Store,
    Verify,
    differences,
    require_equal,
)
from decant.pipeline.config.annealing import Scheduled
from decant.pipeline.config.objectives import Custom
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Settings
from decant.pipeline.data.samples import ArrayData, LabelledData, num_outputs
from decant.pipeline.errors import NotMadeError, RecipeError
from decant.pipeline.phases import plan
from decant.pipeline.phases.datasets import Parts
from decant.pipeline.training.loading import BatchedData
from decant.pipeline.training.on_device import DeviceData, fits_on_device


def open_cache(
    recipe: Recipe, parts: Parts, base: Path, store: Store, verify: Verify = "lazy"
) -> LogitSource:
    """The cache that these data, views and teacher ask for, or the caches of both teachers together; or the
    recipe's own `cache.from`, once data and views agree.
    """
    settings = recipe.settings
    if settings.cache.from_ is not None:
        return together(recipe, given_caches(recipe, parts.train.data, verify))
    return together(recipe, [_own_cache(one, parts, base, store, verify) for one in recipe.by_teacher])


def read(
    settings: Settings,
    parts: Parts,
    cache: LogitSource,
    check_inputs: CheckInputs,
    device: torch.device,
) -> BatchedData:
    """What distilled students learn from: through the file or its copy in memory, or all of it on the device."""
    labelled = SoftLabelDataset(parts.train, cache, check_inputs=check_inputs)
    table = settings.cache.table
    if table == "device" and not isinstance(parts.train.data, ArrayData):
        raise RecipeError(
            'cache.table: "device" holds inputs that are one array in memory, and these are read from files; set '
            '"auto", "mapped" or "ram"'
        )
    if table == "device" or (table == "auto" and check_inputs != "all" and fits_on_device(labelled, device)):
        return DeviceData(labelled, device)
    return labelled


def _own_cache(recipe: Recipe, parts: Parts, base: Path, store: Store, verify: Verify) -> LogitCache:
    """The cache of the recipe's own teacher. Raises NotMadeError, naming the command."""
    settings, data = recipe.settings, parts.train.data
    learnt_from = parts.teacher.data
    views = plan.of_views(settings.views, learnt_from)
    teacher = plan.find_teacher(recipe, base, views, plan.of_data(learnt_from))
    manifest = plan.of_cache(data, settings.views, teacher, settings.cache)
    path = store.find(manifest)
    if path is None:
        raise NotMadeError(
            f"{store.path(manifest)}: not built yet; run: {recipe.command('cache-logits')}"
            f"{_nearest(store, manifest)}"
        )
    cache = _open(path, settings, verify)
    require_equal(
        manifest.identity,
        cache.manifest.identity,
        subject=f"{path}: is not a cache of what this student trains on",
        hint=f"Build the right one with: {recipe.command('cache-logits')}",
    )
    return cache


def given_caches(recipe: Recipe, data: LabelledData, verify: Verify) -> list[LogitCache]:
    """The recipe's own `cache.from`, once data, views and classes agree with what is trained on."""
    settings = recipe.settings
    names = (settings.cache.from_,) if isinstance(settings.cache.from_, str) else settings.cache.from_ or ()
    caches = [_open(name, settings, verify) for name in names]
    for cache in caches:
        require_equal(
            {"data": plan.of_data(data), "views": plan.of_views(settings.views, data)},
            cache.manifest.identity,
            subject=f"{cache.path}: is not a cache of what this student trains on",
            hint=f"Build the right one with: {recipe.command('cache-logits', without='cache.from')}",
            sections=("data", "views"),
        )
        _require_outputs(cache, num_outputs(data))
    return caches


def together(recipe: Recipe, caches: list[LogitCache]) -> LogitSource:
    """One cache as it is; several averaged, a regression's as they are, or kept apart where the objective tells them
    apart.
    """
    if len(caches) == 1:
        return caches[0]
    settings = recipe.settings
    if settings.separate_caches:
        return Ensemble(caches, "separate")
    if caches[0].manifest.num_targets is not None:
        return Ensemble(caches, "logits", weights=settings.cache.weights)
    temperature = _ensemble_temperature(settings)
    return Ensemble(caches, settings.cache.ensemble, temperature, settings.cache.weights)


def _ensemble_temperature(settings: Settings) -> float:
    """Where softmaxes are averaged. Raises RecipeError where the objective's temperature is a schedule."""
    temperature = getattr(settings.student.objective, "temperature", 1.0)
    if settings.cache.ensemble == "logits" or isinstance(settings.student.objective, Custom):
        return 1.0
    if isinstance(temperature, Scheduled):
        raise RecipeError(
            'cache.ensemble: "probabilities" are averaged at one temperature, and '
            'student.objective.temperature is a schedule; set cache.ensemble = "logits"'
        )
    return float(temperature)


def _require_outputs(cache: LogitCache, expected: int) -> None:
    if cache.num_outputs != expected:
        raise MismatchError(
            f"{cache.path}: teacher.outputs: the data ask for {expected:,}, the cache has {cache.num_outputs:,}"
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


def _open(path: str | Path, settings: Settings, verify: Verify) -> LogitCache:
    """A cache, its table where `cache.table` says; what goes to the device is read from the file once."""
    table = settings.cache.table
    return LogitCache.open(path, verify=verify, table="mapped" if table == "device" else table)
