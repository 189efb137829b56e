"""The layout: every byte of a file has one place and one meaning, and a file with another one is refused."""

from __future__ import annotations

import errno
import itertools
import os
import struct
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from decant.cache import FormatError, LogitCache, Manifest, NewerFormatError
from decant.cache.format import hdf5
from decant.cache.format.hdf5 import PAGE, check
from decant.cache.format.tables import Layout, expected_size, expected_tables
from decant.cache.io.flock import EXCLUSIVE, try_flock
from tests.helpers.caches import answers, build, create_empty, manifest, repair_checksums, reseal

GOLDEN = Path(__file__).parents[1] / "golden" / "v1.h5"


def check_path(path: Path) -> Layout:
    with open(path, "rb") as file:
        return check(file, str(path))


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("num_targets", [None, 1, 3])
@pytest.mark.parametrize(("samples", "outputs", "views"), [(1, 1, 1), (50, 1000, 2), (3000, 7, 5)])
def test_what_is_created_is_what_the_manifest_says(
    tmp_path: Path, samples: int, outputs: int, views: int, num_targets: int | None, dtype: str
) -> None:
    of = manifest(samples, outputs, views, dtype, num_targets=num_targets)
    created = create_empty(tmp_path / "cache.h5", of)
    assert check_path(tmp_path / "cache.h5") == created
    assert created.manifest == of
    for name, (shape, stored) in expected_tables(of).items():
        table = created.tables[name]
        assert (table.shape, table.dtype) == (shape, stored)
        assert table.offset % PAGE == 0
    assert created.size == os.path.getsize(tmp_path / "cache.h5")
    assert expected_size(of) <= created.size <= expected_size(of) + 2**18


def test_any_hdf5_tool_can_read_it(tmp_path: Path) -> None:
    with h5py.File(build(tmp_path / "cache.h5")) as file:
        assert file.attrs["format"] == b"soft-label-cache"
        assert file.attrs["format_version"] == 1
        for view in range(2):
            expected = answers(manifest(), view)
            np.testing.assert_array_equal(file["logits"][view], expected["logits"])
            np.testing.assert_array_equal(file["labels"], expected["labels"])
            np.testing.assert_array_equal(file["input_crc32"][view], expected["input_crc32"])


def test_equal_content_gives_equal_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    first = build(tmp_path / "first.h5").read_bytes()
    time.sleep(1.1)  # HDF5 times are in seconds
    assert build(tmp_path / "second.h5").read_bytes() == first


@pytest.mark.parametrize("size", [0, 1000, 20_000, 55_000])
def test_the_header_holds_manifests_of_every_size(tmp_path: Path, size: int) -> None:
    of = manifest(info={"long": "x" * size})
    create_empty(tmp_path / "cache.h5", of)
    assert check_path(tmp_path / "cache.h5").manifest == of


def test_creating_never_overwrites(tmp_path: Path) -> None:
    create_empty(tmp_path / "cache.h5", manifest())
    with pytest.raises(FileExistsError):
        create_empty(tmp_path / "cache.h5", manifest())


def test_libhdf5_takes_no_lock(tmp_path: Path) -> None:
    """It ends with an error on file systems that have none."""
    file = hdf5._new_file(tmp_path / "cache.h5", PAGE)
    with open(tmp_path / "cache.h5", "rb") as other:
        assert try_flock(other.fileno(), EXCLUSIVE) is not False
    file.close()


def test_a_file_that_cannot_be_written_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(hdf5, "write_all", full)
    free = [os.dup(0) for _ in range(3)]
    for one in free:
        os.close(one)
    with pytest.raises(OSError, match="No space"):
        hdf5.create(tmp_path / "cache.h5", manifest())
    again = [os.dup(0) for _ in free]
    for one in again:
        os.close(one)
    assert again == free


def test_every_byte_outside_the_tables_is_checked_before_any_row(tmp_path: Path) -> None:
    """Header, gaps between tables, and seal: no byte of them can change without being seen on opening."""
    path = build(tmp_path / "cache.h5", manifest(3, 2, 1))
    content = bytearray(path.read_bytes())
    tables = check_path(path).tables
    inside = {place for table in tables.values() for place in range(table.offset, table.end)}
    path.chmod(0o600)
    with open(path, "r+b") as file:
        header = range(tables["logits"].offset)
        gaps = [place for place in range(len(header), len(content) - 40, 13) if place not in inside]
        for place in [*header, *gaps, *range(len(content) - 40, len(content))]:
            os.pwrite(file.fileno(), bytes([content[place] ^ (1 << place % 8)]), place)
            with pytest.raises(FormatError):
                check(file, "cache.h5")
            os.pwrite(file.fileno(), content[place : place + 1], place)
        check(file, "cache.h5")


@pytest.mark.parametrize("length", [0, 1, 7, 8, 47, 4096, 32_767, 32_768, 40_000, -41, -1])
def test_a_file_that_is_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    content = build(tmp_path / "cache.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[:length])
    with pytest.raises(FormatError, match=r"cut short|not an HDF5 file|seal"):
        check_path(tmp_path / "cut.h5")


def test_a_file_that_goes_on_is_refused(tmp_path: Path) -> None:
    content = build(tmp_path / "cache.h5").read_bytes()
    (tmp_path / "long.h5").write_bytes(content + b"\0")
    with pytest.raises(FormatError, match="seal"):
        check_path(tmp_path / "long.h5")


def test_a_newer_format_is_refused_by_name(tmp_path: Path) -> None:
    content = bytearray(build(tmp_path / "cache.h5").read_bytes())
    at = content.index(struct.pack("<q", 1), content.index(b"format_version"))
    content[at] = 3
    repair_checksums(content)
    reseal(content)
    (tmp_path / "newer.h5").write_bytes(content)
    with pytest.raises(
        NewerFormatError, match=r"newer\.h5: format_version: read up to 2, found 3; update decant"
    ):
        check_path(tmp_path / "newer.h5")


def test_version_1_stays_readable() -> None:
    cache = LogitCache.open(GOLDEN, verify="open")
    assert cache.manifest.key == "9c0e8e7add38f17f20bd42e464476df1980eed57f3f65d9ea2264db2d22a09b2"
    assert cache.manifest.info == {"made_by": "decant 0.1.0"}
    for view in range(2):
        expected = (np.arange(35).reshape(7, 5) - 17) / 8 + 100 * view
        assert np.array_equal(cache.logits(slice(None), view), expected.astype("f2"))
        assert cache.input_crc32[view].tolist() == [row + 10 * view for row in range(7)]
    assert cache.labels.tolist() == [0, 1, 2, 3, 4, 0, 1]


def test_version_1_is_written_as_it_was(tmp_path: Path) -> None:
    """The golden file's own manifest and rows give its very bytes, also after the library that writes them changes."""
    golden = LogitCache.open(GOLDEN)
    from decant.cache import LogitCacheWriter

    with LogitCacheWriter(tmp_path / "again.h5", golden.manifest) as writer:
        for view in range(golden.num_views):
            rows: dict[str, Any] = {"logits": golden.logits(slice(None), view), "labels": golden.labels}
            writer.write(np.arange(7), **rows, input_crc32=golden.input_crc32[view], view=view)
        writer.publish()
    assert check_path(tmp_path / "again.h5").tables == check_path(GOLDEN).tables
    assert (tmp_path / "again.h5").read_bytes() == GOLDEN.read_bytes()


def test_a_size_beyond_any_file_is_an_error_in_words(tmp_path: Path) -> None:
    bomb = Manifest.build(num_samples=2**40, num_outputs=2**24, num_views=2**24)
    with pytest.raises(FormatError, match="more than a file can have"):
        create_empty(tmp_path / "bomb.h5", bomb)


@pytest.mark.parametrize("call", range(1, 7))
def test_a_disk_that_fails_is_no_damaged_file(
    tmp_path: Path, call: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the file, and does not advise to delete it."""
    path, calls, pread = build(tmp_path / "cache.h5"), itertools.count(1), os.pread

    def fail(*given: int) -> bytes:
        if next(calls) == call:
            raise OSError(errno.EIO, "Input/output error")
        return pread(*given)

    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(OSError, match=r"Input/output error: '.*cache\.h5'"):
        LogitCache.open(path)
