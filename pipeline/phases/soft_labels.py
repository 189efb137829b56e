"""What a student is trained from: the caches of its teachers, opened and checked against the data and views."""

from __future__ import annotations

from pathlib import Path

from decant.cache import (
    CacheError,
    Ensemble,
    LogitCache,
    LogitSource,
    MismatchError,
    Sparse,
    Verify,
    bounds_in_words,
    differences,
    require_equal,
)
from decant.pipeline.config.annealing import Scheduled
from decant.pipeline.config.objectives import Custom
from decant.pipeline.config.settings import Settings
from decant.pipeline.data.samples import num_outputs
from decant.pipeline.errors import NotMadeError, RecipeError
from decant.pipeline.phases.given_caches import say_other_encoding
from decant.pipeline.phases.plan import Plan
from decant.pipeline.support.notices import say_once

_EXPECTATIONS = ("kd", "ce+kl", "soft-ce", "general", "soft-transfer-knowledge", "ls")
"""The objectives whose gradient is linear in the teacher's softmax, or that do not look at it."""
_MOST_DIFFERENCES = 6  # that a message lists


def open_cache(plan: Plan, verify: Verify = "lazy") -> LogitSource:
    """Opens the cache that students are trained from: the one of the recipe's teacher, those of both its teachers, or
    the files that `cache.from` names.

    Raises NotMadeError, with the command, if a teacher or cache is missing; FileNotFoundError for a file of
    `cache.from` that is; MismatchError if a cache is of other data or views; and CacheError for damage.
    """
    if plan.settings.cache.from_ is not None:
        return combine(plan.settings, open_given_caches(plan, verify))
    return combine(plan.settings, [_open_planned_cache(each, verify) for each in plan.by_teacher])


def open_given_caches(plan: Plan, verify: Verify) -> list[LogitCache]:
    """Opens the files of `cache.from`, in order. Raises MismatchError if one is of other data, views or classes."""
    settings = plan.settings
    names = (settings.cache.from_,) if isinstance(settings.cache.from_, str) else settings.cache.from_ or ()
    caches = [_open(name, settings, verify) for name in names]
    for cache in caches:
        require_equal(
            plan.data.student_fingerprints,
            cache.manifest.identity,
            subject=f"{cache.path}: is not a cache of what this student trains on",
            hint=f"Build the right one with: {plan.recipe.command('cache-logits', without='cache.from')}",
            sections=("data", "views"),
        )
        _require_outputs(cache, num_outputs(plan.data.student_data))
        say_other_encoding(settings.cache, cache)
    return caches


def combine(settings: Settings, caches: list[LogitCache]) -> LogitSource:
    """One cache as it is, or an ensemble of several: averaged as `cache.ensemble` says (the outputs of a regression
    always as they are), or kept separate for an objective that needs each teacher's logits.

    Raises RecipeError where softmaxes would be averaged at a temperature that is a schedule, and where a sparse cache
    does not know the softmax at the objective's.
    """
    caches = [_for_objective(cache, settings) for cache in caches]
    if len(caches) == 1:
        return caches[0]
    if settings.separate_caches:
        return Ensemble(caches, "separate")
    if caches[0].manifest.num_targets is not None and not caches[0].manifest.has_sigmoids:
        return Ensemble(caches, "logits", weights=settings.cache.weights)
    temperature = _ensemble_temperature(settings)
    return Ensemble(caches, settings.cache.ensemble, temperature, settings.cache.weights)


def _open_planned_cache(plan: Plan, verify: Verify) -> LogitCache:
    """Opens the cache of the plan's teacher. Raises NotMadeError, with the command, if it has not been built."""
    lazily = plan.settings.cache.remote == "lazy"
    try:
        path = plan.store.locate(plan.manifest) if lazily else plan.find_cache()
    except NotMadeError as error:  # of the teacher, whose weights are in the key
        raise NotMadeError(
            f"{error}; or name a cache that you were given, which needs no teacher: --set cache.from=FILE"
        ) from error
    if path is None:
        raise NotMadeError(f"{plan.not_built()}{_nearest_cache(plan)}")
    cache = _open(path, plan.settings, verify)
    require_equal(
        plan.manifest.identity,
        cache.manifest.identity,
        subject=f"{cache.path}: is not a cache of what this student trains on",
        hint=f"Build the right one with: {plan.recipe.command('cache-logits')}",
    )
    return cache


def _nearest_cache(plan: Plan) -> str:
    """The end of a message: the cache in the store that differs in the fewest fields, and those fields."""
    others = []
    for path in plan.store.paths():
        try:
            identity = LogitCache.open(path, verify="off").manifest.identity
        except CacheError:
            continue
        different = differences(plan.manifest.identity, identity)
        others.append((len(different), path, different))
    if not others:
        return ""
    _, path, different = min(others)
    fields = "".join(f"\n  {difference}" for difference in different[:_MOST_DIFFERENCES])
    return f"\nThe nearest there, {path}, differs in:{fields}"


def _ensemble_temperature(settings: Settings) -> float:
    """The temperature at which softmaxes are averaged: the objective's. Raises RecipeError if that is a schedule."""
    temperature = getattr(settings.student.objective, "temperature", 1.0)
    if settings.cache.ensemble == "logits" or isinstance(settings.student.objective, Custom):
        return 1.0
    if isinstance(temperature, Scheduled):
        raise RecipeError(
            'cache.ensemble: "probabilities" are averaged at one temperature, and '
            'student.objective.temperature is a schedule; set cache.ensemble = "logits"'
        )
    return float(temperature)


def _for_objective(cache: LogitCache, settings: Settings) -> LogitCache:
    """The cache, read for the temperature of the objective where that matters; what a sparse one cannot say is said."""
    encoding = cache.manifest.encoding
    if not isinstance(encoding, Sparse):
        return cache
    temperature = getattr(settings.student.objective, "temperature", None)
    if isinstance(temperature, Scheduled):
        raise RecipeError(
            f"student.objective.temperature: {cache.path} has the mass of the outputs that it leaves out at certain "
            "temperatures alone, and this is a schedule; set one of these, or cache every logit"
        )
    read = require_temperature(cache, settings)
    if encoding.draws:
        _require_expectation(cache, settings)
        say_once(
            f"{cache.path}: {encoding.kept:,} of {cache.num_outputs:,} logits of a row are cached, drawn with known "
            "probabilities: students learn from the unbiased estimate of the softmax"
        )
    else:
        say_once(
            f"{cache.path}: {encoding.head:,} of {cache.num_outputs:,} logits of a row are cached: the mass of the "
            "others is spread evenly over them"
        )
    return read


def require_temperature(cache: LogitCache, settings: Settings) -> LogitCache:
    """The cache, read for the temperature of the objective where that matters. Raises RecipeError for one that a sparse
    cache does not declare, unless the objective has `interpolate`; how well the softmax is then known is said.
    """
    given = getattr(settings.student.objective, "temperature", None)
    if given is None or not isinstance(cache.manifest.encoding, Sparse):
        return cache
    temperature = float(given)
    interpolate = bool(getattr(settings.student.objective, "interpolate", False))
    try:
        read = cache.at_temperature(temperature, interpolate=interpolate)
    except MismatchError as error:
        raise RecipeError(f"student.objective.{error} (student.objective.interpolate = true)") from None
    encoding = cache.manifest.encoding
    if isinstance(encoding, Sparse) and temperature not in encoding.temperatures:
        say_once(
            f"{cache.path}: does not declare temperature {temperature:g}: the mass of what it leaves out is taken from "
            f"the middle of what its rows prove, which is {bounds_in_words(cache.log_tail_bounds(temperature))}"
        )
    return read


def _require_expectation(cache: LogitCache, settings: Settings) -> None:
    """Raises RecipeError for an objective that is no expectation under the teacher's softmax: of an estimate of that,
    only an expectation is unbiased.
    """
    objective = settings.student.objective
    if isinstance(objective, Custom):
        return
    if objective.name not in _EXPECTATIONS:
        raise RecipeError(
            f"student.objective {objective.name!r}: {cache.path} has draws, an unbiased estimate of the teacher's "
            "softmax, and this loss is no expectation under it, so it would be biased: take "
            f"{', '.join(_EXPECTATIONS)}, or a cache without draws"
        )
    if getattr(objective, "standardize", False):
        raise RecipeError(
            f"student.objective.standardize: {cache.path} has draws, of which no row has a mean: leave it out"
        )


def _require_outputs(cache: LogitCache, expected: int) -> None:
    if cache.num_outputs != expected:
        more = "; teacher.classes, or --classes of `decant cache import`, keeps those of the data"
        raise MismatchError(
            f"{cache.path}: teacher.outputs: the data ask for {expected:,}, the cache has {cache.num_outputs:,}"
            f"{more if cache.num_outputs > expected else ''}"
        )


def _open(path: str | Path, settings: Settings, verify: Verify) -> LogitCache:
    """Opens a cache with its table where `cache.table` says. A table for the device is mapped, and copied later."""
    placement = settings.cache.table
    return LogitCache.open(
        path,
        verify=verify,
        table="mapped" if placement == "device" else placement,
        lazy=settings.cache.remote == "lazy",
    )
