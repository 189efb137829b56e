"""What a student says of held-out tokens, beside what its teacher said."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from decant.cache import Hidden, LogitCache, Sparse, calibration_error
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.errors import DataError
from decant.pipeline.language.alignment import require_aligned, require_same_samples
from decant.pipeline.language.batches import TeacherBatch, batches, plan
from decant.pipeline.language.caching import probe
from decant.pipeline.language.head import CausalModel
from decant.pipeline.objectives import SparseTargets, TeacherHead, kd, sparse_kd
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.support.progress import progress


@dataclass(frozen=True)
class Measures:
    """Means over all positions of some samples."""

    positions: int
    """Q, tokens that were predicted."""
    perplexity: float
    """exp of the student's mean cross-entropy with the tokens that follow."""
    teacher_perplexity: float
    """The same of the teacher, from what the cache recorded."""
    kl: float
    """Mean KL(teacher ‖ student) at T = 1, in nats; of sparse rows a lower bound, see `SparseTargets`."""
    accuracy: float
    """At what share of the positions the student's most likely token is the one that follows."""
    agreement: float
    """At what share it is the teacher's most likely one."""
    calibration_error: float
    """How far the probability of the most likely token is from the share of hits among positions of that probability,
    in 15 bins: `decant.cache.calibration_error`."""


def measure(
    student: nn.Module,
    samples: TokenSamples,
    cache: LogitCache,
    *,
    tokens_per_batch: int = 4096,
    device: str | torch.device | None = None,
    show_progress: bool = True,
) -> Measures:
    """Runs a student in evaluation mode over the samples of a cache, and compares it with the tokens and the teacher.

    The logits of all positions never exist together; outputs beyond the teacher's C are left out. A student is measured
    on samples that neither it nor the teacher was trained on. Raises what `cache_logits` does, and MismatchError where
    the cache is of other samples.
    """
    if tokens_per_batch < 1:
        raise DataError(f"tokens_per_batch: expected 1 or more, found {tokens_per_batch}")
    require_same_samples(samples, cache)
    model, sums = CausalModel(student, cache.num_outputs), _Sums()
    head = TeacherHead(cache.head) if isinstance(cache.manifest.encoding, Hidden) else None
    total = int(samples.lengths.sum())
    with (
        teachers.evaluating(student, teachers.device_of(student, device)),
        progress("measuring", total, silent=not show_progress) as advance,
    ):
        model.prepare(probe(samples))
        planned = itertools.chain.from_iterable(plan(samples.lengths, tokens_per_batch))
        for batch in batches(samples, planned):
            _add(sums, model, cache, batch, head)
            advance(int(samples.lengths[batch.samples].sum()))
    return sums.measures()


class _Sums:
    """Of each measure over positions."""

    def __init__(self) -> None:
        self.count = 0
        self.loss = self.teacher_loss = self.kl = self.agreed = 0.0
        self.confidence: list[NDArray[np.float32]] = []
        self.right: list[NDArray[np.bool_]] = []

    def measures(self) -> Measures:
        count = self.count
        confidence, right = np.concatenate(self.confidence), np.concatenate(self.right)
        return Measures(
            count,
            math.exp(self.loss / count),
            math.exp(self.teacher_loss / count),
            self.kl / count,
            float(right.mean()),
            self.agreed / count,
            calibration_error(confidence, right.astype(np.float32)),
        )


@torch.inference_mode()
def _add(
    sums: _Sums, model: CausalModel, cache: LogitCache, batch: TeacherBatch, head: TeacherHead | None
) -> None:
    device = model.device
    hidden = model.hidden(batch.ids.to(device), batch.mask.to(device)).flatten(0, 1)[batch.places.to(device)]
    labels, first = batch.next_ids.to(device), 0
    targets = _targets(cache, batch, device)
    sums.teacher_loss -= float(cache.next_log_prob(batch.samples, 0).astype("f8").sum())
    sums.count += len(labels)
    for logits in model.logits(hidden):
        some = slice(first, first + len(logits))
        likely, theirs = logits.argmax(1), targets[some]
        if head is not None and isinstance(theirs, Tensor):
            theirs = head.logits(theirs)
        sums.loss += float(functional.cross_entropy(logits, labels[some], reduction="sum"))
        sums.kl += len(logits) * float(_kl(logits, theirs, labels[some]))
        sums.right.append((likely == labels[some]).cpu().numpy())
        sums.confidence.append((logits.amax(1) - logits.logsumexp(1)).exp().clamp(max=1).cpu().numpy())
        sums.agreed += int((likely == _most_likely(theirs)).sum())
        first = some.stop


def _targets(cache: LogitCache, batch: TeacherBatch, device: torch.device) -> SparseTargets | Tensor:
    encoding = cache.manifest.encoding
    if isinstance(encoding, Hidden):
        return torch.from_numpy(np.array(cache.hidden(batch.samples, 0))).to(device)
    if not isinstance(encoding, Sparse):
        return torch.from_numpy(np.array(cache.logits(batch.samples, 0), np.float32)).to(device)
    rows = cache.rows(batch.samples, 0)
    require_aligned(cache, batch.samples, rows, batch.next_ids.numpy(), cache.next_log_prob(batch.samples, 0))
    return SparseTargets.from_rows(rows, encoding, cache.num_outputs, device)


def _kl(logits: Tensor, targets: SparseTargets | Tensor, labels: Tensor) -> Tensor:
    """Mean over the rows."""
    if isinstance(targets, Tensor):
        terms = kd(logits, targets, labels, alpha=1.0, temperature=1.0)
    else:
        terms = sparse_kd(logits, targets, labels, alpha=1.0, temperature=1.0)
    assert terms.soft is not None
    return terms.soft


def _most_likely(targets: SparseTargets | Tensor) -> Tensor:
    """(q,) the teacher's most likely token; of draws the most likely of those that are stored."""
    if isinstance(targets, Tensor):
        return targets.argmax(1)
    return targets.ids.gather(1, targets.log_probs.argmax(1, keepdim=True))[:, 0]
