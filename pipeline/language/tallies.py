"""What a network says of token samples, added up over all positions, some of which have logits at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from decant.cache import Hidden, LogitCache, calibration_error
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.language.alignment import require_same_samples
from decant.pipeline.language.batches import TeacherBatch, batches, plan_of, probe
from decant.pipeline.language.dataset import targets_of
from decant.pipeline.language.head import CausalModel
from decant.pipeline.language.memory import SETTING
from decant.pipeline.objectives import SparseTargets, TeacherHead, kd, sparse_kd


@dataclass
class Tally:
    """Sums over positions; those that compare with a teacher are 0 where there is none."""

    count: int = 0
    """Q."""
    loss: float = 0.0
    """Of cross-entropies with the tokens that follow, in nats."""
    teacher_loss: float = 0.0
    """The same of the teacher, from what the cache recorded."""
    kl: float = 0.0
    """Of KL(teacher ‖ network) at T = 1."""
    agreed: int = 0
    """Positions at which both have the same most likely token."""
    confidence: list[NDArray[np.float32]] = field(default_factory=list)
    """The probability of the most likely token, some positions after the others."""
    right: list[NDArray[np.bool_]] = field(default_factory=list)
    """Whether that is the token that follows."""

    @property
    def perplexity(self) -> float:
        """exp of the mean cross-entropy; infinite where that is too large."""
        mean = self.loss / self.count
        return math.exp(mean) if mean < 700 else math.inf

    @property
    def accuracy(self) -> float:
        """The share of positions whose most likely token is the one that follows."""
        return float(np.concatenate(self.right).mean())

    @property
    def calibration_error(self) -> float:
        """See `decant.cache.calibration_error`."""
        right = np.concatenate(self.right).astype(np.float32)
        return calibration_error(np.concatenate(self.confidence), right)


def tally(
    network: nn.Module,
    samples: TokenSamples,
    num_outputs: int,
    cache: LogitCache | None = None,
    tokens_per_batch: int = 4096,
    advance: Callable[[int], object] = lambda tokens: None,
    within: Callable[[], AbstractContextManager[object]] = contextlib.nullcontext,
    setting: str = SETTING,
) -> Tally:
    """Runs a network over samples, in evaluation mode and where it is; with a cache of them it is compared with the
    teacher. advance: is called with the number of tokens after each batch. within: what the network is called in.
    setting: is named where memory runs out.

    Raises MismatchError where the cache is of other samples, ModelError as `CausalModel` does.
    """
    if cache is not None:
        require_same_samples(samples, cache)
    model, sums = CausalModel(network, num_outputs), Tally()
    of_hidden = cache is not None and isinstance(cache.manifest.encoding, Hidden)
    head = TeacherHead(cache.head) if cache is not None and of_hidden else None
    model.prepare(probe(samples))
    planned = itertools.chain.from_iterable(plan_of(samples, tokens_per_batch))
    for batch in batches(samples, planned):
        with within():
            _add(sums, model, batch, cache, head, setting)
        advance(int(samples.lengths[batch.samples].sum()))
    return sums


@torch.inference_mode()
def _add(
    sums: Tally,
    model: CausalModel,
    batch: TeacherBatch,
    cache: LogitCache | None,
    head: TeacherHead | None,
    setting: str,
) -> None:
    device = model.device
    hidden = model.hidden_at(batch, setting)
    labels, first = batch.next_ids.to(device), 0
    targets = None
    if cache is not None:
        targets = targets_of(cache, batch.samples, batch.next_ids.numpy(), 0).to(device)
        sums.teacher_loss -= float(cache.next_log_prob(batch.samples, 0).astype("f8").sum())
    sums.count += len(labels)
    for logits in model.logits(hidden):
        some = slice(first, first + len(logits))
        likely = logits.argmax(1)
        sums.loss += float(functional.cross_entropy(logits, labels[some], reduction="sum"))
        sums.right.append((likely == labels[some]).cpu().numpy())
        sums.confidence.append((logits.amax(1) - logits.logsumexp(1)).exp().clamp(max=1).cpu().numpy())
        if targets is not None:
            theirs = targets[some]
            if isinstance(theirs, Tensor):
                theirs = theirs.float() if head is None else head.logits(theirs)
            sums.kl += len(logits) * float(_kl(logits, theirs, labels[some]))
            sums.agreed += int((likely == most_likely(theirs)).sum())
        first = some.stop


def _kl(logits: Tensor, targets: SparseTargets | Tensor, labels: Tensor) -> Tensor:
    """Mean over the rows."""
    if isinstance(targets, Tensor):
        terms = kd(logits, targets, labels, alpha=1.0, temperature=1.0)
    else:
        terms = sparse_kd(logits, targets, labels, alpha=1.0, temperature=1.0)
    assert terms.soft is not None
    return terms.soft


def most_likely(targets: SparseTargets | Tensor) -> Tensor:
    """(q,) the teacher's most likely token; of draws the most likely of those that are stored."""
    if isinstance(targets, Tensor):
        return targets.argmax(1)
    return targets.ids.gather(1, targets.log_probs.argmax(1, keepdim=True))[:, 0]
