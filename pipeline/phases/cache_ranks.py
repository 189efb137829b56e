"""Phase one by the ranks of a job: all write one partial file, each the blocks that are handed out to it."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sized
from pathlib import Path

import torch

from decant.cache import CacheError, LogitCacheWriter, take_over_views
from decant.pipeline.errors import RankError
from decant.pipeline.phases.cache_logits import Cached, RowsWritten, measure_published, publish
from decant.pipeline.phases.kinds import RecipePlan
from decant.pipeline.phases.passes import TeacherPass, identify_teacher, pass_of
from decant.pipeline.ranks.facts import program_facts, require_equal_ranks
from decant.pipeline.ranks.job import Job, timeout
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.progress import progress
from decant.pipeline.training.handout import handed_out
from decant.pipeline.training.teacher_rows import written_rows

_SEEING_SECONDS = 15.0
"""Until a file of another machine must be seen: some network mounts look again only after a while."""


def cache_with_ranks(
    job: Job, plan: RecipePlan, device: torch.device, waiting: Callable[[str], None] = lambda holder: None
) -> Cached | RowsWritten:
    """Runs the teacher once over every sample and view, a share of the blocks on each rank; rank 0 publishes the file
    when all have closed it, and returns it, the others what they have computed.

    A store elsewhere gets the whole file; until then it lies among the copies here, which every rank must see. While
    another machine builds the same for such a store, rank 0 calls `waiting` once with its name, and all wait.

    Its bytes are those of one process's, whatever the number of ranks. A job that was killed goes on where it stopped,
    also with another number of ranks. Raises RankError where ranks differ, are lost, or do not see one folder, and what
    `cache_logits` raises.
    """
    require_equal_ranks(job, "program", program_facts())
    require_equal_ranks(job, "recipe", _recipe_facts(plan))
    identify_teacher(plan)
    require_equal_ranks(job, "teacher and data", plan.manifest.identity)
    name = f"cache/{job.number('cache')}"
    builds = job.is_first and plan.find_cache() is None
    with plan.store.joining(plan.manifest, waiting) if builds else contextlib.nullcontext():
        made = _write_together(job, name, plan, device)
    if job.is_first:
        job.set(f"{name}/published", "yes")
    else:
        job.get(f"{name}/published", "the published cache")
    return made


def _write_together(job: Job, name: str, plan: RecipePlan, device: torch.device) -> Cached | RowsWritten:
    started = time.perf_counter()
    run = pass_of(plan)
    writer, taken_over = _join_file(job, name, plan, run)
    if writer is None:
        path = plan.store.path(plan.manifest)
        return measure_published(plan.find_cache() or path) if job.is_first else RowsWritten(path, 0, "")
    with writer:
        units = run.units(writer, job.size)
        _say_idle_ranks(job, units)
        with _progress(job, name, writer) as (advance, refresh):
            taken = handed_out(units, lambda: job.count(f"{name}/units"))
            rows = run.fill(writer, device, taken, advance)
            writer.sync()
            if not job.is_first:
                writer.close()
            job.set(f"{name}/rows/{job.rank}", str(rows))
            total = _await_all(job, name, refresh) if job.is_first else rows
        if job.is_first:
            return publish(plan, writer, run, device, started, total, taken_over)
    return RowsWritten(writer.path, rows, "")


def _recipe_facts(plan: RecipePlan) -> dict[str, object]:
    """The settings that decide a cache. Where the data are may differ from one machine to the next: what they are is
    compared by their digest.
    """
    settings = plan.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {section: settings.get(section) for section in ("views", "teacher", "cache")}


def _join_file(
    job: Job, name: str, plan: RecipePlan, run: TeacherPass
) -> tuple[LogitCacheWriter | None, int]:
    """A writer into the partial file that rank 0 makes or finds, and the views that it has taken over from another
    cache. No writer where the cache is published already.
    """
    if not job.is_first:
        begun = job.get(f"{name}/file", "the partial file")
        return (_join_begun(job, name, plan, run, begun) if begun else None), 0
    writer = None if plan.find_cache() else _begin(plan, run)
    taken_over = 0 if writer is None else take_over_views(writer, plan.store)
    job.set(f"{name}/host", socket.gethostname())
    job.set(f"{name}/file", "" if writer is None else writer.partial.name)
    if writer is not None:
        for rank in range(1, job.size):
            job.get(f"{name}/sees/{rank}", "its sight of the partial file", rank)
        job.set(f"{name}/begin", "yes")
    return writer, taken_over


def _join_begun(job: Job, name: str, plan: RecipePlan, run: TeacherPass, begun: str) -> LogitCacheWriter:
    """A writer into the file that rank 0 has begun, when all ranks have seen that."""
    path = plan.store.path(plan.manifest)
    seen = _see(job, path.with_name(begun), job.get_now(f"{name}/host"), plan.store.remote is not None)
    writer = LogitCacheWriter.join(
        path, plan.manifest, positions=run.positions, head=run.head, partial_file=seen
    )
    job.set(f"{name}/sees/{job.rank}", "yes")
    job.get(f"{name}/begin", "all ranks to see the partial file")
    return writer


def _begin(plan: RecipePlan, run: TeacherPass) -> LogitCacheWriter | None:
    """Rank 0's writer; None where another job publishes the cache in this moment."""
    try:
        path = plan.store.path(plan.manifest)
        return LogitCacheWriter.join(path, plan.manifest, positions=run.positions, head=run.head)
    except CacheError:
        if plan.find_cache() is None:
            raise
        return None


def _see(job: Job, partial: Path, host: str, is_copy: bool) -> Path:
    """The partial file of rank 0, when this machine sees it. Raises RankError where it does not. is_copy: it lies among
    the copies of a store elsewhere.
    """
    until = time.monotonic() + min(_SEEING_SECONDS, timeout())
    while True:
        with contextlib.suppress(OSError):
            if partial.name in os.listdir(partial.parent):  # which also has a network mount look again
                return partial
        if time.monotonic() > until:
            shared = (
                "let DECANT_CACHE_HOME name one that all machines share"
                if is_copy
                else ("give one that all machines share, with --store")
            )
            raise RankError(
                f"{partial}: not seen on {socket.gethostname()}, where rank {job.rank} runs; rank 0 on {host} has made "
                f"it there. Every rank needs the same folder: {shared}, or "
                "compute parts without one: `decant cache-logits --part` and `decant cache merge --how parts`"
            )
        time.sleep(0.2)


def _say_idle_ranks(job: Job, units: Sized) -> None:
    if len(units) < job.size:
        say_once(
            f"warning: {job.size} ranks share {len(units)} batches: {job.size - len(units)} have nothing to compute"
        )


@contextlib.contextmanager
def _progress(
    job: Job, name: str, writer: LogitCacheWriter
) -> Iterator[tuple[Callable[[int], object], Callable[[], object]]]:
    """One bar for the job, which rank 0 shows: a function that counts rows of this rank, and one that takes up those of
    the others.
    """
    written = written_rows(writer)
    shown = before = int(sum(view.sum() for view in written))
    with progress("caching logits", sum(map(len, written))) as show:
        show(shown)

        def advance(rows: int) -> None:
            nonlocal shown
            total = before + job.count(f"{name}/done", rows)
            show(total - shown)
            shown = total

        yield advance, lambda: advance(0)


def _await_all(job: Job, name: str, refresh: Callable[[], object]) -> int:
    """The rows that all ranks have computed, when they have synced and closed the file."""
    rows = 0
    for rank in range(job.size):
        for _ in job.polls("its rows", rank):
            refresh()
            if job.has(f"{name}/rows/{rank}"):
                break
        rows += int(job.get_now(f"{name}/rows/{rank}"))
    return rows
