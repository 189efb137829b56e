"""What is likely no teacher's output is said once, what is near it is not; inputs of every kind are recorded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from decant.cache import (
    CacheWarning,
    LogitCache,
    LogitCacheWriter,
    Store,
    ValueRefusedError,
    accuracy_in,
    import_logits,
    input_crc32,
)
from decant.cache.statistics.outputs import softmax
from decant.cache.statistics.plausibility import doubts
from tests.helpers.caches import manifest

N, C = 200, 5
RANDOM = np.random.default_rng(1)
LABELS = RANDOM.integers(0, C, N)
NOISE = RANDOM.normal(size=(N, C))
GOOD = NOISE + 3 * np.eye(C)[LABELS]
ORDER = RANDOM.permutation(N)
SAID = {"teacher": {"network": "mine"}, "data": {"name": "elsewhere"}}


def published(path: Path, logits: Any, labels: Any = LABELS, **of: Any) -> LogitCache:
    samples, outputs = logits.shape
    with LogitCacheWriter(path, manifest(samples, outputs, 1, "float32", **of)) as writer:
        for rows in np.array_split(np.arange(samples), 3):
            writer.write(rows, logits[rows], labels=None if labels is None else labels[rows])
        return LogitCache.open(writer.publish())


def with_column(column: int, value: float) -> np.ndarray:
    logits = GOOD.copy()
    logits[:, column] = value
    return logits


def with_rows(rows: slice, value: float) -> np.ndarray:
    logits = GOOD.copy()
    logits[rows] = value
    return logits


@pytest.mark.parametrize(
    ("logits", "labels", "says"),
    [
        (GOOD[ORDER], LABELS, r"top-1 is 2\d\.\d+% on 200 samples, and chance is 2\d.*shuffled loader"),
        (NOISE, LABELS, "likely causes"),
        (
            np.roll(GOOD, 1, axis=1),
            LABELS,
            r"names 5 classes by those of others: 0 as 1, .*\[1, 2, 3, 4, 0\]",
        ),
        (
            GOOD[:, [0, 1, 2, 4, 3]],
            LABELS,
            r"names 2 classes by those of others: 3 as 4, 4 as 3: .*another order",
        ),
        (softmax(GOOD), LABELS, "sums to 1, as probabilities do"),
        (softmax(GOOD).astype("f2").astype("f4"), None, "sums to 1, as probabilities do"),
        (100 * softmax(GOOD), LABELS, "sums to 100, as scaled"),
        (1 / (1 + np.exp(-GOOD)), LABELS, "between 0 and 1, as sigmoid"),
        (np.eye(C)[LABELS], LABELS, "one-hot"),
        (np.tile(GOOD[:1], (N, 1)), LABELS, "all 200 rows are the same"),
        (np.zeros((N, C)), LABELS, "all 200 rows are the same"),
        (
            with_column(2, -9.0),
            LABELS,
            "1 classes have the same logit in all of 200 rows, the first is class 2",
        ),
        (with_rows(slice(50, 53), 0.0), LABELS, "3 of 200 rows have the same logit for every class"),
        (NOISE + 99 * np.eye(C)[1], None, "class 1 is the teacher's answer for all of 200 samples"),
        (GOOD, LABELS + 1, "labels go up to 5, and there are 5 classes"),
        (np.full((N, 1), 0.5), None, "all 200 rows are the same"),
        (softmax(GOOD[:, :2]), None, "as probabilities do"),
    ],
)
def test_rows_that_no_teacher_gives_are_said_once(
    tmp_path: Path, logits: Any, labels: Any, says: str
) -> None:
    with pytest.warns(CacheWarning, match=f"likely not a trained teacher's logits: .*{says}") as said:
        published(tmp_path / "cache.h5", logits, labels)
    assert len(said) == 1


@pytest.mark.parametrize(
    ("logits", "labels", "of"),
    [
        (GOOD, LABELS, {}),
        (GOOD, None, {}),
        (NOISE + 0.8 * np.eye(C)[LABELS], LABELS, {}),
        (np.log(softmax(GOOD)), LABELS, {}),
        (np.maximum(GOOD, 0) + 0.1, LABELS, {}),
        (GOOD, np.where(np.arange(N) < 150, -1, LABELS), {}),
        (NOISE + 99 * np.eye(C)[1], np.ones(N, int), {}),
        (softmax(NOISE), softmax(GOOD), {"num_targets": C}),
        (RANDOM.random((N, 1)), RANDOM.random((N, 1)), {"num_targets": 1}),
        (NOISE[:, :1], None, {}),
        (NOISE[:, :2], None, {}),
        (np.round(NOISE[:, :2] * 40) / 20, None, {}),
        (NOISE[:8], LABELS[:8], {}),
    ],
)
def test_what_is_near_it_is_not_doubted(tmp_path: Path, logits: Any, labels: Any, of: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doubts(published(tmp_path / "cache.h5", logits, labels, **of)) == []


def test_probabilities_are_said_at_the_first_batch_and_not_again(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(N, C, 1)) as writer:
        with pytest.warns(CacheWarning, match="as probabilities do"):
            writer.write(np.arange(100), softmax(GOOD[:100]))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            writer.write(np.arange(100, N), softmax(GOOD[100:]))
            writer.publish()


def test_softmax_outputs_are_refused_on_import_and_taken_as_what_they_are(tmp_path: Path) -> None:
    store, given = Store(tmp_path), softmax(GOOD)
    given[3] = [1, 0, 0, 0, 0]
    with pytest.raises(ValueRefusedError, match=r"these are probabilities.*--probabilities"):
        import_logits(store, given, LABELS, **SAID)
    path = import_logits(store, given, LABELS, **SAID, dtype="float32", probabilities=True)
    cache = LogitCache.open(path)
    assert np.allclose(softmax(cache.logits(slice(None))), given, atol=1e-6)
    assert cache.logits([3]).min() == pytest.approx(np.log(1e-12))
    accuracy = accuracy_in(cache)
    assert accuracy is not None
    assert accuracy.top1 > 0.8
    for logits in (np.log(given + 1e-9), GOOD):
        import_logits(store, logits, LABELS, **SAID)
        with pytest.raises(ValueRefusedError, match="probabilities: rows 0 to 199 of view 0 are not"):
            import_logits(store, logits, LABELS, **SAID, probabilities=True)


def test_columns_of_softmax_outputs_are_still_known_as_such(tmp_path: Path) -> None:
    store, given = Store(tmp_path), softmax(GOOD)
    with pytest.raises(ValueRefusedError, match="these are probabilities"):
        import_logits(store, given, None, **SAID, columns=[2, 0])
    path = import_logits(store, given, None, **SAID, dtype="float32", columns=[2, 0], probabilities=True)
    assert np.allclose(LogitCache.open(path).logits(slice(None)), np.log(given[:, [2, 0]]))


def test_a_regression_between_0_and_1_and_a_single_column_are_imported(tmp_path: Path) -> None:
    store, targets = Store(tmp_path), softmax(NOISE)
    import_logits(store, softmax(GOOD), targets, **SAID)
    import_logits(store, np.ones((N, 1)) - RANDOM.random((N, 1)), None, **SAID)
    for wrong in (softmax(GOOD), np.ones((N, 1))):
        with pytest.raises(ValueRefusedError, match="probabilities"):
            import_logits(store, wrong, targets[: len(wrong)], **SAID, probabilities=True)


@pytest.mark.parametrize("dtype", ["i8", "f4", "?"])
def test_one_hot_labels_are_refused_by_name(tmp_path: Path, dtype: str) -> None:
    with pytest.raises(ValueRefusedError, match=r"one-hot rows; give labels\.argmax"):
        import_logits(Store(tmp_path), GOOD, np.eye(C)[LABELS].astype(dtype), **SAID)


# What the writer takes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_tensors_are_taken_as_a_teacher_gives_them(tmp_path: Path, dtype: torch.dtype) -> None:
    logits = torch.from_numpy(GOOD).to(dtype).requires_grad_()
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(N, C, 1, "float32")) as writer:
        writer.write(torch.arange(N), logits * 1, labels=torch.from_numpy(LABELS))
        cache = LogitCache.open(writer.publish())
    assert np.array_equal(cache.logits(slice(None)), logits.detach().float().numpy())
    assert np.array_equal(cache.labels, LABELS)


IMAGES = RANDOM.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)
TOKENS = {"input_ids": torch.arange(12).reshape(4, 3), "attention_mask": torch.ones(4, 3)}


@pytest.mark.parametrize(
    ("inputs", "each"),
    [
        (IMAGES, list(IMAGES)),
        (torch.from_numpy(IMAGES), list(IMAGES)),
        (torch.rand(4, 3).requires_grad_() * 1, None),
        (torch.rand(4, 3).bfloat16(), None),
        ([Image.fromarray(image) for image in IMAGES], list(IMAGES)),
        (tuple(torch.from_numpy(IMAGES)), list(IMAGES)),
        ([image[: 3 + place] for place, image in enumerate(IMAGES)], None),
        (TOKENS, [{name: value[place] for name, value in TOKENS.items()} for place in range(4)]),
    ],
)
def test_what_the_teacher_saw_is_recorded(tmp_path: Path, inputs: Any, each: Any) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(4, C, 1)) as writer:
        writer.write([2, 0, 3, 1], GOOD[:4], inputs=inputs)
        cache = LogitCache.open(writer.publish())
    expected = [input_crc32(value) for value in (each or [inputs[place] for place in range(4)])]
    assert cache.input_crc32[0, [2, 0, 3, 1]].tolist() == expected


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"inputs": IMAGES[:3]}, ValueRefusedError, "inputs: expected 4, one for each index, found 3"),
        ({"inputs": {"a": IMAGES, "b": IMAGES[:2]}}, ValueRefusedError, "expected 4.*found 2, 4"),
        ({"inputs": ["a", "b", "c", "d"]}, ValueRefusedError, "expected tensors, arrays.*found str"),
        ({"inputs": 7}, ValueRefusedError, "found int"),
        ({"inputs": IMAGES, "input_crc32": [1, 2, 3, 4]}, ValueError, "give one of them"),
    ],
)
def test_inputs_that_cannot_be_recorded(tmp_path: Path, given: Any, error: Any, says: str) -> None:
    with (
        LogitCacheWriter(tmp_path / "cache.h5", manifest(4, C, 1)) as writer,
        pytest.raises(error, match=says),
    ):
        writer.write(np.arange(4), GOOD[:4], **given)


def test_overflow_names_both_ways_to_float32_and_keeps_what_was_written(tmp_path: Path) -> None:
    of = manifest(20_000, C, 1)
    good = np.tile(GOOD, (100, 1))
    for value, says in (
        (1e6, r'cache\.dtype = "float32".*Dense\("float32"\)'),
        (np.nan, "rows that were written are kept"),
    ):
        bad = good.copy()
        bad[19_999, 2] = value
        with LogitCacheWriter(tmp_path / "cache.h5", of) as writer:
            for rows in np.array_split(np.arange(20_000), 4):
                if rows[-1] < 19_999:
                    writer.write(rows, bad[rows])
                else:
                    with pytest.raises(ValueRefusedError, match=rf"sample 19999, view 0: .*{says}"):
                        writer.write(rows, bad[rows])
        with LogitCacheWriter(tmp_path / "cache.h5", of) as writer:
            assert writer.is_written().sum() >= 8192
            assert not writer.is_written()[19_999]
