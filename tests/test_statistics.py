"""What is said of soft labels, against the same written out longhand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from caches import answers, build, manifest

from cache import LogitCache
from cache.statistics import calibration_error, softmax, summarize


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
    cache = LogitCache.open(build(tmp_path / "a.h5", manifest(num_outputs=10, num_targets=3)))
    assert summarize(cache).top1 is None
    assert summarize(cache).calibration_error is None


def test_softmax_is_safe_for_large_logits_and_softens_with_the_temperature() -> None:
    assert softmax(np.array([[1e4, 0.0, -1e4]])).tolist() == [[1.0, 0.0, 0.0]]
    sharp, soft = softmax(np.array([2.0, 1.0])), softmax(np.array([2.0, 1.0]), temperature=4.0)
    assert soft[0] == pytest.approx(1 / (1 + math.exp(-0.25)))
    assert sharp[0] > soft[0] > 0.5


def test_calibration_error_is_the_gap_of_each_bin_by_its_share() -> None:
    confidence, right = np.array([0.95, 0.95, 0.35, 0.35]), np.array([1.0, 0.0, 1.0, 1.0])
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.45 + 0.5 * 0.65)
    assert calibration_error(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.0
