"""What a student's logits are compared with: its labels and its teacher, some rows at a time. Of a row one exponential
of each logit is taken, in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from decant.pipeline.objectives.chunked import rows_of_block
from decant.pipeline.objectives.fused.teachers import Teacher, exponentials
from decant.pipeline.objectives.terms import Terms


@dataclass(frozen=True)
class Batch:
    """What a loss compares with, of Q rows."""

    teacher: Teacher
    labels: Tensor
    """(Q,) int64, of which those without weight count for nothing."""
    hard_weights: Tensor
    """(Q,) what each row's cross-entropy counts in their mean."""
    soft_weights: Tensor
    """(Q,) what each row's divergence counts in their mean, T² included."""
    factors: tuple[float, float]
    """Of the two means in the total."""
    temperature: float

    def compare(self, logits: Tensor, rows: slice) -> tuple[Terms, Tensor]:
        """See `chunked.Compare`."""
        batch, height = self._some(rows), rows_of_block(logits)
        blocks = [slice(first, first + height) for first in range(0, max(1, len(logits)), height)]
        found = [batch._some(block)._compare(logits[block]) for block in blocks]
        entropies, divergences = map(torch.cat, zip(*found, strict=True))
        hard, soft = (batch.hard_weights * entropies).sum(), (batch.soft_weights * divergences).sum()
        return Terms(self.factors[0] * hard + self.factors[1] * soft, hard, soft), logits

    def _some(self, rows: slice) -> Batch:
        weights = self.hard_weights[rows], self.soft_weights[rows]
        return Batch(self.teacher.chunk(rows), self.labels[rows], *weights, self.factors, self.temperature)

    def _compare(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Cross-entropies (n,) and divergences (n,) of all rows, with logits (n, C), which become the gradients of the
        total by them.
        """
        hard_rows = self.factors[0] * self.hard_weights[:, None]
        soft_rows = self.factors[1] / self.temperature * self.soft_weights[:, None]
        labels = self.labels[:, None]
        of_label = logits.gather(1, labels)
        if self.temperature == 1.0:
            whole, divergences = self.teacher.compare(logits, hard_rows, soft_rows)
        else:
            tempered = logits / self.temperature
            _, divergences = self.teacher.compare(tempered, torch.zeros_like(hard_rows), soft_rows)
            whole, total = exponentials(logits)
            logits.mul_(hard_rows / total).add_(tempered)
        logits.scatter_add_(1, labels, -hard_rows)
        return (whole - of_label)[:, 0], divergences
