"""The state of one phase, read from the disk: of a network, of the students of all seeds, or of a cache."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from decant.cache import CacheError, Difference, LogitCache, Manifest, Store, require_equal
from decant.pipeline.config.tasks import headline
from decant.pipeline.errors import DamagedError
from decant.pipeline.runs.folders import seed_folder
from decant.pipeline.runs.locks import holder
from decant.pipeline.runs.result import RESULT, Result, load_result
from decant.pipeline.runs.saved_recipe import RECIPE
from decant.pipeline.status.live_progress import Pace, Progress, epoch_progress, row_progress, row_writers
from decant.pipeline.status.outdated import Outdated

State = Literal["done", "running", "interrupted", "stale", "damaged", "missing"]
_FIRST_SHOWN: tuple[State, ...] = ("running", "damaged", "interrupted", "missing", "done")  # of several seeds


@dataclass(frozen=True)
class Phase:
    """A teacher, a cache, or the students of one kind."""

    name: str
    command: str
    """The subcommand of `decant` that makes it."""
    path: Path | None = None
    """Its folder or file, whether it exists or not; None while that depends on an unfinished phase."""
    state: State = "missing"
    results: tuple[Result, ...] = ()
    """Its finished networks."""
    seeds: int | None = None
    """The number of students that the recipe has."""
    finished: float | None = None
    """The time at which the last of its networks was finished, in seconds since 1970."""
    progress: Progress | None = None
    """If it is running or was interrupted."""
    holder: str | None = None
    """The process that is running it, as in "process 4711 on gpu01", or those that write a cache together."""
    outdated: Outdated | None = None
    """What other settings have made, if it is stale."""
    detail: str = ""

    @property
    def changed(self) -> tuple[Difference, ...]:
        """The settings in which a stale phase differs from the recipe."""
        return () if self.outdated is None else self.outdated.changed

    @property
    def figure(self) -> str:
        """The metric that its finished networks are compared by; mean and standard deviation of several."""
        if not self.results:
            return ""
        metric = headline(self.results[0].any_metrics)
        tested = all(result.is_tested for result in self.results)
        measured = [result.metrics if tested else result.validation or {} for result in self.results]
        values = [value for metrics in measured if (value := metric.value(metrics)) is not None]
        spread = statistics.stdev(values) if len(values) > 1 else None
        part = "" if tested else "validation "
        return f"{part}{metric.name} {metric.with_spread(statistics.fmean(values), spread)}" if values else ""


def with_network(phase: Phase, folder: Path, total: int, seed: int | None = None) -> Phase:
    """Adds the state of the network in a run folder, which is trained for `total` epochs."""
    phase = replace(phase, path=folder)
    held_by = holder(folder)  # before the result, which a run writes before it unlocks the folder
    try:
        result = load_result(folder)
    except (DamagedError, OSError) as error:
        return replace(phase, state="damaged", detail=str(error))
    if result is not None:
        when = (folder / RESULT).stat().st_mtime
        return replace(phase, state="done", results=(result,), finished=when)
    if held_by is None and not (folder / RECIPE).exists():
        return phase
    state: State = "interrupted" if held_by is None else "running"
    return replace(phase, state=state, progress=epoch_progress(folder, total, seed), holder=held_by)


def with_students(phase: Phase, folder: Path, seeds: Sequence[int], total: int) -> Phase:
    """Adds the state of the students of all seeds: of several states, the first of _FIRST_SHOWN."""
    by_seed = [with_network(phase, seed_folder(folder, seed), total, seed) for seed in seeds]
    first = min(by_seed, key=lambda student: _FIRST_SHOWN.index(student.state))
    return replace(
        first,
        path=folder,
        results=tuple(result for student in by_seed for result in student.results),
        finished=max((student.finished for student in by_seed if student.finished is not None), default=None),
    )


def with_cache(phase: Phase, store: Store, manifest: Manifest, pace: Pace | None = None) -> Phase:
    """Adds the state of the cache with this manifest in the store; with the time left where `pace` knows of earlier
    looks at it.
    """
    path = store.path(manifest)
    try:
        # Before the published file: its builder publishes, then removes the unfinished one.
        unfinished = row_progress(path)
        published = store.published(manifest)
        if published is not None:
            path = published
            return with_opened(phase, _open_published(published, manifest))
    except (CacheError, OSError) as error:
        return replace(phase, path=path, state="damaged", detail=str(error))
    if unfinished is None:
        return replace(phase, path=path)
    progress, running = unfinished
    if pace is not None and running:
        progress = pace.with_seconds_left(path, progress)
    state: State = "running" if running else "interrupted"
    return replace(
        phase, path=path, state=state, progress=progress, holder=row_writers(path) if running else None
    )


def _open_published(path: Path, manifest: Manifest) -> LogitCache:
    """Opens a published cache. Raises CacheError if it is damaged, or has another manifest."""
    cache = LogitCache.open(path, verify="off")
    require_equal(
        manifest.identity,
        cache.manifest.identity,
        subject=f"{path}: does not hold what its name says",
        hint="Delete it and run the command again.",
    )
    return cache


def with_opened(phase: Phase, cache: LogitCache) -> Phase:
    """Adds an open cache and its shape: the phase is done."""
    views = "" if cache.num_views == 1 else f"{cache.num_views:,} views of "
    outputs = "classes" if cache.manifest.num_targets is None else "targets"
    outputs = "sigmoids" if cache.manifest.has_sigmoids else outputs
    samples = f"{cache.num_samples:,} samples"
    if cache.has_positions:
        samples, outputs = f"{samples} of {cache.manifest.num_rows:,} positions", "tokens"
    return replace(
        phase,
        path=cache.path,
        state="done",
        finished=cache.path.stat().st_mtime,
        detail=f"{views}{samples} × {cache.num_outputs:,} {outputs}, {cache.manifest.encoding.name}",
    )


def mark_stale(phase: Phase, outdated: Outdated | None, unfinished: Phase | None = None) -> Phase:
    """Turns a missing phase into a stale one if other settings have made it. `unfinished` is an earlier phase that it
    needs and that is not done.
    """
    if phase.state != "missing" or phase.results or outdated is None:
        return phase
    why = "but the data, or a file that the recipe names, changed"
    if unfinished is not None:
        why = f"but the {unfinished.name} that it came from is {unfinished.state}"
    detail = "" if outdated.changed else f"no setting differs, {why}"
    return replace(phase, state="stale", outdated=outdated, detail=detail)
