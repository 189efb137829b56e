"""Rows by their place: what is written at a place is what HDF5 finds there, and nothing beside it changes."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from decant.cache.format.hdf5 import create
from decant.cache.format.rows import StoredRows
from tests.helpers.caches import answers, manifest


@pytest.mark.parametrize("num_targets", [None, 3])
def test_rows_land_where_hdf5_looks_for_them(tmp_path: Path, num_targets: int | None) -> None:
    of = manifest(11, 5, 3, num_targets=num_targets)
    layout = create(tmp_path / "cache.h5", of)
    fd = os.open(tmp_path / "cache.h5", os.O_RDWR)
    rows = StoredRows(fd, layout, tmp_path / "cache.h5")
    given = answers(of, 1)
    for table, column in given.items():
        rows.write(table, 1, 4, column[4:9].astype(layout.tables[table].dtype))
        assert np.array_equal(rows.read_array(table, 1, 4, 9), column[4:9])
    rows.write_entry(2, 0, 2**32 + 5)
    assert rows.read_entries().tolist() == [[0], [0], [2**32 + 5]]
    os.close(fd)
    with h5py.File(tmp_path / "cache.h5") as file:
        for table, column in given.items():
            expected = np.zeros(layout.tables[table].shape, layout.tables[table].dtype)
            (expected if table == "labels" else expected[1])[4:9] = column[4:9]
            np.testing.assert_array_equal(file[table], expected)
