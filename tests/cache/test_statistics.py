"""What is said of soft labels, against the same written out longhand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from decant.cache import LogitCache, Store
from decant.cache.exchange.logits import import_logits
from decant.cache.statistics.outputs import (
    RegressionSummary,
    Summary,
    calibration_error,
    regression_errors,
    softmax,
    summarize,
)
from tests.helpers.caches import answers, build, manifest


def test_the_summary_of_a_cache_is_that_of_its_rows_one_by_one(tmp_path: Path) -> None:
    of = manifest(num_samples=40, num_outputs=10)
    cache = LogitCache.open(build(tmp_path / "a.h5", of))
    right, sure, entropies = [], [], []
    for view in range(2):
        given = answers(of, view)
        for logits, label in zip(given["logits"].astype(np.float64), given["labels"], strict=True):
            powers = [math.exp(value) for value in logits]
            shares = [power / sum(powers) for power in powers]
            right.append(float(shares.index(max(shares)) == label))
            sure.append(max(shares))
            entropies.append(-sum(share * math.log(share) for share in shares))
    found = summarize(cache)
    assert found.rows == 80
    assert found.top1 == pytest.approx(np.mean(right))
    assert found.confidence == pytest.approx(np.mean(sure), rel=1e-5)
    assert found.entropy == pytest.approx(np.mean(entropies), rel=1e-5)


def test_a_limit_reads_rows_from_the_whole_file(tmp_path: Path) -> None:
    cache = LogitCache.open(build(tmp_path / "a.h5", manifest(num_samples=500, num_outputs=10)))
    found, whole = summarize(cache, limit=200), summarize(cache)
    assert found.rows == 200
    assert found.entropy == pytest.approx(whole.entropy, rel=0.1)


def test_without_labels_nothing_is_said_of_right_and_wrong(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(50, 10)).astype(np.float32)
    path = import_logits(Store(tmp_path), logits, None, teacher={"name": "a"}, data={"name": "b"})
    found = summarize(LogitCache.open(path))
    assert isinstance(found, Summary)
    assert found.top1 is None
    assert found.calibration_error is None
    assert found.entropy > 0


def longhand_errors(outputs: np.ndarray, targets: np.ndarray) -> tuple[float, float, float]:
    """MSE, MAE and R² of the pairs whose target is known, one by one."""
    differences, shares = [], []
    for output, target in zip(outputs.astype(np.float64).T, targets.astype(np.float64).T, strict=True):
        known = [(o, t) for o, t in zip(output, target, strict=True) if not math.isnan(t)]
        mean = sum(t for _, t in known) / len(known)
        differences += [o - t for o, t in known]
        shares.append(1 - sum((o - t) ** 2 for o, t in known) / sum((t - mean) ** 2 for _, t in known))
    squares = [difference**2 for difference in differences]
    return np.mean(squares), np.mean(np.abs(differences)), np.mean(shares)


def test_of_a_regression_errors_are_told_and_no_softmax(tmp_path: Path) -> None:
    of = manifest(num_samples=40, num_outputs=3, num_targets=3)
    found = summarize(LogitCache.open(build(tmp_path / "a.h5", of)))
    outputs = np.concatenate([answers(of, view)["logits"] for view in range(2)])
    targets = np.concatenate([answers(of, view)["labels"] for view in range(2)])
    assert found == (80, *(pytest.approx(value, rel=1e-9) for value in longhand_errors(outputs, targets)))
    assert isinstance(found, RegressionSummary)


def test_outputs_that_are_not_those_of_the_targets_are_not_compared_with_them(tmp_path: Path) -> None:
    of = manifest(num_samples=40, num_outputs=10, num_targets=3)
    assert summarize(LogitCache.open(build(tmp_path / "a.h5", of))) == (80, None, None, None)


@pytest.mark.parametrize("chunk", [1, 7, 100])
def test_errors_are_the_same_in_chunks_of_any_size_and_far_from_zero(chunk: int) -> None:
    random = np.random.default_rng(0)
    targets = random.normal([2e6, -3], 1, (100, 2)).astype(np.float32)
    outputs = (targets + random.normal(size=(100, 2))).astype(np.float32)
    targets[random.random((100, 2)) < 0.2] = np.nan
    targets[:7, 0] = np.nan
    chunks = [(outputs[i : i + chunk], targets[i : i + chunk]) for i in range(0, 100, chunk)]
    assert regression_errors(chunks) == tuple(
        pytest.approx(value, rel=1e-6) for value in longhand_errors(outputs, targets)
    )


def test_what_cannot_be_said_of_a_regression_is_not() -> None:
    outputs = np.ones((4, 2), np.float32)
    assert regression_errors([(outputs, np.full((4, 2), np.nan, np.float32))]) is None
    assert regression_errors([]) is None
    assert regression_errors([(outputs, 3 * outputs)]) == (4.0, 2.0, None), "R² needs a target that varies"
    varying = np.array([[0, 3], [2, 3], [0, 3], [2, 3]], np.float32)
    assert regression_errors([(outputs, varying)]) == (2.5, 1.5, 0.0), "the one that varies"


def test_softmax_is_safe_for_large_logits_and_softens_with_the_temperature() -> None:
    assert softmax(np.array([[1e4, 0.0, -1e4]])).tolist() == [[1.0, 0.0, 0.0]]
    sharp, soft = softmax(np.array([2.0, 1.0])), softmax(np.array([2.0, 1.0]), temperature=4.0)
    assert soft[0] == pytest.approx(1 / (1 + math.exp(-0.25)))
    assert sharp[0] > soft[0] > 0.5


def test_calibration_error_of_what_is_no_number_is_none_either() -> None:
    assert np.isnan(calibration_error(np.array([0.5, np.nan]), np.array([1.0, 0.0])))


def test_calibration_error_is_the_gap_of_each_bin_by_its_share() -> None:
    confidence, right = np.array([0.95, 0.95, 0.35, 0.35]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.65)
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.0
