"""What a network says of token samples, added up over all positions, some of which have logits at a time."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from decant.cache import Hidden, LogitCache, calibration_error
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.corpus.cached import require_same_samples
from decant.pipeline.language.batches import TeacherBatch, batches, plan_of, probe
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.dataset import targets_of
from decant.pipeline.language.memory import SETTING
from decant.pipeline.objectives import SparseTargets, TeacherHead, kd, sparse_kd
from decant.pipeline.training.background import prefetch
from decant.pipeline.training.device import OnHost

_BEHIND = 2
"""Batches that a GPU computes before the sums of the first are waited for."""


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

    def add(self, said: Iterable[OnHost]) -> None:
        """Adds what a network says of some positions, each time: `loss`, a sum, `right` and `confidence` (q,), and
        where there is a teacher `kl`, a mean, and `agreed`.
        """
        for each in said:
            found = each.wait()
            count = len(found["right"])
            self.count += count
            self.loss += float(found["loss"])
            self.right.append(found["right"].numpy())
            self.confidence.append(found["confidence"].numpy())
            self.kl += count * float(found.get("kl", 0.0))
            self.agreed += int(found.get("agreed", 0))

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
    made = (_compared(batch, cache, sums, model.device) for batch in batches(samples, planned))
    said = deque[list[OnHost]]()
    for batch, targets in prefetch(made) if model.device.type == "cuda" else made:
        with within():
            said.append(_say(model, batch, targets, head, setting))
        if len(said) > _BEHIND:
            sums.add(said.popleft())
        advance(int(samples.lengths[batch.samples].sum()))
    for each in said:
        sums.add(each)
    return sums


def _compared(
    batch: TeacherBatch, cache: LogitCache | None, sums: Tally, device: torch.device
) -> tuple[TeacherBatch, SparseTargets | Tensor | None]:
    """A batch on the device, with the teacher's rows of it, whose part of the sums is added."""
    if cache is None:
        return batch.to(device), None
    targets = targets_of(cache, batch.samples, batch.next_ids.numpy(), 0)
    sums.teacher_loss -= float(cache.next_log_prob(batch.samples, 0).astype("f8").sum())
    return batch.to(device), targets.to(device)


@torch.no_grad()
def _say(
    model: CausalModel,
    batch: TeacherBatch,
    targets: SparseTargets | Tensor | None,
    head: TeacherHead | None,
    setting: str,
) -> list[OnHost]:
    """What is said of some positions after others, on its way to the host: see `Tally.add`."""
    said, first = list[OnHost](), 0
    for logits in model.logits(model.hidden_at(batch, setting)):
        some = slice(first, first + len(logits))
        labels, likely = batch.next_ids[some], logits.argmax(1)
        found = {
            "loss": functional.cross_entropy(logits, labels, reduction="sum"),
            "right": likely == labels,
            "confidence": (logits.amax(1) - logits.logsumexp(1)).exp().clamp(max=1),
        }
        if targets is not None:
            theirs = targets[some]
            if isinstance(theirs, Tensor):
                theirs = theirs.float() if head is None else head.logits(theirs)
            found["kl"] = _kl(logits, theirs, labels)
            found["agreed"] = (likely == most_likely(theirs)).sum()
        said.append(OnHost(found))
        first = some.stop
    return said


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
