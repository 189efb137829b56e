"""Scores of sigmoid outputs against scikit-learn's, with ties, unknown labels and classes that do not come up."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics

from decant.cache import (
    LogitCache,
    Manifest,
    SigmoidSummary,
    Store,
    ValueRefusedError,
    average_precision,
    import_logits,
    sigmoid_scores,
    summarize,
)
from decant.cache.statistics.plausibility import doubts_of_rows
from decant.cache.statistics.sigmoids import roc_auc


def drawn(seed: int, classes: int = 4) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Logits with many equal values, and labels that they have something to do with."""
    random = np.random.default_rng(seed)
    labels = (random.random((60, classes)) < 0.3).astype(np.float32)
    return np.round(2 * labels + random.normal(0, 1.5, labels.shape), 0).astype(np.float32), labels


@pytest.mark.parametrize("seed", range(8))
def test_scores_are_those_of_scikit_learn(seed: int) -> None:
    logits, labels = drawn(seed)
    found, said = sigmoid_scores(logits, labels), logits > 0
    assert found is not None
    assert found.mean_average_precision == pytest.approx(metrics.average_precision_score(labels, logits))
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, logits))
    assert found.f1_micro == pytest.approx(metrics.f1_score(labels, said, average="micro"))
    assert found.f1_macro == pytest.approx(metrics.f1_score(labels, said, average="macro", zero_division=0))
    assert found.exact_match == pytest.approx(metrics.accuracy_score(labels, said))


def test_an_unknown_label_counts_nowhere() -> None:
    logits, labels = drawn(1)
    unknown = np.random.default_rng(2).random(labels.shape) < 0.4
    masked = np.where(unknown, np.nan, labels)
    found = sigmoid_scores(logits, masked)
    assert found is not None
    columns = [(labels[~unknown[:, k], k], logits[~unknown[:, k], k]) for k in range(4)]
    each = [metrics.average_precision_score(*column) for column in columns]
    assert found.mean_average_precision == pytest.approx(np.mean(each))
    f1 = metrics.f1_score(labels[~unknown], logits[~unknown] > 0)
    assert found.f1_micro == pytest.approx(f1)
    assert found == sigmoid_scores(np.where(unknown, 99, logits), masked), "nor does what is said there"
    assert sigmoid_scores(logits, np.full_like(labels, np.nan)) is None


def test_a_class_without_a_sample_is_left_out_of_the_mean_and_not_called_zero() -> None:
    logits, labels = drawn(3)
    labels[:, 0] = 0
    found = sigmoid_scores(logits, labels)
    assert found is not None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rest = metrics.average_precision_score(labels[:, 1:], logits[:, 1:])
    assert found.mean_average_precision == pytest.approx(rest)
    nothing = sigmoid_scores(logits, np.zeros_like(labels))
    assert nothing is not None
    assert nothing.mean_average_precision is None
    assert nothing.auc is None


def test_scores_that_are_not_numbers_have_no_rank() -> None:
    scores, there = np.array([np.nan, 1.0]), np.array([True, False])
    found = average_precision(scores, there), roc_auc(scores, there)
    assert all(one is not None and math.isnan(one) for one in found)


@pytest.mark.parametrize("form", ["float rows", "class numbers"])
def test_a_cache_of_one_logit_has_scores_and_no_softmax(form: str, tmp_path: Path) -> None:
    """A softmax of one logit would always be right, and always sure."""
    logits, answers = np.float32([[3], [-3], [2], [-1]]), np.array([1, 0, 0, -1])
    labels, data = answers, {"name": "toy"}
    if form == "float rows":
        labels = np.where(answers < 0, np.nan, answers).astype(np.float32)[:, None]
        data = {"name": "toy", "task": "binary"}
    cache = LogitCache.open(import_logits(Store(tmp_path), logits, labels, teacher={}, data=data))
    found = summarize(cache)
    assert isinstance(found, SigmoidSummary)
    assert found.scores is not None
    assert (found.rows, found.likely) == (4, 0.5)
    assert found.scores.exact_match == pytest.approx(2 / 3)
    assert found.scores.auc == 1


def test_rows_of_a_regression_are_none_of_sigmoids(tmp_path: Path) -> None:
    table = np.float32([[1, 0, 1], [0, 1, 0], [1, 1, 1]])
    stated = [{"name": "toy"}, {"name": "toy", "task": "regression"}, {"name": "toy", "task": "multilabel"}]
    found = [
        LogitCache.open(import_logits(Store(tmp_path), table, table, teacher={}, data=data)).manifest
        for data in stated
    ]
    assert [manifest.has_sigmoids for manifest in found] == [False, False, True]


def test_rows_with_one_label_each_are_taken_where_the_task_is_named(tmp_path: Path) -> None:
    table = np.eye(3, dtype=np.float32)
    with pytest.raises(ValueRefusedError, match="one-hot rows"):
        import_logits(Store(tmp_path), table, table, teacher={}, data={"name": "toy"})
    data = {"name": "toy", "task": "multilabel"}
    found = summarize(
        LogitCache.open(import_logits(Store(tmp_path), 9 * table - 4, table, teacher={}, data=data))
    )
    assert isinstance(found, SigmoidSummary)
    assert found.scores is not None
    assert found.scores.mean_average_precision == 1


@pytest.mark.parametrize("given", ["logits", "probabilities"])
def test_probabilities_of_sigmoids_are_doubted_and_their_logits_are_not(given: str) -> None:
    logits, _ = drawn(5)
    data = {"name": "toy", "task": "multilabel"}
    manifest = Manifest.build(num_samples=60, num_outputs=4, num_targets=4, data=data)
    found = doubts_of_rows(manifest, logits if given == "logits" else 1 / (1 + np.exp(-logits)))
    assert [text.partition(":")[0] for text in found] == (
        [] if given == "logits" else ["every value is between 0 and 1, as sigmoid gives"]
    )
