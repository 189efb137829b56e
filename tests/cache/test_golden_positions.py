"""Files of samples with several positions each stay readable, and are written with the very same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decant.cache import LogitCache
from tests.golden.make_positions import KINDS, logits_of, make

GOLDEN = Path(__file__).parents[1] / "golden"
pytestmark = pytest.mark.filterwarnings("ignore:.*next token is.*:decant.cache.errors.CacheWarning")


@pytest.mark.parametrize("name", KINDS)
def test_a_file_with_positions_is_read(name: str) -> None:
    kind = KINDS[name]
    positions, everything = kind.positions, np.arange(kind.positions.num_samples)
    cache = LogitCache.open(GOLDEN / f"{name}.h5", verify="open")
    assert cache.manifest.encoding == kind.encoding
    assert cache.manifest.identity["positions"] == positions.identity
    assert cache.verify() == []
    of, within = positions.lengths.within(everything)
    for view in range(2):
        expected = kind.encoding.encode(logits_of(view, kind), of, view, within)
        for table, rows in cache.encoded(slice(None), view).items():
            assert np.array_equal(rows, expected[table]), table
        assert cache.input_crc32[view].tolist() == [10 * view + row for row in everything]
    if positions.tokens is not None:
        assert np.array_equal(cache.tokens(everything)[0], positions.tokens)
        assert np.array_equal(
            cache.places(everything), within if positions.places is None else positions.places
        )


@pytest.mark.parametrize("name", KINDS)
def test_it_is_written_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    made = make(tmp_path / "again.h5", KINDS[name])
    assert made.read_bytes() == (GOLDEN / f"{name}.h5").read_bytes()
