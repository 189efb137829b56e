"""Phase two of a language model: cache × tokens → student.

Neither this module nor anything that it imports runs a teacher over texts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

import torch

from decant.cache import CheckInputs, LogitCache, Verify
from decant.cache.io.usage import using
from decant.pipeline.errors import NotMadeError
from decant.pipeline.language.criteria import require_objective
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.joined_ranks import by_seeds, compare_data, join_ranks, training_group
from decant.pipeline.phases.language.job import TokenJob, find_result, train_network
from decant.pipeline.phases.language.networks import initial_weights, student_spec
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.served_teacher import teacher_digest
from decant.pipeline.phases.language.sources import Part
from decant.pipeline.phases.soft_labels import require_temperature
from decant.pipeline.phases.students_by_rank import each_its_own
from decant.pipeline.ranks.launch import is_first
from decant.pipeline.runs.folders import seed_folder
from decant.pipeline.runs.result import Result
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.group import ALONE, Group


def train_students(
    plan: LanguagePlan,
    device: torch.device,
    *,
    verify: Verify = "lazy",
    check_inputs: CheckInputs = "sample",
    log_to: LogTo | None = None,
) -> Iterator[tuple[Result, bool]]:
    """Trains the students of a recipe, seed after seed, on the tokens alone and from the cache.

    Yields each network when it is finished, and whether it was finished before. Both kinds have the same network,
    initial weights, order of samples, batches, epochs and schedule. The ranks of a job train them together, or each its
    own, as `student.parallel` says; then rank 0 yields all of them, its own first. All tokens of every batch are
    compared with those that the teacher read, on every rank, whatever `check_inputs` says. Raises as
    `LanguagePlan.open_cache` does, RecipeError for an objective that the cache does not suffice for, and RankError
    where ranks have not the same program, recipe or data.
    """
    ranks = join_ranks(plan, device)
    cache = plan.open_cache("train", verify)
    require_objective(plan.settings.student.objective, cache.manifest.encoding, cache.path)
    require_temperature(cache, plan.settings)
    compare_data(ranks, plan.data.student_fingerprints, cache)
    with contextlib.ExitStack() as stack:
        stack.enter_context(using(cache.path, counted=is_first()))
        spec, held_out = student_spec(plan), _held_out(plan, cache)
        jobs = (job for seed in plan.seeds for job in jobs_for_seed(plan, cache, held_out, spec, seed))

        def find(job: TokenJob) -> Result | None:
            return find_result(job, plan, device)

        def train(job: TokenJob, group: Group = ALONE) -> tuple[Result, bool]:
            result = group.of_first(lambda: find(job))
            return (result, True) if result is not None else train_network(job, plan, device, log_to, group)

        if ranks is not None and by_seeds(plan.settings.student, _num_students(plan), ranks):
            yield from each_its_own(ranks, jobs, train, find)
        else:
            group = stack.enter_context(training_group(ranks, device))
            for job in jobs:
                yield train(job, group)


def require_trainable(plan: LanguagePlan) -> None:
    """Raises what `train_students` would of a recipe and its data alone, whatever the cache: for a network that cannot
    be built. Raises NotMadeError where it is cut from a teacher that is not finished.
    """
    spec = student_spec(plan)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        build_network(spec, drawn=False)


def jobs_for_seed(
    plan: LanguagePlan,
    cache: LogitCache,
    held_out: dict[Part, LogitCache],
    spec: NetworkSpec,
    seed: int,
) -> list[TokenJob]:
    """The students of one seed: on the tokens alone, if the recipe has a baseline, and distilled from the cache."""
    settings = plan.settings.student.model_copy(update={"seed": seed})
    labels_only = TokenJob(
        kind="labels",
        spec=spec,
        settings=settings,
        samples=plan.data.samples("train"),
        folder=seed_folder(plan.student_folder("labels"), seed),
        load_initial_weights=initial_weights(plan, spec),
    )
    distilled = replace(
        labels_only,
        kind="distilled",
        cache=cache,
        objective=settings.objective,
        held_out=held_out,
        folder=seed_folder(plan.student_folder("distilled", cache.manifest.key), seed),
        origin={
            "objective": settings.objective.model_dump(mode="json", by_alias=True),
            "cache": cache.manifest.key,
            "teacher": digest_of(cache),
            "baseline": labels_only.folder.parent.name,
        },
    )
    return [labels_only, distilled] if settings.baseline else [distilled]


def held_out_of_teacher(plan: LanguagePlan, part: Part, teacher: str | None) -> LogitCache | None:
    """What the teacher of this digest says of a part that networks are measured on; None where no cache has it."""
    try:
        found = plan.held_out_cache(part)
    except NotMadeError:
        return None
    return found if found is not None and digest_of(found) == teacher else None


def _held_out(plan: LanguagePlan, cache: LogitCache) -> dict[Part, LogitCache]:
    """The caches of the parts that students are measured on, of the teacher that they learn from."""
    parts = (part for part in plan.data.parts if part != "train")
    found = {part: held_out_of_teacher(plan, part, digest_of(cache)) for part in parts}
    return {part: of_part for part, of_part in found.items() if of_part is not None}


def digest_of(cache: LogitCache) -> str | None:
    """What results name the teacher of a cache by; None if it is not known."""
    return teacher_digest(cache.manifest.identity["teacher"])


def _num_students(plan: LanguagePlan) -> int:
    """Of both kinds together."""
    return len(plan.seeds) * (2 if plan.settings.student.baseline else 1)
