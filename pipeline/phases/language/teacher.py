"""Phase zero of a language model: texts → trained teacher, or one that is taken as it is."""

from __future__ import annotations

import time
from functools import partial

import torch

from decant.pipeline.corpus import load_tokenizer, tokenizer_identity
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.language.loading import load_causal_network
from decant.pipeline.networks.build import num_parameters
from decant.pipeline.networks.causal import ELSEWHERE
from decant.pipeline.networks.weights import weights_sha256
from decant.pipeline.phases.joined_ranks import compare_data, join_ranks, training_group
from decant.pipeline.phases.language.job import TokenJob, train_network
from decant.pipeline.phases.language.measuring import metrics_of
from decant.pipeline.phases.language.networks import initial_weights, teacher_spec
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.student import require_trainable
from decant.pipeline.phases.untrainable import say_if_untrainable
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_recipe import save_recipe
from decant.pipeline.support.notices import say
from decant.pipeline.tracking.log_to import LogTo


def make_teacher(
    plan: LanguagePlan, device: torch.device, log_to: LogTo | None = None
) -> tuple[Result, bool]:
    """Returns the teacher of a recipe, and whether it was finished before.

    Trains it on the tokens of the training part, or, with `epochs = 0`, takes it as it is: it is measured, and its
    weights stay where they are. The ranks of a job train it together. Raises ModelError, WeightsError and DataError.
    """
    ranks = join_ranks(plan, device)
    compare_data(ranks, plan.data.teacher_fingerprints)
    with training_group(ranks, device) as group:
        result = group.of_first(plan.load_teacher)
        if result is not None:
            return result, True
        if group.is_first:
            plan.data.say_what_is_shared()
        say_if_untrainable(partial(require_trainable, plan))
        if not plan.settings.teacher.epochs:
            return group.of_first(lambda: _taken(plan, device)), False
        spec = teacher_spec(plan)
        job = TokenJob(
            kind="teacher",
            spec=spec,
            settings=plan.settings.teacher,
            samples=plan.data.samples("train"),
            cache=None,
            folder=plan.teacher_folder,
            load_initial_weights=initial_weights(plan, spec),
        )
        return train_network(job, plan, device, log_to=log_to, group=group)


def _taken(plan: LanguagePlan, device: torch.device) -> Result:
    """A teacher that is used with the weights that it has."""
    with alone_with(plan.teacher_folder):
        found = plan.load_teacher()  # another process may have taken it while this one waited
        if found is not None:
            return found
        started, spec = time.perf_counter(), teacher_spec(plan)
        network = load_causal_network(spec.name.removeprefix(ELSEWHERE))
        _require_own_tokens(plan)
        state = network.state_dict()
        save_recipe(plan.teacher_folder, plan.recipe)
        result = Result(
            kind="teacher",
            network=spec,
            seed=plan.settings.teacher.seed,
            parameters=num_parameters(network),
            weights_bytes=sum(value.nbytes for value in network.parameters()),
            weights_sha256=weights_sha256(state),
            metrics=metrics_of(
                network.to(getattr(torch, plan.settings.cache.precision)), plan, "test", device
            ),
            test_sha256=plan.data.digest("test"),
            seconds=time.perf_counter() - started,
            folder=plan.teacher_folder,
        )
        result.save()
        return result


def _require_own_tokens(plan: LanguagePlan) -> None:
    """Raises ModelError where texts are not of the tokens that the teacher was trained on. Of a folder without a
    tokenizer that is not known, which is said.
    """
    name = plan.settings.teacher.network.name.removeprefix(ELSEWHERE)
    if plan.settings.data.tokenizer is None:
        return  # the texts are of its own
    try:
        own = load_tokenizer(name)
    except DataError:
        say(
            f"warning: {name}: has no tokenizer that can be loaded, so data.tokenizer "
            f"{plan.settings.data.tokenizer!r} is taken for the one that it was trained with"
        )
        return
    if tokenizer_identity(own)["vocabulary"] != tokenizer_identity(plan.data.tokenizer)["vocabulary"]:
        raise ModelError(
            f"data.tokenizer: {plan.settings.data.tokenizer!r} has another vocabulary than the teacher's own "
            "tokenizer, and its outputs are of that one's tokens; leave data.tokenizer out, or train the teacher, with "
            "teacher.epochs"
        )
