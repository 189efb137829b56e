"""Every encoding, and samples with several positions each, by whole copies and lazily."""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

from decant.cache import FormatError, LogitCache
from decant.cache.remote.opening import open_folder
from decant.cache.remote.publishing import publish
from tests.helpers import positions as of_positions
from tests.helpers.processes import ROOT


@pytest.fixture(
    params=["v1", "v2-dense-u8", "v2-sparse", "v2-sparse-high", "v2-draws-high", "v2-hidden", "positions"]
)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "positions":
        return of_positions.build(tmp_path / "positions.h5")
    return ROOT / f"tests/golden/{request.param}.h5"


@pytest.mark.parametrize("lazy", [False, True])
def test_a_copy_is_the_file(path: Path, lazy: bool) -> None:
    store = f"memory://{uuid.uuid4().hex}"
    assert publish(path, open_folder(store)).made
    whole, cache = LogitCache.open(path), LogitCache.open(f"{store}/{path.name}", lazy=lazy)
    samples = np.arange(whole.num_samples)[::-1]
    cache.prefetch(samples)
    for view in range(whole.num_views):
        there, here = whole.encoded(samples, view), cache.encoded(samples, view)
        assert there.keys() == here.keys()
        for name, rows in there.items():
            assert np.array_equal(rows, here[name])
        assert np.array_equal(whole.logits(samples, view), cache.logits(samples, view))
    assert np.array_equal(whole.labels, cache.labels)
    assert np.array_equal(whole.input_crc32, cache.input_crc32)
    assert cache.verify() == []
    cache.check_unchanged(checksums=True)
    assert cache.path.read_bytes() == path.read_bytes()


def test_offsets_are_checked_before_a_row_is_asked_for(tmp_path: Path) -> None:
    content = bytearray(of_positions.build(tmp_path / "p.h5").read_bytes())
    table = LogitCache.open(tmp_path / "p.h5")._layout.tables["offsets"]
    content[table.offset + 8] ^= 1
    store = open_folder(f"memory://{uuid.uuid4().hex}")
    store.put_small("p.h5", bytes(content))
    with pytest.raises(FormatError, match="`offsets`"):
        LogitCache.open(f"{store.shown}/p.h5", lazy=True)
