"""The metrics of a language model on a part of a recipe's texts."""

from __future__ import annotations

import math

import torch
from torch import nn

from decant.cache import LogitCache
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.language.tallies import tally
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.language.sources import Part
from decant.pipeline.support.progress import progress
from decant.pipeline.training.device import autocast
from decant.pipeline.training.group import ALONE, Group

TOKENS_PER_BATCH = 4096


def metrics_of(
    network: nn.Module,
    plan: LanguagePlan,
    part: Part,
    device: torch.device,
    *,
    cache: LogitCache | None = None,
    precision: str = "float32",
    group: Group = ALONE,
) -> Metrics:
    """The metrics of a network on the samples of a part, over all positions that are learnt from; with the `cache` of
    that part also those that compare it with the teacher. The network is left in evaluation mode. Rank 0 measures for
    all ranks.
    """
    return group.of_first(lambda: _metrics_of(network, plan, part, device, cache, precision))


def _metrics_of(
    network: nn.Module,
    plan: LanguagePlan,
    part: Part,
    device: torch.device,
    cache: LogitCache | None,
    precision: str,
) -> Metrics:
    samples, budget = plan.data.samples(part), plan.settings.student.tokens_per_batch or TOKENS_PER_BATCH
    network.to(device).eval()
    with progress("measuring", int(samples.lengths.sum())) as advance:
        found = tally(
            network,
            samples,
            plan.data.num_outputs,
            cache,
            budget,
            advance,
            lambda: autocast(device, precision),
            "student.tokens_per_batch",
        )
    metrics = Metrics(
        perplexity=found.perplexity,
        loss=found.loss / found.count,
        accuracy=found.accuracy,
        ece=found.calibration_error if math.isfinite(found.loss) else math.nan,
    )
    if cache is not None:
        metrics["kl"], metrics["agreement"] = found.kl / found.count, found.agreed / found.count
    return metrics
