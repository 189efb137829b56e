"""Blocks: every row of every table is in exactly one, any changed byte changes its entry, and rows lie where HDF5 looks
for them.
"""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from decant.cache.format.blocks import Blocks, StoredRows
from decant.cache.format.tables import Layout, Table, expected_tables, rows_per_block
from decant.cache.io.block_checks import damaged_blocks
from decant.cache.io.block_layout import WRITTEN, expected_entry
from tests.helpers.caches import answers, create_empty, manifest


def blocks_of(num_samples: int, num_outputs: int, num_views: int = 1) -> Blocks:
    of = manifest(num_samples, num_outputs, num_views)
    tables, end = {}, 4096
    for name, (shape, dtype) in expected_tables(of).items():
        tables[name] = Table(end, shape, dtype)
        end = -(-tables[name].end // 4096) * 4096
    return Blocks(Layout(of, tables))


@pytest.mark.parametrize("num_outputs", [1, 10, 100, 1000, 32_768, 32_769, 100_000])
@pytest.mark.parametrize("num_samples", [1, 31, 32, 33, 1000])
def test_blocks_cover_every_row_once(num_samples: int, num_outputs: int) -> None:
    blocks = blocks_of(num_samples, num_outputs)
    covered = [row for block in range(blocks.per_view) for row in range(*blocks.bounds(block))]
    assert covered == list(range(num_samples))
    assert blocks.rows == 1 << blocks.shift


@pytest.mark.parametrize(
    ("num_outputs", "rows"), [(1, 32_768), (100, 256), (1000, 32), (32_768, 1), (10**6, 1)]
)
def test_a_block_comes_near_64_kib(num_outputs: int, rows: int) -> None:
    assert rows_per_block(manifest(num_outputs=num_outputs)) == rows


def test_any_changed_byte_changes_the_entry() -> None:
    blocks, given = blocks_of(5, 3), answers(manifest(5, 3))
    content = bytearray(blocks.size)
    places = set()
    for table, column in given.items():
        first, encoded = blocks.offset(table, 0, 0), column.astype(blocks.columns[table].dtype).tobytes()
        content[first : first + len(encoded)] = encoded
        places |= set(range(first, first + len(encoded)))

    def read(first: int, end: int) -> bytes:
        return bytes(content[first:end])

    sound = expected_entry(blocks, read, 0)
    assert sound >= WRITTEN, "an entry is never 0, which says unwritten"
    for place in places:
        content[place] ^= 1
        assert expected_entry(blocks, read, 0) != sound, f"byte {place}"
        assert damaged_blocks(blocks, read, np.array([sound], "u8")) == [0]
        content[place] ^= 1
    assert damaged_blocks(blocks, read, np.array([sound], "u8")) == []


def test_every_byte_of_every_row_is_in_a_block_and_rows_of_views_in_one() -> None:
    blocks = blocks_of(70, 1000, 3)
    counts = np.zeros(blocks.size, int)
    for number in range(blocks.num_blocks):
        for first, end in blocks.ranges(number):
            counts[first:end] += 1
    for name, table in blocks.layout.tables.items():
        times = {"labels": 3, "blocks": 0, "seal": 0}.get(name, 1)  # the labels belong to every view
        assert set(counts[table.offset : table.end].tolist()) == {times}, name
        counts[table.offset : table.end] = 0
    assert not counts.any(), "no block has a byte between the tables"


def test_an_unwritten_block_is_not_damaged() -> None:
    blocks = blocks_of(100, 1000, 2)
    assert damaged_blocks(blocks, lambda *_: b"whatever", np.zeros(8, "u8")) == []


def test_a_block_is_named_by_its_rows() -> None:
    assert blocks_of(50, 1000).name(3, 1) == "view 3, block 1 (rows 32 to 49)"


@pytest.mark.parametrize("num_targets", [None, 3])
def test_rows_land_where_hdf5_looks_for_them(tmp_path: Path, num_targets: int | None) -> None:
    of = manifest(11, 5, 3, num_targets=num_targets)
    layout = create_empty(tmp_path / "cache.h5", of)
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
