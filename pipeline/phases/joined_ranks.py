"""The ranks of a job in phase two: compared before they begin, and joined where they train one network together."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from decant.cache import LogitSource
from decant.cache.io.redaction import without_secrets
from decant.pipeline.config.settings import StudentSettings
from decant.pipeline.phases.plan import AnyPlan
from decant.pipeline.ranks.facts import program_facts, require_equal_ranks
from decant.pipeline.ranks.job import Job, join
from decant.pipeline.ranks.local_ranks import is_beside
from decant.pipeline.ranks.process_group import process_group
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.source_code import code_sha256
from decant.pipeline.training.group import ALONE, Group

_OF_MACHINES = ("root", "pack")
"""Settings of `[data]` in which machines may differ: where the files lie, and how they are kept."""


def join_ranks(plan: AnyPlan, device: torch.device) -> Job | None:
    """The ranks that carry out a plan together, each on its device; None where this process is by itself.

    Raises RankError, in one rank, which says what a rank differs in: program, recipe or code of the user's.
    """
    job = join()
    if job is not None:
        if device.type == "cuda":
            torch.cuda.set_device(device)  # or every rank would take some memory of the first GPU
        require_equal_ranks(job, "program", program_facts())
        require_equal_ranks(job, "recipe", _recipe_facts(plan))
    return job


def compare_data(job: Job | None, fingerprints: Mapping[str, Any], cache: LogitSource | None = None) -> None:
    """Raises RankError, in one rank, where ranks have read other data, or have opened other caches."""
    if job is not None:
        keys = {} if cache is None else {"cache": cache.manifest.key}
        require_equal_ranks(job, "data", {**fingerprints, **keys})


@contextlib.contextmanager
def training_group(job: Job | None, device: torch.device) -> Iterator[Group]:
    """The ranks as a group that trains one network after the other; `ALONE` where there is no job."""
    if job is None:
        yield ALONE
        return
    with process_group(job, device):
        yield Group(job.rank, job.size)


def by_seeds(settings: StudentSettings, students: int, job: Job) -> bool:
    """Whether each rank trains whole students, of which there are so many."""
    if is_beside():
        return True
    if settings.parallel != "auto":
        by_seeds = settings.parallel == "seeds"
    else:
        by_seeds = students >= job.size and settings.batch_norm_ranks is None
    if by_seeds and students < job.size:
        say_once(
            f'student.parallel = "seeds": {job.size:,} ranks for {students:,} students, so that '
            f'{job.size - students:,} have nothing to do; "batch" has all of them train each student'
        )
    return by_seeds


def _recipe_facts(plan: AnyPlan) -> dict[str, Any]:
    recipe = plan.recipe
    facts: dict[str, Any] = without_secrets(recipe.settings.model_dump(mode="json", by_alias=True))
    for name in _OF_MACHINES:
        facts["data"].pop(name, None)
    facts["student"]["parallel"] = recipe.settings.student.parallel
    code = {name: code_sha256(name) for name in recipe.settings.functions}
    return {**facts, "code": {name: (sha256 or "")[:16] for name, sha256 in code.items()}}
