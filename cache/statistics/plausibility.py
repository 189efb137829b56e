"""Whether rows can be the logits of a trained teacher: what is likely wrong with them, in words, with the evidence.

Nothing here is certain, so nothing is refused. The rows of a regression are never doubted.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings.half import as_float32
from decant.cache.labels import is_one_hot
from decant.cache.manifest import Manifest
from decant.cache.reader import LogitCache
from decant.cache.statistics.class_order import doubt_class_order
from decant.cache.statistics.positions import doubts_of_positions

_ROWS, _BYTES = 4096, 1 << 26  # that are read of a cache at most
_ENOUGH = 20  # samples, below which nothing is said about a teacher's answers
_ERRORS = 2.0  # standard errors of an accuracy that is no better than chance
_MANY = 8
"""Classes, of which a row without spread is no chance; of fewer, a tie or a row of dead units can be."""
_ROUNDING = 2e-3  # of a sum of probabilities that were rounded to float16
_AFTER_SIGMOID = (
    "every value is between 0 and 1, as sigmoid gives: give the outputs before it, or their logits"
)


class Accuracy(NamedTuple):
    """How often a teacher's answers are the labels, and how often they would be by chance.

    >>> Accuracy(samples=1000, top1=0.11, chance=0.1, num_labels=10).is_chance
    True
    """

    samples: int
    """The number of rows with a label."""
    top1: float
    chance: float
    """The sum, over the classes, of their share of the answers times their share of the labels."""
    num_labels: int
    """The number of different labels."""

    @property
    def margin(self) -> float:
        """Two standard errors of the accuracy of guesses; 0 of few samples, whose error is not known."""
        if self.samples < _ENOUGH:
            return 0.0
        return _ERRORS * math.sqrt(self.chance * (1 - self.chance) / self.samples)

    @property
    def is_chance(self) -> bool:
        """Whether top-1 is no better than chance, within the margin; False of few samples."""
        return self.samples >= _ENOUGH and self.num_labels > 1 and self.top1 <= self.chance + self.margin


def doubts(cache: LogitCache) -> list[str]:
    """What is likely wrong with the rows of a cache, from at most 4,096 rows of view 0 at even distances.

    >>> import tempfile
    >>> from decant.cache import Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> labels = np.arange(60) % 3
    >>> path = import_logits(Store(folder.name), 5.0 * np.eye(3)[labels] - 1, labels, teacher={}, data={"name": "toy"})
    >>> doubts(LogitCache.open(path))
    []
    >>> folder.cleanup()
    """
    if cache.has_positions:
        return doubts_of_positions(cache)
    rows, logits = _some_rows(cache)
    labels = cache.labels[rows]
    found = doubts_of_rows(cache.manifest, logits)
    if cache.manifest.num_targets is not None or found:
        return found
    found = [text for text in _without_spread(logits) if len(rows) >= _ENOUGH]
    if cache.num_outputs == 1 and labels.max(initial=-1) == 1:
        return [
            *found,
            "labels are 0 and 1, and there is one logit, which is of a sigmoid and not of a softmax: say --task binary "
            '(in Python data={"task": "binary"}, and labels (N, 1) as floats)',
        ]
    if labels.max(initial=-1) >= cache.num_outputs:
        return [
            *found,
            f"labels go up to {labels.max()}, and there are {cache.num_outputs:,} classes: they count from 0",
        ]
    accuracy = accuracy_of(logits, labels)
    exchanged = doubt_class_order(logits, labels, cache.manifest.identity["data"].get("classes"))
    if not found and accuracy is not None and (accuracy.is_chance or exchanged):
        found.append(
            f"top-1 is {accuracy.top1:.2%} on {accuracy.samples:,} samples, and chance is {accuracy.chance:.2%}: "
            + (
                exchanged
                or "likely causes are a shuffled loader (rows that belong to other samples), classes in another order, "
                "or a teacher that was never trained"
            )
        )
    elif (
        not found
        and len(rows) >= _ENOUGH
        and cache.num_outputs > 1
        and (accuracy is None or accuracy.num_labels > 1)
    ):
        answers = np.unique(logits.argmax(axis=1))
        if len(answers) == 1:
            found.append(f"class {answers[0]} is the teacher's answer for all of {len(rows):,} samples")
    return found


def doubts_of_rows(manifest: Manifest, logits: NDArray[np.floating]) -> list[str]:
    """What is likely wrong with raw outputs (B, C) as such: at most one thing.

    >>> manifest = Manifest.build(num_samples=9, num_outputs=2)
    >>> doubts_of_rows(manifest, np.float32([[0.3, 0.7], [0.9, 0.1]]))
    ['every row is 0 or more and sums to 1, as probabilities do: give the outputs before softmax, or their logarithm']
    >>> doubts_of_rows(manifest, np.log(np.float32([[0.3, 0.7], [0.9, 0.1]])))
    []
    """
    if manifest.has_sigmoids:
        return [_AFTER_SIGMOID] if _are_shares(logits) else []
    if manifest.num_targets is not None or manifest.num_outputs < 2 or not len(logits):
        return []
    if are_probabilities(logits):
        if is_one_hot(logits):
            return ["every row is one-hot, which is a label and no logits"]
        advice = "give the outputs before softmax, or their logarithm"
        return [f"every row is 0 or more and sums to 1, as probabilities do: {advice}"]
    if len(logits) < 8 or _has_negative(logits):
        return []
    sums = logits.sum(axis=1, dtype=np.float64)
    if np.ptp(sums) <= _ROUNDING * sums.max() and np.ptp(logits) > 0:
        return [f"every row is 0 or more and sums to {sums[0]:.4g}, as scaled probabilities do"]
    return [_AFTER_SIGMOID] if _are_shares(logits) else []


def _are_shares(logits: NDArray[np.floating]) -> bool:
    """Whether all of enough rows are between 0 and 1, and not all the same."""
    return bool(len(logits) >= _ENOUGH and logits.min() >= 0 and logits.max() <= 1 and np.ptp(logits) > 0)


def _has_negative(rows: NDArray[np.floating]) -> bool:
    """Whether a value is below 0: of logits one of the first rows is, and no other is looked at."""
    return bool(rows[:8].min() < 0 or rows.min() < 0)


def are_probabilities(rows: NDArray[np.floating]) -> bool:
    """Whether every row (B, C) is 0 or more and sums to 1, within the rounding of float16. Never of one column.

    >>> are_probabilities(np.float16([[0.2, 0.8], [1, 0]])), are_probabilities(np.float32([[0.2, 0.9]]))
    (True, False)
    """
    if rows.shape[-1] < 2 or not rows.size or _has_negative(rows):
        return False
    return bool((np.abs(rows.sum(axis=-1, dtype=np.float64) - 1) <= _ROUNDING).all())


def accuracy_of(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> Accuracy | None:
    """Top-1 and chance of logits (B, C) on labels (B,), of which −1 are left out; None where no label is left.

    >>> accuracy_of(np.float32([[2, 1], [0, 3]]), np.array([0, 0]))
    Accuracy(samples=2, top1=0.5, chance=0.5, num_labels=1)
    """
    known = labels >= 0
    if not known.any():
        return None
    truth = labels[known]
    answers = (logits if known.all() else logits[known]).argmax(axis=1)
    size = max(logits.shape[1], int(truth.max()) + 1)
    shares = [np.bincount(of, minlength=size) / len(truth) for of in (answers, truth)]
    num_labels = int((shares[1] > 0).sum())
    return Accuracy(
        len(truth), float((answers == truth).mean()), float((shares[0] * shares[1]).sum()), num_labels
    )


def accuracy_in(cache: LogitCache) -> Accuracy | None:
    """Top-1 and chance of a cache of classes, from at most 4,096 rows of view 0; None without labels.

    >>> import tempfile
    >>> from decant.cache import Store, import_logits
    >>> folder = tempfile.TemporaryDirectory()
    >>> logits, labels = np.float32([[3, 1], [0, 4], [2, 0]]), np.array([0, 1, 1])
    >>> path = import_logits(Store(folder.name), logits, labels, teacher={}, data={"name": "toy"})
    >>> round(accuracy_in(LogitCache.open(path)).top1, 3)
    0.667
    >>> folder.cleanup()
    """
    if cache.manifest.num_targets is not None or cache.has_positions:
        return None
    rows, logits = _some_rows(cache)
    return accuracy_of(logits, cache.labels[rows])


def _without_spread(logits: NDArray[np.floating]) -> Iterator[str]:
    """What is the same where it should differ: all rows, some columns, the values of a row."""
    if logits.shape[1] < 2:
        if np.ptp(logits) == 0:
            yield f"all {len(logits):,} rows are the same"
        return
    same = np.flatnonzero(np.ptp(logits, axis=0) == 0)
    if len(same) == logits.shape[1]:
        yield f"all {len(logits):,} rows are the same: the teacher does not see its inputs"
        return
    if len(same):
        yield f"{len(same):,} classes have the same logit in all of {len(logits):,} rows, the first is class {same[0]}"
    level = int((np.ptp(logits, axis=1) == 0).sum())
    if level > (0 if logits.shape[1] >= _MANY else len(logits) // (100 if logits.shape[1] > 2 else 20)):
        yield f"{level:,} of {len(logits):,} rows have the same logit for every class, as rows that were never computed"


def _some_rows(cache: LogitCache) -> tuple[NDArray[np.intp], NDArray[np.floating]]:
    count = max(_ENOUGH, min(_ROWS, _BYTES // (4 * cache.num_outputs)))
    if cache.num_samples <= count:
        rows = np.arange(cache.num_samples)
    else:
        rows = np.linspace(0, cache.num_samples - 1, count).astype(np.intp)
    logits = cache.logits(rows)
    return rows, as_float32(logits) if logits.dtype == np.float16 else logits.astype(np.float32)
