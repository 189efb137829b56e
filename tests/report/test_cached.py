"""What the cache holds: soft labels described as torch and SciPy describe them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from decant.cache import Ensemble, LogitCache, Sparse, Store, convert_cache
from decant.pipeline.config.settings import Settings
from decant.pipeline.report.sections import cached, confusion, quality
from decant.pipeline.report.subject import Subject
from tests.helpers.judged import answers, cache_of
from tests.helpers.subjects import records


def views_of(cache: LogitCache, temperature: float) -> torch.Tensor:
    """(V, N, C) softmaxes in float64."""
    logits = np.stack([cache.logits(slice(None), view) for view in range(cache.num_views)])
    return (torch.from_numpy(logits.astype(np.float64)) / temperature).softmax(-1)


def some_labels(samples: int = 60) -> NDArray[np.int64]:
    """Of which every seventh is none, and class 4 never comes up."""
    labels = np.arange(samples) % 5
    labels[(labels == 4) | (np.arange(samples) % 7 == 0)] = -1
    return labels


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_soft_labels_are_as_sure_spread_and_alike_as_torch_says(
    temperature: float, dtype: str, tmp_path: Path
) -> None:
    labels = some_labels()
    cache = cache_of(tmp_path / "a.h5", answers(60, 3), labels, dtype)
    found, expected = cached.soft_labels(cache, temperature), views_of(cache, temperature)
    entropy = torch.distributions.Categorical(probs=expected.reshape(-1, 5)).entropy()
    np.testing.assert_allclose(found.entropy, entropy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.confidence, expected.reshape(-1, 5).amax(1), rtol=1e-5)
    for label in range(5):
        if label == 4:
            assert np.isnan(found.by_label[label]).all()
        else:
            mean = expected[:, labels == label].mean((0, 1))
            np.testing.assert_allclose(found.by_label[label], mean, rtol=1e-5)


@pytest.mark.parametrize("several", [False, True])
def test_rows_of_a_sparse_cache_are_described_at_each_temperature_that_they_know(
    several: bool, tmp_path: Path
) -> None:
    dense = cache_of(tmp_path / "a.h5", answers(60, 3), some_labels())
    made = LogitCache.open(convert_cache(Store(tmp_path), dense, Sparse(2, (1.0, 4.0)))).at_temperature(4.0)
    read = Ensemble([made, made], "logits") if several else made  # as a student at T = 4 reads them
    for temperature in (1.0, 4.0):
        expected = views_of(dense, temperature).amax(-1).flatten()  # what is largest is stored
        np.testing.assert_allclose(cached.soft_labels(read, temperature).confidence, expected, rtol=3e-3)


def test_of_many_rows_some_at_even_distances_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = cache_of(tmp_path / "a.h5", answers(60, 3), some_labels())
    monkeypatch.setattr(cached, "MAX_ROWS", 40)
    found, every = cached.soft_labels(cache, 1.0), views_of(cache, 1.0).reshape(180, 5)
    rows = [int(179 * place / 39) for place in range(40)]
    np.testing.assert_allclose(found.confidence, every[rows].amax(1), rtol=1e-5)
    labels = np.tile(some_labels(), 3)[rows]
    for label in range(4):
        np.testing.assert_allclose(found.by_label[label], every[rows][labels == label].mean(0), rtol=1e-5)


def test_of_teachers_that_are_kept_apart_the_mean_is_described(tmp_path: Path) -> None:
    members = [
        cache_of(tmp_path / f"{one}.h5", answers(60, 2, one), some_labels(), teacher=str(one))
        for one in (0, 1)
    ]
    found = cached.soft_labels(Ensemble(members, "separate"), 2.0)
    mean = sum(views_of(member, 2.0) for member in members).reshape(-1, 5) / 2
    np.testing.assert_allclose(found.entropy, scipy.stats.entropy(mean, axis=1), rtol=1e-4)
    np.testing.assert_allclose(found.confidence, mean.amax(1), rtol=1e-5)


def test_the_bins_of_a_chart_hold_every_row_once() -> None:
    values = np.float32([0, 0.5, 0.5, 1 / 30, 1.0, 1.0000001])
    records = cached.bins([values], ["T = 1"], 1.0)
    assert sum(record["share"] for record in records[:-1]) == pytest.approx(100)
    for low, share in ((0.0, 100 / 6), (0.5, 200 / 6), (29 / 30, 200 / 6)):
        (bin_,) = (record for record in records[:-1] if record["low"] == pytest.approx(low))
        assert bin_["share"] == pytest.approx(share), low


def test_of_too_many_classes_no_square_is_made(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quality.quality(subject).content
    monkeypatch.setattr(confusion, "MAX_MATRIX", 2)
    assert cached.soft_labels(subject.cache, 1.0).by_label is None
    section = cached.cached(subject)
    assert section.content["unlike"] == "there are more than 2 classes"
    assert set(section.charts) == {"confidence", "entropy"}
    section = quality.quality(subject)
    assert set(section.charts) == {"reliability", "gains"}
    for same in ("errors", "samples", "changed"):
        assert section.content[same] == whole[same]
    assert sorted(section.content["by_class"]) == sorted(whole["by_class"])
    monkeypatch.setattr(confusion, "MAX_CLASSES", 1)
    section = quality.quality(subject)
    ((name, *_),) = section.content["by_class"]
    assert {one["class"] for one in records(section, "gains")} == {name}
    assert section.content["listed"] == " The 1 of 3 classes that changed most."


def with_objective(subject: Subject, content: dict[str, Any]) -> Subject:
    settings = subject.focus.recipe.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
    settings["student"]["objective"] = content
    recipe = replace(subject.focus.recipe, settings=Settings.model_validate_json(json.dumps(settings)))
    return replace(subject, focus=replace(subject.focus, recipe=recipe))


@pytest.mark.parametrize(
    ("objective", "temperature"),
    [
        ({"name": "kd", "temperature": 3}, 3.0),
        ({"name": "kd", "temperature": {"from": 8.0, "to": 2.0}}, 2.0),
        ({"name": "mse"}, 1.0),
        ({"name": "own:loss", "temperature": 2.5}, 2.5),
        ({"name": "own:loss", "temperature": "hot"}, 1.0),
        ({"name": "own:loss", "temperature": 0}, 1.0),
    ],
)
def test_the_temperature_in_use_is_the_objective_s(
    subject: Subject, objective: dict[str, Any], temperature: float
) -> None:
    assert with_objective(subject, objective).temperature == temperature


def test_that_an_objective_standardizes_logits_is_said(subject: Subject) -> None:
    assert "z-scores" not in cached.cached(subject).content["note"]
    standardized = with_objective(subject, {"name": "kd", "standardize": True})
    assert "z-scores of the logits first" in cached._note(
        subject.cache, 72, cached._is_standardized(standardized)
    )
