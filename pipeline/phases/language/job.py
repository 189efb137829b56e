"""Training one language model: built, trained, measured and saved; `result.json` is written last."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from decant.cache import LogitCache
from decant.pipeline.config.objectives import Objective
from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.errors import ModelError
from decant.pipeline.language import criteria
from decant.pipeline.language.blocks import computed_tokens
from decant.pipeline.language.training import CausalCall, TokenBatches
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.attempts import found_or_trained
from decant.pipeline.phases.finished_job import save_finished
from decant.pipeline.phases.language.measuring import TOKENS_PER_BATCH, metrics_of
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.sources import Part
from decant.pipeline.runs.latency import timed
from decant.pipeline.runs.result import Kind, Result, load_result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.runs.saved_recipe import keep_data_settings, save_recipe
from decant.pipeline.support.notices import say, say_once
from decant.pipeline.support.plugins import in_words
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.divergence import require_finite, section_of
from decant.pipeline.training.epoch_log import CHECKPOINT
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.loop import train
from decant.pipeline.training.token_keys import TokenKeys


@dataclass(frozen=True)
class TokenJob:
    """Everything that decides a language model: its spec, what it is trained on and how, and where it is kept."""

    kind: Kind
    spec: NetworkSpec
    settings: Training
    samples: TokenSamples
    folder: Path
    cache: LogitCache | None = None
    """What a distilled student learns from; None of others, which learn from the tokens alone."""
    objective: Objective | None = None
    """The loss of a distilled student."""
    load_initial_weights: Callable[[nn.Module], None] | None = None
    """Loads weights into the network before it is trained; None keeps those that are drawn from the seed."""
    held_out: Mapping[Part, LogitCache] = field(default_factory=dict)
    """Of parts that it is measured on, what its teacher says of them, where it is to be compared with that."""
    measured_on: Collection[Part] = ("validation", "test")
    """The parts that it is measured on, as far as there are. The result of one without the test part says nothing of
    that until a later call has it.
    """
    origin: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a distilled student's result that name what it is trained from: objective, cache, teacher, baseline."""

    def check_unchanged(self, checksums: bool) -> None:
        """Raises CorruptError where what it is trained on is not what it was; with True also by checksums."""
        self.samples.corpus.check_unchanged(checksums=checksums)
        if self.cache is not None:
            self.cache.check_unchanged(checksums=checksums)

    @property
    def criterion(self) -> Callable[..., Any]:
        """The loss. Raises RecipeError for an objective that the cache does not suffice for."""
        if self.cache is None or self.objective is None:
            return criteria.from_labels
        return criteria.from_cache(self.objective, self.cache)

    @property
    def tokens_per_batch(self) -> int:
        """Tokens in a batch, with padding."""
        return self.settings.tokens_per_batch or TOKENS_PER_BATCH

    def views(self, indices: NDArray[np.integer], epoch: int) -> NDArray[np.int64]:
        """(B,) which draws of each sample's rows an epoch reads."""
        count = 1 if self.cache is None else self.cache.num_views
        return np.full(len(indices), epoch % count, np.int64)


def find_result(job: TokenJob, plan: LanguagePlan, device: torch.device) -> Result | None:
    """The finished network of a job, with metrics on the parts as they are now; None if it is not finished. If its
    metrics are of other texts, or were not compared with the teacher and now are to be, it is measured again.
    """
    result = load_result(job.folder)
    if result is None:
        return None
    with contextlib.suppress(OSError):  # another person's run
        (job.folder / CHECKPOINT).unlink(missing_ok=True)  # left by a kill just after the result was written
    recorded = {
        "test": (result.test_sha256, result.metrics),
        "validation": (result.validation_sha256, result.validation or {}),
    }
    measured, stale = _measured(job, plan), set[Part]()
    for part in measured:
        digest, metrics = recorded[part]
        if digest != plan.data.digest(part) or (part in job.held_out and "kl" not in metrics):
            stale.add(part)
    if "test" in measured or not result.is_tested:
        # else a report would take metrics of other texts for those of these
        keep_data_settings(job.folder, plan.recipe)
    if not stale:
        return result
    network = load_network(result)
    result = replace(result, **_on_parts(job, plan, network, device, stale))
    result.save()
    return result


def train_network(
    job: TokenJob,
    plan: LanguagePlan,
    device: torch.device,
    log_to: LogTo | None = None,
    group: Group = ALONE,
) -> tuple[Result, bool]:
    """Trains the network of a job, from its checkpoint if training was interrupted; returns its result, and whether
    another process had finished it.

    The folder then has the weights, the metrics of each epoch, the resolved recipe, and the result. Epochs are measured
    on the validation part where there is one. Several ranks must all call it; rank 0 writes, all get the result.
    """
    return found_or_trained(
        job.folder,
        lambda: find_result(job, plan, device),
        lambda: _train(job, plan, device, log_to or LogTo(), group),
        group,
    )


def _train(job: TokenJob, plan: LanguagePlan, device: torch.device, log_to: LogTo, group: Group) -> Result:
    settings, samples = job.settings, job.samples
    data, criterion = TokenBatches(samples, job.cache), job.criterion
    network = build_network(job.spec, settings.seed)
    if job.load_initial_weights is not None:
        job.load_initial_weights(network)
    network.to(device)
    if group.is_first:
        save_recipe(job.folder, plan.recipe)
    each_epoch: Part = "validation" if "validation" in plan.data.parts else "test"
    description = f"{job.kind} {job.spec}, seed {settings.seed}"
    keys = TokenKeys(
        computed_tokens(samples),
        samples.num_positions,
        job.tokens_per_batch,
        settings.seed,
        job.views,
        group,
    )
    _say_undivided(keys, settings)
    with (log_to if group.is_first else LogTo()).run(description, plan.recipe, job.folder) as log:
        kept_epoch = train(
            network,
            data,
            criterion,
            settings,
            job.folder,
            views=job.views,
            keys=keys,
            call=CausalCall(network, samples, job.spec.num_classes),
            evaluate_on=lambda net: metrics_of(
                net,
                plan,
                each_epoch,
                device,
                cache=job.held_out.get(each_epoch),
                precision=settings.precision,
                group=group,
            ),
            measured_on="test" if each_epoch == "test" else "validation",
            device=device,
            description=description,
            check_unchanged=lambda: job.check_unchanged(False),
            log=log,
            group=group,
        )
    measured = _on_parts(job, plan, network, device, _measured(job, plan), group)
    return group.of_first(lambda: _save(job, plan, network, measured, device, kept_epoch))


def _say_undivided(keys: TokenKeys, settings: Training) -> None:
    if keys.undivided and keys.group.is_first:
        say_once(
            f"{section_of(settings)}.tokens_per_batch: is of all {keys.group.count:,} ranks together, and "
            f"{keys.undivided:,} of {len(keys):,} batches have fewer samples than that: each rank computes them whole; "
            "set it higher"
        )


def _save(
    job: TokenJob,
    plan: LanguagePlan,
    network: nn.Module,
    measured: Mapping[str, Any],
    device: torch.device,
    kept_epoch: int,
) -> Result:
    """Saves weights and then the result of a trained network, and removes its checkpoint."""
    require_finite(
        next(measured[name] for name in ("metrics", "validation") if name in measured),
        job.settings.epochs,
        job.settings,
        job.folder,
    )
    return save_finished(
        job,
        network,
        device,
        kept_epoch,
        latency_ms=lambda: latency_of(network, plan, device),
        **{"metrics": Metrics(), "test_sha256": "", **measured},
    )


def _measured(job: TokenJob, plan: LanguagePlan) -> set[Part]:
    """The parts that there are of those that a network is measured on."""
    return {part for part in plan.data.parts if part in job.measured_on}


def _on_parts(
    job: TokenJob,
    plan: LanguagePlan,
    network: nn.Module,
    device: torch.device,
    parts: set[Part],
    group: Group = ALONE,
) -> dict[str, Any]:
    """The fields of a result that are of some parts."""
    fields: dict[str, Any] = {}
    for part in sorted(parts):
        metrics: Metrics = metrics_of(network, plan, part, device, cache=job.held_out.get(part), group=group)
        fields["metrics" if part == "test" else "validation"] = metrics
        fields[f"{part}_sha256"] = plan.data.digest(part)
    return fields


@torch.inference_mode()
def latency_of(network: nn.Module, plan: LanguagePlan, device: torch.device) -> float | None:
    """Milliseconds for a sample of the most tokens, at batch size 1; None, which is said, where that fails."""
    ids = torch.zeros(1, plan.data.max_length, dtype=torch.int64, device=device)
    network.eval()
    try:
        return timed(lambda: network(input_ids=ids).logits[:, -1].cpu()).median
    except (RuntimeError, ValueError, TypeError, ModelError) as error:
        say(f"warning: its latency is not known: {in_words(error)}")
        return None
