"""How one phase stands, as it shows on the disk: a network, the students of all seeds, or a cache."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from decant.cache import CacheError, Difference, LogitCache, Manifest, Store, require_equal
from decant.pipeline.config.tasks import headline
from decant.pipeline.errors import DamagedError
from decant.pipeline.runs.locks import holder
from decant.pipeline.runs.result import RESULT, Result, load_result
from decant.pipeline.runs.saved_recipe import RECIPE
from decant.pipeline.status.live_progress import Progress, epochs, rows
from decant.pipeline.status.outdated import Outdated

State = Literal["done", "running", "interrupted", "stale", "damaged", "missing"]
_FIRST_SAID: tuple[State, ...] = ("running", "damaged", "interrupted", "missing", "done")  # of several seeds


@dataclass(frozen=True)
class Phase:
    """A teacher, a cache, or the students of one kind."""

    name: str
    command: str
    """Of `decant`, that makes it."""
    path: Path | None = None
    """Where it lies or will lie; None while that depends on an earlier phase."""
    state: State = "missing"
    results: tuple[Result, ...] = ()
    """Its finished networks."""
    seeds: int | None = None
    """Students that are asked for."""
    finished: float | None = None
    """When the last of it was finished, in seconds since 1970."""
    progress: Progress | None = None
    """Of what is running or was interrupted."""
    holder: str | None = None
    """The process that is at it, as it named itself."""
    outdated: Outdated | None = None
    """What there is of other settings, where it is stale."""
    detail: str = ""

    @property
    def changed(self) -> tuple[Difference, ...]:
        """The settings that made it stale."""
        return () if self.outdated is None else self.outdated.changed

    @property
    def figure(self) -> str:
        """What its finished networks are compared by, as mean and spread where they are several."""
        if not self.results:
            return ""
        shown = headline(self.results[0].metrics)
        values = [value for one in self.results if (value := shown.value(one.metrics)) is not None]
        spread = statistics.stdev(values) if len(values) > 1 else None
        return f"{shown.name} {shown.with_spread(statistics.fmean(values), spread)}" if values else ""


def with_network(here: Phase, folder: Path, total: int, seed: int | None = None) -> Phase:
    """With what a run folder says of one network, of which `total` epochs are asked for."""
    here = replace(here, path=folder)
    held_by = holder(folder)  # before the result: a run lets go after it has written that
    try:
        result = load_result(folder)
    except DamagedError as error:
        return replace(here, state="damaged", detail=str(error))
    if result is not None:
        when = (folder / RESULT).stat().st_mtime
        return replace(here, state="done", results=(result,), finished=when)
    if held_by is None and not (folder / RECIPE).exists():
        return here
    state: State = "interrupted" if held_by is None else "running"
    return replace(here, state=state, progress=epochs(folder, total, seed), holder=held_by)


def with_students(here: Phase, folder: Path, seeds: Sequence[int], total: int) -> Phase:
    """With what the run folders of all seeds say, the state being that of the seed that a person has to know first."""
    each = [with_network(here, folder / f"seed-{seed}", total, seed) for seed in seeds]
    first = min(each, key=lambda one: _FIRST_SAID.index(one.state))
    return replace(
        first,
        path=folder,
        results=tuple(result for one in each for result in one.results),
        finished=max((one.finished for one in each if one.finished is not None), default=None),
    )


def with_cache(here: Phase, store: Store, manifest: Manifest) -> Phase:
    """With what a store has of the cache that answers `manifest`."""
    path = store.path(manifest)
    try:
        unfinished = rows(path)  # before the file: its builder publishes, then removes this
        published = store.published(manifest)
        if published is not None:
            path = published
            return with_opened(here, _opened(published, manifest))
    except CacheError as error:
        return replace(here, path=path, state="damaged", detail=str(error))
    if unfinished is None:
        return replace(here, path=path)
    progress, running = unfinished
    return replace(here, path=path, state="running" if running else "interrupted", progress=progress)


def _opened(path: Path, manifest: Manifest) -> LogitCache:
    """A published cache. Raises CacheError where it is damaged, or not of this manifest."""
    cache = LogitCache.open(path, verify="off")
    require_equal(
        manifest.identity,
        cache.manifest.identity,
        subject=f"{path}: does not hold what its name says",
        hint="Delete it and run the command again.",
    )
    return cache


def with_opened(here: Phase, cache: LogitCache) -> Phase:
    """With a cache that opens, and what it holds."""
    views = "" if cache.num_views == 1 else f"{cache.num_views:,} views of "
    outputs = "classes" if cache.manifest.num_targets is None else "targets"
    return replace(
        here,
        path=cache.path,
        state="done",
        finished=cache.path.stat().st_mtime,
        detail=f"{views}{cache.num_samples:,} samples × {cache.num_outputs:,} {outputs}, {cache.manifest.dtype.name}",
    )


def perhaps_stale(here: Phase, found: Outdated | None, before: Phase | None = None) -> Phase:
    """A missing phase as a stale one, where other settings have made it; `before` is an earlier one that it needs and
    that is not done.
    """
    if here.state != "missing" or here.results or found is None:
        return here
    why = "but the data, or a file that the recipe names, changed"
    if before is not None:
        why = f"but the {before.name} that it came from is {before.state}"
    detail = "" if found.changed else f"no setting differs, {why}"
    return replace(here, state="stale", outdated=found, detail=detail)
