"""What a student's softmax is compared with, a block of rows at a time: each kind turns the student's logits into the
gradients of the divergence in place, and says the divergences.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from decant.pipeline.objectives.fused.hidden_targets import HiddenTargets
from decant.pipeline.objectives.sparse.targets import Shares


class Compared(NamedTuple):
    """What is said of a block of n rows."""

    log_sum_exp: Tensor
    """(n, 1) of the student's logits / T."""
    divergences: Tensor
    """(n,) of the student's softmax at T from the teacher's."""


class Teacher(ABC):
    """The softmaxes of Q rows at one temperature."""

    @abstractmethod
    def chunk(self, rows: slice) -> Teacher:
        """Those of some rows, with all that is to be computed of them at once; of a chunk, a part of it."""

    @abstractmethod
    def compare(self, tempered: Tensor, hard_rows: Tensor, soft_rows: Tensor) -> Compared:
        """Turns logits (n, C), divided by T, into soft_rows·(the divergence's gradients by them) + hard_rows·softmax of
        them, in place. hard_rows, soft_rows: (n, 1).
        """


@dataclass(frozen=True)
class SparseTeacher(Teacher):
    """Some outputs of each row, and perhaps the mass of all others."""

    ids: Tensor
    """(Q, k)."""
    shares: Shares

    def chunk(self, rows: slice) -> SparseTeacher:
        """See `Teacher`."""
        log_probs, weights, log_tail = self.shares
        some = Shares(log_probs[rows], weights[rows], None if log_tail is None else log_tail[rows])
        return SparseTeacher(self.ids[rows], some)

    def compare(self, tempered: Tensor, hard_rows: Tensor, soft_rows: Tensor) -> Compared:
        """See `Teacher`. Without a tail what is stored stands for all."""
        if self.shares.log_tail is not None:
            return self._with_tail(tempered, self.shares.log_tail[:, None], hard_rows, soft_rows)
        log_p, weights, _ = self.shares
        of_stored = tempered.gather(1, self.ids)
        whole, total = exponentials(tempered)
        divergences = (weights * (log_p - (of_stored - whole))).sum(dim=1)
        tempered.mul_((hard_rows + soft_rows * weights.sum(dim=1, keepdim=True)) / total)
        tempered.scatter_add_(1, self.ids, -soft_rows * weights)
        return Compared(whole, divergences)

    def _with_tail(
        self, tempered: Tensor, log_tail: Tensor, hard_rows: Tensor, soft_rows: Tensor
    ) -> Compared:
        log_p, weights, _ = self.shares
        of_stored = tempered.gather(1, self.ids)
        # Relative to the largest of the others: their sum is 1 at least, however sure a student is of what is stored.
        others, rest = exponentials(tempered.scatter_(1, self.ids, -math.inf))
        whole = torch.logaddexp(others, of_stored.logsumexp(dim=1, keepdim=True))
        log_q, log_rho, tail = of_stored - whole, others - whole, log_tail.exp()
        divergences = (weights * (log_p - log_q)).sum(dim=1) + (tail * (log_tail - log_rho))[:, 0]
        both = hard_rows + soft_rows * (weights.sum(dim=1, keepdim=True) + tail)
        # Of an output that is not stored, e^(s − others) is its share of them: no quotient of two masses can overflow.
        tempered.mul_((both * log_rho.exp() - soft_rows * tail) / rest)
        tempered.scatter_(1, self.ids, both * log_q.exp() - soft_rows * weights)
        return Compared(whole, divergences)


@dataclass(frozen=True)
class DenseTeacher(Teacher):
    """All logits of each row."""

    logits: Tensor
    """(Q, C)."""
    temperature: float

    def chunk(self, rows: slice) -> DenseTeacher:
        """See `Teacher`."""
        return DenseTeacher(self.logits[rows], self.temperature)

    def compare(self, tempered: Tensor, hard_rows: Tensor, soft_rows: Tensor) -> Compared:
        """See `Teacher`: KL of both softmaxes."""
        log_p = self.logits.to(tempered.dtype) / self.temperature
        log_p -= log_p.amax(dim=1, keepdim=True)
        p = log_p.exp()
        mass = p.sum(dim=1, keepdim=True)
        p /= mass
        most = tempered.amax(dim=1, keepdim=True)
        log_p -= tempered.sub_(most)  # log (p/q), but for two sums
        total = tempered.exp_().sum(dim=1, keepdim=True)
        divergences = log_p.mul_(p).sum(dim=1) + (total.log() - mass.log())[:, 0]
        tempered.mul_((hard_rows + soft_rows) / total).sub_(p.mul_(soft_rows))
        return Compared(most + total.log(), divergences)


@dataclass(frozen=True)
class HiddenTeacher(Teacher):
    """Hidden states of each row, of which a chunk's logits are made."""

    targets: HiddenTargets
    temperature: float
    dtype: torch.dtype
    """What the logits are computed in."""

    def chunk(self, rows: slice) -> DenseTeacher:
        """See `Teacher`."""
        return DenseTeacher(self.targets[rows].logits(self.dtype), self.temperature)

    def compare(self, tempered: Tensor, hard_rows: Tensor, soft_rows: Tensor) -> Compared:
        """See `Teacher`."""
        return self.chunk(slice(None)).compare(tempered, hard_rows, soft_rows)


def exponentials(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(n, 1) and (n, 1): the log-sum-exp of each row, and the sum of e^(z − max z), which logits (n, C) become."""
    most = logits.amax(dim=1, keepdim=True)
    total = logits.sub_(most).exp_().sum(dim=1, keepdim=True)
    return most + total.log(), total
