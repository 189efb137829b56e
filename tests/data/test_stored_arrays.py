"""Arrays of .npz files that are mapped: what NumPy reads, whatever is in the file, and memory for a part of it."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from decant.pipeline.data.array_files import read_arrays
from decant.pipeline.data.stored_arrays import stored_arrays
from decant.pipeline.errors import DataError

GIVEN = {
    "ids": np.arange(12, dtype=np.uint16).reshape(3, 4),
    "log_probs": np.float16([[-0.5, -1.0]]),
    "none": np.empty((0, 3), np.float32),
    "one": np.array(7),
    "big endian": np.arange(3, dtype=">i4"),
}


def test_they_are_what_numpy_reads(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, columns=np.asfortranarray(np.ones((2, 3))), **GIVEN)
    mapped, found = stored_arrays(path), read_arrays(path)
    assert mapped.keys() == GIVEN.keys()
    assert list(found) == ["columns", *GIVEN]
    for name, array in GIVEN.items():
        assert found[name].dtype == array.dtype
        assert np.array_equal(found[name], array)
        assert not found[name].flags.writeable
    np.savez_compressed(path, **GIVEN)
    assert stored_arrays(path) == {}
    assert np.array_equal(read_arrays(path)["ids"], GIVEN["ids"])


def test_a_changed_byte_is_found(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, ids=np.arange(1_000))
    content = bytearray(path.read_bytes())
    content[4_000] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match="Bad CRC-32"):
        read_arrays(path)


def test_objects_and_arrays_that_say_more_than_they_hold_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, odd=np.array([{}], dtype=object))
    with pytest.raises(DataError, match="allow_pickle"):
        read_arrays(path)
    whole = tmp_path / "b.npy"
    np.save(whole, np.arange(10))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("short.npy", whole.read_bytes()[:-8])
    assert stored_arrays(path) == {}
    with pytest.raises(DataError, match="cannot be read as a"):
        read_arrays(path)
