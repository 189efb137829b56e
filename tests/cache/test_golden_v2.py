"""Files of version 2 stay readable, and are written with the very same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from decant.cache import LogitCache
from tests.golden.make_v2 import ENCODINGS, logits_of, make

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("name", ENCODINGS)
def test_a_file_of_version_2_is_read(name: str) -> None:
    encoding, outputs = ENCODINGS[name]
    cache = LogitCache.open(GOLDEN / f"{name}.h5", verify="open")
    assert cache.manifest.encoding == encoding
    assert cache.manifest.info == {"made_by": "decant 0.1.0"}
    for view in range(2):
        expected = encoding.encode(logits_of(view, encoding.given_width(outputs)), np.arange(7), view)
        for table, rows in cache.encoded(slice(None), view).items():
            assert np.array_equal(rows, expected[table]), table
        assert cache.input_crc32[view].tolist() == [10 * view + row for row in range(7)]


@pytest.mark.parametrize("name", ENCODINGS)
def test_it_is_written_with_the_same_bytes(name: str, tmp_path: Path) -> None:
    encoding, outputs = ENCODINGS[name]
    made = make(tmp_path / "again.h5", encoding, outputs)
    assert made.read_bytes() == (GOLDEN / f"{name}.h5").read_bytes()
