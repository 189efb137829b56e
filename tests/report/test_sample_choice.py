"""Which samples a page shows, and which labels it doubts: the rules written out, a sample at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon
from scipy.special import softmax
from scipy.stats import entropy

from decant.cache import CorruptError, Ensemble, LogitCache
from decant.cache import source as cache_source
from decant.pipeline.report.sections import sample_choice
from decant.pipeline.report.sections.sample_choice import REASONS, Judged, choose, divergence, judge
from tests.helpers.judged import CLASSES, PLANTED, UNSURE, answers, cache_of, labels_of


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return cache_of(tmp_path_factory.mktemp("chosen") / "a.h5", answers(130, 3), labels_of(130))


def doubted(shares: NDArray[np.float64], labels: NDArray[np.int64]) -> list[int]:
    """Northcutt et al. (2021), section 3.1, a sample at a time: x is counted from its label i to class j, the
    likeliest one, where p(j|x) is at least the mean of p(j|·) over the samples labelled j; of these i ≠ j, by the
    margin p(j|x) − p(i|x).
    """
    found = []
    for index, (row, label) in enumerate(zip(shares, labels, strict=True)):
        likeliest = int(np.argmax(row))
        own = [shares[other, likeliest] for other in range(len(labels)) if labels[other] == likeliest]
        if label >= 0 and likeliest != label and own and row[likeliest] >= np.mean(own):
            found.append((row[label] - row[likeliest], index))
    return [index for _, index in sorted(found)]


def means(cache: LogitCache, views: int | None = None) -> NDArray[np.float64]:
    """(N, C): the mean softmax over the first views."""
    every = range(cache.num_views if views is None else views)
    return np.mean([softmax(cache.logits(slice(None), v).astype(np.float64), axis=1) for v in every], axis=0)


def test_what_a_teacher_says_of_each_sample_is_the_mean_over_its_views(cache: LogitCache) -> None:
    judged, shares = judge(cache), means(cache)
    labels = labels_of(130)
    per_view = [
        entropy(softmax(cache.logits(slice(None), view).astype(np.float64), axis=1), axis=1)
        for view in range(3)
    ]
    np.testing.assert_allclose(judged.entropy, np.mean(per_view, axis=0), rtol=1e-4, atol=1e-6)
    assert np.array_equal(judged.answer, shares.argmax(1))
    np.testing.assert_allclose(judged.answer_share, shares.max(1), rtol=1e-5)
    expected = np.where(labels < 0, np.nan, shares[np.arange(130), labels])
    np.testing.assert_allclose(judged.label_share, expected, rtol=1e-4)
    np.testing.assert_allclose(
        judged.thresholds, [shares[labels == label, label].mean() for label in range(CLASSES)], rtol=1e-5
    )
    assert judged.views == 3


@pytest.mark.parametrize("rows", [cache_source.ROWS, 1, 7, 129, 130])
def test_planted_label_errors_are_found_and_others_not(
    cache: LogitCache, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cache_source, "ROWS", rows)
    found = judge(cache).label_errors.tolist()
    assert found == doubted(means(cache), labels_of(130))
    assert set(found) == set(PLANTED) - {UNSURE}


@pytest.mark.parametrize("seed", range(8))
def test_label_errors_are_those_of_the_rule_for_any_teacher(seed: int, tmp_path: Path) -> None:
    """Of an unsure teacher, with labels of which some are none, and classes that no label is of."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(2, 60, 6))
    labels = random.choice([-1, 0, 1, 2, 4], 60)
    cache = cache_of(tmp_path / "a.h5", logits, labels, "float16")
    judged = judge(cache)
    assert judged.label_errors.tolist() == doubted(means(cache), labels)
    assert len(judged.label_errors) > 3
    assert np.isinf(judged.thresholds[[3, 5]]).all()


def test_only_as_many_views_are_read_as_are_allowed(
    cache: LogitCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    for values, views in ((130 * CLASSES * 2 + 1, 2), (130 * CLASSES, 1), (1, 1), (10**9, 3)):
        monkeypatch.setattr(sample_choice, "MAX_VALUES", values)
        judged = judge(cache)
        assert judged.views == views
        np.testing.assert_allclose(judged.answer_share, means(cache, views).max(1), rtol=1e-5)


def test_several_teachers_that_are_kept_apart_are_judged_by_their_mean(tmp_path: Path) -> None:
    members = [
        cache_of(tmp_path / f"{seed}.h5", answers(60, 2, seed), labels_of(130)[:60], teacher=str(seed))
        for seed in (0, 1)
    ]
    shares = (means(members[0]) + means(members[1])) / 2
    judged = judge(Ensemble(members, "separate"))
    np.testing.assert_allclose(judged.answer_share, shares.max(1), rtol=1e-5)
    assert judged.label_errors.tolist() == doubted(shares, labels_of(130)[:60])


def test_a_cache_without_labels_has_no_label_errors(tmp_path: Path) -> None:
    judged = judge(cache_of(tmp_path / "a.h5", answers(20, 1), np.full(20, -1)))
    assert judged.label_errors.tolist() == []
    assert np.isnan(judged.label_share).all()


@pytest.mark.parametrize(("samples", "outputs"), [(1, 5), (3, 1), (1, 1)])
def test_one_sample_or_one_class_can_be_judged(samples: int, outputs: int, tmp_path: Path) -> None:
    judged = judge(
        cache_of(tmp_path / "a.h5", answers(samples, 2)[..., :outputs], np.zeros(samples, np.int64))
    )
    assert judged.label_errors.tolist() == []
    assert set(choose(judged, np.arange(samples), None, 10)) == set(range(samples))


def test_a_damaged_row_is_not_judged(tmp_path: Path) -> None:
    path = cache_of(tmp_path / "a.h5", answers(130, 3), labels_of(130)).path
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    place = content.index(answers(130, 3)[1, 77].astype("<f4").tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptError, match="not as it was written"):
        judge(LogitCache.open(path))


def test_divergence_is_that_of_scipy() -> None:
    random = np.random.default_rng(0)
    one, other = random.dirichlet(np.full(7, 0.3), 200), random.dirichlet(np.full(7, 0.3), 200)
    one[:50, :3], other[25:75, 2:5] = 0, 0
    one, other = one / one.sum(1, keepdims=True), other / other.sum(1, keepdims=True)
    expected = np.square(jensenshannon(one, other, axis=1))
    np.testing.assert_allclose(divergence(one, other), expected, atol=1e-12)
    single = one.astype(np.float32), other.astype(np.float32)
    np.testing.assert_allclose(divergence(*single), expected, atol=1e-6)


def test_divergence_is_nothing_of_the_same_and_log_2_of_what_shares_nothing() -> None:
    certain = np.eye(3, dtype=np.float32)
    assert divergence(certain, certain).tolist() == [0, 0, 0]
    np.testing.assert_allclose(divergence(certain, certain[[1, 2, 0]]), np.log(2))


def judged(samples: int, seed: int = 0) -> Judged:
    """A teacher that doubts a tenth of the labels."""
    random = np.random.default_rng(seed)
    wrong = np.arange(samples) % 10 == 3
    return Judged(
        views=1,
        labels=np.zeros(samples, np.int64),
        entropy=random.random(samples).astype(np.float32),
        answer=wrong.astype(np.int64),
        answer_share=np.where(wrong, 0.6 + 0.4 * random.random(samples), 0.9).astype(np.float32),
        label_share=np.where(wrong, 0.1 * random.random(samples), 0.9).astype(np.float32),
        thresholds=np.array([0.8, 0.5]),
    )


@pytest.mark.parametrize("count", [1, 2, 5, 40, 200, 300])
@pytest.mark.parametrize("samples", [1, 3, 40, 250])
@pytest.mark.parametrize("asked", [True, False])
def test_each_sample_is_chosen_once_and_never_more_than_asked_for(
    count: int, samples: int, asked: bool
) -> None:
    pool = np.arange(0, samples, 2)
    differs = np.random.default_rng(1).random(len(pool)) if asked else None
    found = choose(judged(samples), pool, differs, count)
    assert len(found) == min(count, samples)
    assert set(found) <= set(range(samples))
    assert set(found.values()) <= set(REASONS)
    assert all(type(index) is int for index in found), "as JSON needs it"
    assert list(found.items()) == list(choose(judged(samples), pool, differs, count).items())
    assert ("differ" in found.values()) <= asked


def test_every_reason_has_its_turn_and_gives_its_best() -> None:
    teacher, pool = judged(1000), np.arange(0, 1000, 3)
    differs = np.random.default_rng(1).random(len(pool))
    found = choose(teacher, pool, differs, 40)
    by_reason = {reason: [index for index, one in found.items() if one == reason] for reason in REASONS}
    queues = {
        "label": doubted_by_margin(teacher),
        "differ": sorted(pool.tolist(), key=lambda index: -differs[index // 3]),
        "unsure": sorted(range(1000), key=lambda index: -teacher.entropy[index]),
    }
    for reason, best in queues.items():
        assert len(by_reason[reason]) >= 8, f"{reason} has {by_reason[reason]}"
        others = {index for index, one in found.items() if one != reason}
        first = [index for index in best if index not in others][: len(by_reason[reason])]
        assert by_reason[reason] == first, reason
    gaps = np.diff(by_reason["spread"])
    assert gaps.min() >= 25 - 1, "at even distances"
    assert [found[index] for index in list(found)[:4]] == list(REASONS), "in turn"


def doubted_by_margin(teacher: Judged) -> list[int]:
    wrong = [index for index in range(len(teacher.labels)) if teacher.answer[index] != teacher.labels[index]]
    return sorted(wrong, key=lambda index: teacher.label_share[index] - teacher.answer_share[index])
