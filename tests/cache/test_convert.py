"""Logits from elsewhere come in as they are, and go out as they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import CacheError, LogitCache, MismatchError, Store, ValueRefusedError
from decant.cache.convert import export_logits, import_logits

LOGITS = np.random.default_rng(0).normal(size=(3, 60, 5)).astype(np.float16)
LABELS = np.arange(60) % 5
STATED = {"teacher": {"network": "mine"}, "data": {"name": "elsewhere"}}


@pytest.mark.parametrize("views", [1, 3])
def test_what_is_imported_is_exported_bit_for_bit(tmp_path: Path, views: int) -> None:
    path = import_logits(Store(tmp_path), LOGITS[:views], LABELS, **STATED)
    cache = LogitCache.open(path)
    assert np.array_equal(cache.labels, LABELS)
    assert export_logits(cache, tmp_path / "all.npy") == (views, 60, 5)
    assert np.load(tmp_path / "all.npy").tobytes() == LOGITS[:views].tobytes()
    assert export_logits(cache, tmp_path / "one.npy", view=views - 1) == (60, 5)
    assert np.load(tmp_path / "one.npy").tobytes() == LOGITS[views - 1].tobytes()


def test_labels_that_are_rows_of_floats_are_the_targets_of_a_regression(tmp_path: Path) -> None:
    targets = np.random.default_rng(1).normal(size=(60, 5))
    cache = LogitCache.open(import_logits(Store(tmp_path), LOGITS[0], targets, **STATED))
    assert cache.manifest.num_targets == 5
    assert np.array_equal(cache.labels, targets.astype(np.float32))


def test_the_same_import_is_found_and_another_table_is_another_cache(tmp_path: Path) -> None:
    store = Store(tmp_path)
    first = import_logits(store, LOGITS[0], LABELS, **STATED)
    assert import_logits(store, LOGITS[0], LABELS, **STATED) == first
    assert import_logits(store, LOGITS[1], LABELS, **STATED) != first


def test_values_and_shapes_are_checked(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for logits, labels in [
        (LOGITS[0, 0], None),
        (LOGITS[0].astype(int), None),
        (LOGITS[0], LABELS[:-1]),
        (LOGITS[0], np.zeros((59, 5))),
        (LOGITS[0], np.zeros((60, 5), int)),
        (np.full((4, 2), np.nan), None),
        (np.full((4, 2), 1e6), None),
    ]:
        with pytest.raises(ValueRefusedError):
            import_logits(store, logits, labels, **STATED)
    assert store.paths() == []


def test_a_damaged_cache_is_not_exported_as_if_it_were_sound(tmp_path: Path) -> None:
    path = import_logits(Store(tmp_path), LOGITS[0], LABELS, **STATED)
    content = bytearray(path.read_bytes())
    content[LogitCache.open(path).manifest.num_samples + 40_000] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(CacheError):
        export_logits(LogitCache.open(path), tmp_path / "out.npy")


@pytest.mark.parametrize("about", [{"data": {"length": 61}}, {"views": {"count": 2}}])
def test_logits_of_other_sizes_than_their_data_are_refused(about: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(MismatchError, match="as the data have it, found"):
        import_logits(Store(tmp_path), LOGITS, LABELS, **{**STATED, **about})
    assert not list(tmp_path.glob("*.h5"))


def test_an_export_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    path = import_logits(Store(tmp_path), LOGITS, LABELS, **STATED)
    cache = LogitCache.open(path)
    export_logits(cache, tmp_path / "out.npy")
    before = (tmp_path / "out.npy").read_bytes()
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[content.index(LOGITS[2].tobytes())] ^= 1
    path.write_bytes(content)
    with pytest.raises(CacheError):
        export_logits(LogitCache.open(path), tmp_path / "out.npy")
    assert (tmp_path / "out.npy").read_bytes() == before
    assert not list(tmp_path.glob("out.npy.*"))
