"""The phases of any recipe: each function takes a plan of either kind, and calls the phase of that kind.

Phase one is in `cache_logits.py` and `cache_ranks.py`, which are the same for both. What a phase needs is imported when
it is called: to see how far the phases are takes no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from decant.cache import CheckInputs, LogitCache, Verify
from decant.pipeline.phases import soft_labels
from decant.pipeline.phases.given_caches import only, require_teacher
from decant.pipeline.phases.kinds import RecipePlan
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.runs.result import Result
from decant.pipeline.support.notices import say_once

if TYPE_CHECKING:
    import torch

    from decant.pipeline.phases.compact import Sizes
    from decant.pipeline.phases.cost import Estimate
    from decant.pipeline.phases.verify import Comparison
    from decant.pipeline.tracking.log_to import LogTo


def make_teacher(plan: RecipePlan, device: torch.device, log_to: LogTo | None = None) -> tuple[Result, bool]:
    """Phase zero: see `teacher.make_teacher`."""
    if isinstance(plan, LanguagePlan):
        from decant.pipeline.phases.language import teacher as of_tokens

        return of_tokens.make_teacher(plan, device, log_to)
    from decant.pipeline.phases import teacher

    return teacher.make_teacher(plan, device, log_to)


def train_students(
    plan: RecipePlan,
    device: torch.device,
    *,
    verify: Verify = "lazy",
    check_inputs: CheckInputs = "sample",
    log_to: LogTo | None = None,
    together: bool = False,
) -> Iterator[tuple[Result, bool]]:
    """Phase two: see `student.train_students`. Language models are never trained `together`, which is said."""
    if isinstance(plan, LanguagePlan):
        if together:
            say_once("--together: language models are trained one after the other: texts differ in length")
        from decant.pipeline.phases.language import student as of_tokens

        return of_tokens.train_students(plan, device, verify=verify, check_inputs=check_inputs, log_to=log_to)
    from decant.pipeline.phases import student

    return student.train_students(
        plan, device, verify=verify, check_inputs=check_inputs, log_to=log_to, together=together
    )


def evaluate_runs(plan: RecipePlan, device: torch.device) -> Iterator[Result]:
    """Finished networks, measured again: see `evaluate.evaluate_runs`."""
    if isinstance(plan, LanguagePlan):
        from decant.pipeline.phases.language import evaluate as of_tokens

        return of_tokens.evaluate_runs(plan, device)
    from decant.pipeline.phases import evaluate

    return evaluate.evaluate_runs(plan, device)


def estimate(plan: RecipePlan, device: torch.device, ranks: int | None = None) -> Estimate:
    """What a cache would cost: see `cost.estimate`."""
    if isinstance(plan, LanguagePlan):
        from decant.pipeline.phases.language import looking as of_tokens

        return of_tokens.estimate(plan, device, ranks)
    from decant.pipeline.phases import cost

    return cost.estimate(plan, device, ranks=ranks)


def survey(plan: RecipePlan, device: torch.device) -> Sizes:
    """What sparse rows of several sizes leave out: see `compact.survey`."""
    if isinstance(plan, LanguagePlan):
        from decant.pipeline.phases.language import looking as of_tokens

        return of_tokens.survey(plan, device)
    from decant.pipeline.phases import compact

    return compact.survey(plan, device)


def compare_with_teacher(plan: RecipePlan, rows: int, device: torch.device) -> Comparison:
    """Some rows of a cache, computed again: see `verify.compare_with_teacher`. Of the file of `cache.from`, where a
    recipe names one, if it is of the recipe's teacher. Raises MismatchError and RecipeError where it is not.
    """
    path = None
    if plan.settings.cache.from_ is not None:
        path = require_teacher(only(open_given_caches(plan)), plan.manifest)
    if isinstance(plan, LanguagePlan):
        from decant.pipeline.phases.language import looking as of_tokens

        return of_tokens.compare_with_teacher(plan, rows, device, path=path)
    from decant.pipeline.phases import verify

    return verify.compare_with_teacher(plan, rows, device, path=path)


def open_given_caches(plan: RecipePlan) -> list[LogitCache]:
    """The files of `cache.from`, in order, without a look at their checksums. Raises MismatchError if one is of other
    data.
    """
    if isinstance(plan, LanguagePlan):
        return [plan.open_cache(verify="off")]
    return soft_labels.open_given_caches(plan, "off")


def cache_key(plan: RecipePlan, caches: Sequence[LogitCache]) -> str:
    """The key of what distilled students are trained from, of the caches of a plan."""
    if isinstance(plan, LanguagePlan):
        return caches[0].manifest.key
    return soft_labels.combine(plan.settings, list(caches)).manifest.key
