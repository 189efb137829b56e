"""What may be stored: everything else is refused before a byte is written, naming sample and view."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decant.cache import LogitCache, LogitCacheWriter, ValueRefusedError
from tests.helpers.caches import answers, manifest, write

ROWS = np.array([4, 2, 9])


def refused(tmp_path: Path, change: dict[str, Any], **of: Any) -> str:
    """What a write says with these arguments changed; no row may count as written after it."""
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(**of)) as writer:
        given: dict[str, Any] = {name: column[ROWS] for name, column in answers(writer.manifest, 1).items()}
        with pytest.raises(ValueRefusedError) as caught:
            writer.write(**{"indices": ROWS, "view": 1, **given, **change})
        assert not writer.is_written(0).any()
        assert not writer.is_written(1).any()
    return str(caught.value)


def logits_with(value: float, dtype: str = "float32") -> np.ndarray:
    logits = np.zeros((3, 1000), dtype)
    logits[1, 500] = value
    return logits


@pytest.mark.parametrize(
    ("value", "dtype", "why"),
    [
        (np.nan, "float16", "logit nan is not finite"),
        (np.inf, "float16", "logit inf is not finite"),
        (-np.inf, "float32", "logit -inf is not finite"),
        (70_000.0, "float16", "overflows float16"),
        (-65_520.0, "float16", "overflows float16"),
        (1e39, "float32", "overflows float32"),
    ],
)
def test_a_logit_that_cannot_be_stored(tmp_path: Path, value: float, dtype: str, why: str) -> None:
    message = refused(tmp_path, {"logits": logits_with(value, "float64")}, dtype=dtype)
    assert message.startswith("sample 2, view 1: logit")
    assert why in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"indices": [4, 50, 9]}, "sample 50, view 1: the cache has samples 0 to 49"),
        ({"indices": [4, -1, 9]}, "sample -1, view 1"),
        ({"indices": [4, 2, 4]}, "sample 4, view 1: given twice"),
        ({"indices": np.array([4, 2**63, 9], "u8")}, f"sample {2**63}"),
        ({"indices": [4.0, 2.0, 9.0]}, r"indices: expected (B,) integers"),
        ({"indices": [[4, 2, 9]]}, r"indices: expected (B,) integers"),
        ({"indices": [True, False, True]}, r"indices: expected (B,) integers"),
        ({"indices": [4, [2], 9]}, "indices: "),
        ({"view": 2}, "view: expected 0 to 1, found 2"),
        ({"view": -1}, "view: expected 0 to 1, found -1"),
        ({"view": 0.5}, "view: expected an integer"),
        ({"logits": np.zeros((3, 999), "f4")}, "expected (3, 1000) floats, found (3, 999)"),
        ({"logits": np.zeros((2, 1000), "f4")}, "expected (3, 1000) floats, found (2, 1000)"),
        ({"logits": np.zeros((3, 1000), "i4")}, "found (3, 1000) int32"),
        ({"logits": np.zeros((3, 1000), "c8")}, "complex64"),
        ({"logits": {"logits": np.zeros((3, 1000))}}, "found dict, as some models return; give its logits"),
        ({"logits": torch.zeros(3, 1000, dtype=torch.int8)}, "found (3, 1000) int8"),
        ({"labels": [1, 2]}, "labels: expected (3,) int64, found (2,)"),
        ({"labels": [1.0, 2.0, 3.0]}, "labels: expected (3,) int64"),
        ({"labels": 1.5}, "labels: expected (3,) int64"),
        ({"labels": np.array([1, 2, 2**63], "u8")}, "sample 9, view 1: labels"),
        ({"input_crc32": [1, -1, 2]}, "sample 2, view 1: input_crc32 -1 is no uint32"),
        ({"input_crc32": [1, 2, 2**32]}, "sample 9, view 1: input_crc32"),
        ({"input_crc32": ["a", "b", "c"]}, "input_crc32: expected (3,) uint32"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    assert says in refused(tmp_path, change)


@pytest.mark.parametrize(
    "labels", [np.zeros((3, 2)), np.zeros(3), np.full((3, 4), np.inf), np.full((3, 4), 1e39)]
)
def test_regression_targets_that_do_not_fit(tmp_path: Path, labels: np.ndarray) -> None:
    assert "labels" in refused(tmp_path, {"labels": labels}, num_targets=4)


def test_the_largest_float16_is_stored_as_it_is(tmp_path: Path) -> None:
    of = manifest(3, 4, 1)
    logits = np.array([[65_504.0, -65_504.0, 6e-8, 0.1]] * 3)
    with LogitCacheWriter(tmp_path / "cache.h5", of) as writer:
        writer.write([0, 1, 2], logits)
        cache = LogitCache.open(writer.publish())
    np.testing.assert_array_equal(cache.logits([0, 1, 2]), logits.astype("f2"))
    assert cache.labels.tolist() == [-1, -1, -1], "no label was given"


@pytest.mark.parametrize("column", ["logits", "labels", "input_crc32"])
def test_an_index_written_twice_must_have_the_same_values(tmp_path: Path, column: str) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write(writer, 0, ROWS)
        write(writer, 0, ROWS)  # the same again is nothing new
        given = {name: values[ROWS].copy() for name, values in answers(writer.manifest).items()}
        given[column][1] += 1
        with pytest.raises(ValueRefusedError, match=f"sample 2, view 0: already stored with other {column}"):
            writer.write(ROWS, **given)


def test_views_of_a_sample_share_its_label(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest()) as writer:
        write(writer, 0, ROWS)
        given = {name: values[ROWS].copy() for name, values in answers(writer.manifest, 1).items()}
        given["labels"][2] += 1
        with pytest.raises(
            ValueRefusedError, match="sample 9, view 1: already stored with other labels, for another"
        ):
            writer.write(ROWS, **given, view=1)
