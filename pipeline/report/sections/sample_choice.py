"""Which samples the inspector shows and why, and which labels are likely wrong."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from decant.cache import LogitSource, row_chunks
from decant.pipeline.data.samples import spread
from decant.pipeline.report.sections.cached import probabilities_of
from decant.pipeline.support.progress import track

MAX_VALUES = 2_000_000_000
"""The most probabilities that `judge` reads: those of all samples, in as many views as that allows."""

REASONS = {
    "label": "likely label errors, the widest margin first",
    "differ": "where teacher and student differ most",
    "unsure": "where the teacher is least sure",
    "spread": "samples at even distances",
}
"""Why a sample is shown; each in turn gives its next one."""


@dataclass(frozen=True)
class Judged:
    """The teacher's probabilities of every sample at T = 1, as means over views."""

    views: int
    """The number of views that were read."""
    labels: NDArray[np.int64]
    """(N,), −1 if there is none."""
    entropy: NDArray[np.float32]
    """(N,) nats."""
    answer: NDArray[np.int64]
    """(N,) the class of the largest mean probability."""
    answer_share: NDArray[np.float32]
    """(N,) that probability."""
    label_share: NDArray[np.float32]
    """(N,) the mean probability of the label, NaN if there is none."""
    thresholds: NDArray[np.float64]
    """(C,) the mean label_share of each class's samples; infinite if there are none."""

    @property
    def label_errors(self) -> NDArray[np.intp]:
        """Samples whose label is likely wrong, the widest margin first: the teacher predicts another class, with at
        least its average confidence in that class's own samples.

        The rule of Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels" (2021),
        section 3, for the most likely class alone. A teacher that has memorised its labels finds no errors.
        """
        doubted = (self.labels >= 0) & (self.answer != self.labels)
        likely_wrong = np.flatnonzero(doubted & (self.answer_share >= self.thresholds[self.answer]))
        return likely_wrong[np.argsort(-(self.answer_share - self.label_share)[likely_wrong], kind="stable")]


def judge(cache: LogitSource) -> Judged:
    """Reads the soft labels of every sample. Raises CorruptError."""
    count, classes = cache.num_samples, cache.num_outputs
    views = int(np.clip(MAX_VALUES // (count * classes), 1, cache.num_views))
    labels = np.asarray(cache.labels)
    entropy, share = np.zeros(count, np.float32), np.zeros(count, np.float32)
    answer, label_share = np.zeros(count, np.int64), np.full(count, np.nan, np.float32)
    for rows in track(list(row_chunks(count)), "reading soft labels"):
        indices = np.arange(count)[rows]
        mean = np.zeros((len(indices), classes), np.float32)
        for view in range(views):
            probabilities = probabilities_of(cache, indices, view, 1.0)
            mean += probabilities / views
            entropy[rows] -= np.sum(probabilities * np.log(np.maximum(probabilities, 1e-30)), axis=1) / views
        answer[rows], share[rows] = mean.argmax(1), mean.max(1)
        own, known = np.full(len(indices), np.nan, np.float32), labels[rows] >= 0
        own[known] = mean[known, labels[rows][known]]
        label_share[rows] = own
    labelled = labels >= 0
    totals = np.bincount(labels[labelled], minlength=classes)
    sums = np.bincount(labels[labelled], label_share[labelled].astype(np.float64), minlength=classes)
    thresholds = np.divide(sums, totals, out=np.full(classes, np.inf), where=totals > 0)
    return Judged(views, labels, entropy, answer, share, label_share, thresholds)


def divergence(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """(B,) Jensen–Shannon divergence of probabilities (B, C), in nats: 0 where they agree, log 2 at most. Lin,
    "Divergence Measures Based on the Shannon Entropy" (1991).
    """
    first, second = one.astype(np.float64), other.astype(np.float64)
    middle = (first + second) / 2
    return (_relative_entropy(first, middle) + _relative_entropy(second, middle)) / 2


def choose(
    judged: Judged, pool: NDArray[np.integer], differs: NDArray[np.floating] | None, count: int
) -> dict[int, str]:
    """Chooses at most `count` indices, each with the reason, in the order in which they are chosen.

    pool (P,): the indices that the student was run on; differs (P,): its divergence from the teacher there.
    """
    queues: dict[str, Sequence[int]] = {
        "label": judged.label_errors[:count].tolist(),
        "differ": [] if differs is None else pool[np.argsort(-differs, kind="stable")[:count]].tolist(),
        "unsure": np.argsort(-judged.entropy, kind="stable")[:count].tolist(),
        "spread": spread(len(judged.labels), count).tolist(),
    }
    chosen: dict[int, str] = {}
    for turn in itertools.zip_longest(
        *([(index, reason) for index in some] for reason, some in queues.items())
    ):
        for index, reason in filter(None, turn):
            if len(chosen) < count:
                chosen.setdefault(index, reason)
    return chosen


def _relative_entropy(shares: NDArray[np.float64], of: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.divide(shares, of, out=np.ones_like(shares), where=shares > 0)
    entropy: NDArray[np.float64] = np.sum(shares * np.log(ratio), axis=1)
    return np.maximum(entropy, 0)
