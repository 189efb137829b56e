"""Several teachers read as one: the mean that is stated, of caches that belong together."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from decant.cache import (
    CacheError,
    Ensemble,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    SoftLabelDataset,
    Store,
    import_logits,
)
from decant.cache.statistics.outputs import softmax
from tests.helpers.caches import build, manifest

CLASSES = 6


def teachers(folder: Path, count: int = 3) -> list[LogitCache]:
    """Caches of the same data and views by several teachers, whose logits differ."""
    made = []
    for place in range(count):
        of = manifest(num_outputs=CLASSES, dtype="float32", teacher={"sha256": str(place)})
        random = np.random.default_rng(place)
        with LogitCacheWriter(folder / f"{place}.h5", of) as writer:
            for view in range(of.num_views):
                logits = random.normal(scale=3, size=(of.num_samples, CLASSES)).astype(np.float32)
                writer.write(
                    np.arange(of.num_samples), logits, labels=np.arange(of.num_samples) % 6, view=view
                )
            made.append(LogitCache.open(writer.publish()))
    return made


def test_the_mean_of_logits_is_that(tmp_path: Path) -> None:
    members = teachers(tmp_path)
    expected = np.mean([cache.logits([4, 1], 1) for cache in members], axis=0)
    np.testing.assert_allclose(Ensemble(members, "logits").logits([4, 1], 1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_softmax_at_t_of_the_ensembles_logits_is_the_mean_of_the_softmaxes_at_t(
    tmp_path: Path, temperature: float
) -> None:
    members = teachers(tmp_path)
    rows = np.arange(50)
    tables = [cache.logits(rows, 1).astype(np.float64) for cache in members]
    expected = np.mean([softmax(table, temperature) for table in tables], axis=0)
    found = Ensemble(members, "probabilities", temperature).logits(rows, 1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(softmax(found.astype(np.float64), temperature), expected, rtol=1e-4)


def test_a_dataset_takes_several_caches(tmp_path: Path) -> None:
    members = teachers(tmp_path, 2)
    data = [(torch.zeros(1), index % 6) for index in range(50)]

    class Viewed:
        def __len__(self) -> int:
            return len(data)

        def __getitem__(self, key: tuple[int, int]) -> tuple[torch.Tensor, int]:
            return data[key[0]]

    dataset = SoftLabelDataset(Viewed(), members, check_inputs="off")
    _, label, logits = dataset[7, 1]
    assert label == 1
    np.testing.assert_allclose(logits.numpy(), Ensemble(members).logits([7], 1)[0])


def test_each_mean_has_its_own_key_and_the_order_of_teachers_counts_too(tmp_path: Path) -> None:
    members = teachers(tmp_path)
    made = [
        Ensemble(members, "logits"),
        Ensemble(members),
        Ensemble(members, temperature=2.0),
        Ensemble(members[:2]),
        Ensemble(members[::-1]),
    ]
    assert len({ensemble.manifest.key for ensemble in made}) == 5
    assert Ensemble(members).manifest.key == made[1].manifest.key


def test_caches_of_other_data_are_refused_with_the_field(tmp_path: Path) -> None:
    one, other = manifest(), manifest(data={"name": "cifar10"})
    members = [LogitCache.open(build(tmp_path / f"{place}.h5", of)) for place, of in enumerate((one, other))]
    with pytest.raises(MismatchError, match=r"data\.name: expected 'digits', found 'cifar10'"):
        Ensemble(members)


def test_caches_with_other_labels_or_classes_are_refused(tmp_path: Path) -> None:
    (first,) = teachers(tmp_path, 1)
    wider = LogitCache.open(build(tmp_path / "wider.h5", manifest(num_outputs=7, dtype="float32")))
    with pytest.raises(MismatchError, match="other classes or labels"):
        Ensemble([first, wider])


def test_damage_in_any_of_them_is_found(tmp_path: Path) -> None:
    members = teachers(tmp_path, 2)
    path = members[1].path
    content = bytearray(path.read_bytes())
    content[33_000] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(CacheError, match="is not as it was written"):
        Ensemble([members[0], LogitCache.open(path)]).logits(slice(None))


def test_weights_count_by_their_share_in_either_mean(tmp_path: Path) -> None:
    members = teachers(tmp_path, 2)
    one, other = (cache.logits([4, 1], 1).astype(np.float64) for cache in members)
    by_logits = Ensemble(members, "logits", weights=[7, 3]).logits([4, 1], 1)
    np.testing.assert_allclose(by_logits, 0.7 * one + 0.3 * other, rtol=1e-5, atol=1e-6)
    by_softmaxes = Ensemble(members, "probabilities", 2.0, [0.7, 0.3]).logits([4, 1], 1)
    expected = 0.7 * softmax(one, 2.0) + 0.3 * softmax(other, 2.0)
    assert by_softmaxes.dtype == by_logits.dtype == np.float32
    np.testing.assert_allclose(softmax(by_softmaxes.astype(np.float64), 2.0), expected, rtol=1e-4)


def test_a_teacher_that_weighs_nothing_has_no_say_and_equal_weights_change_nothing(tmp_path: Path) -> None:
    members = teachers(tmp_path, 2)
    np.testing.assert_allclose(
        Ensemble(members, "logits", weights=[0, 2]).logits(slice(None)), members[1].logits(slice(None))
    )
    np.testing.assert_allclose(
        Ensemble(members, weights=[2, 2]).logits(slice(None)),
        Ensemble(members).logits(slice(None)),
        rtol=1e-6,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ([1.0], "expected 2, one for each cache, found 1"),
        ([1.0, 1.0, 1.0], "expected 2, one for each cache, found 3"),
        ([1.0, -0.5], "must be 0 or more, and not all 0"),
        ([0.0, 0.0], "must be 0 or more, and not all 0"),
        ([1.0, float("nan")], "must be 0 or more, and not all 0"),
        ([1.0, float("inf")], "must be 0 or more, and not all 0"),
    ],
)
def test_weights_that_no_mean_can_have_are_refused(tmp_path: Path, weights: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Ensemble(teachers(tmp_path, 2), weights=weights)


def test_kept_apart_the_logits_are_each_caches_in_their_order(tmp_path: Path) -> None:
    members = teachers(tmp_path)
    apart = Ensemble(members[::-1], "separate")
    found = apart.logits([4, 1, 4], [1, 0, 0])
    assert found.shape == (3, 3, CLASSES)
    for place, cache in enumerate(members[::-1]):
        assert np.array_equal(found[:, place], cache.logits([4, 1, 4], [1, 0, 0]))
    assert apart.logits(4, 1).shape == (3, CLASSES)
    with pytest.raises(ValueError, match="belong to a mean"):
        Ensemble(members, "separate", weights=[1, 1, 1])


def test_a_dataset_gives_the_logits_of_caches_kept_apart(tmp_path: Path) -> None:
    of = manifest(num_outputs=CLASSES, num_views=1)
    members = [LogitCache.open(build(tmp_path / f"{place}.h5", of)) for place in range(2)]
    data = [(torch.zeros(1), int(label)) for label in members[0].labels]
    dataset = SoftLabelDataset(data, Ensemble(members, "separate"), check_inputs="off")
    assert dataset[3][2].shape == (2, CLASSES)


def test_weights_are_part_of_the_key_by_their_share_and_only_where_given(tmp_path: Path) -> None:
    members = teachers(tmp_path, 2)
    plain, tenths, tens, other, apart = (
        Ensemble(members),
        Ensemble(members, weights=[0.25, 0.75]),
        Ensemble(members, weights=[10, 30]),
        Ensemble(members, weights=[0.75, 0.25]),
        Ensemble(members, "separate"),
    )
    assert "weights" not in plain.manifest.identity["teacher"]
    assert tenths.manifest.key == tens.manifest.key
    assert len({ensemble.manifest.key for ensemble in (plain, tenths, other, apart)}) == 4


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_sigmoids_are_averaged_as_probabilities_and_one_logit_too(temperature: float, tmp_path: Path) -> None:
    """A softmax over the outputs would make zeros of a single one."""
    store, random = Store(tmp_path), np.random.default_rng(0)
    for columns in (1, 3):
        logits = random.normal(0, 3, (2, 8, columns)).astype(np.float32)
        labels = (random.random((8, columns)) < 0.5).astype(np.float32)
        labels[0] = 1
        caches = [
            LogitCache.open(
                import_logits(
                    store,
                    one,
                    labels,
                    teacher={},
                    data={"name": "toy", "task": "multilabel"},
                    dtype="float32",
                )
            )
            for one in logits
        ]
        found = Ensemble(caches, "probabilities", temperature, weights=(1, 3)).logits(np.arange(8))
        shares = 1 / (1 + np.exp(-logits.astype(np.float64) / temperature))
        mean = 0.25 * shares[0] + 0.75 * shares[1]
        assert np.allclose(found, temperature * np.log(mean / (1 - mean)), rtol=1e-5)


def test_probabilities_of_a_regression_are_refused(tmp_path: Path) -> None:
    targets = np.random.default_rng(0).normal(0, 1, (8, 2)).astype(np.float32)
    caches = [
        LogitCache.open(
            import_logits(Store(tmp_path), factor * targets, targets, teacher={}, data={"name": "toy"})
        )
        for factor in (1, 2)
    ]
    with pytest.raises(MismatchError, match="outputs of a regression have no probabilities"):
        Ensemble(caches)
    assert Ensemble(caches, "logits").logits([0]).tolist()
