"""Tables of other programs are read as they are, and nothing is run that they hold."""

from __future__ import annotations

from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from decant.pipeline.data.array_files import read_table
from decant.pipeline.errors import DataError

TABLE = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float16)


@pytest.mark.parametrize("kind", ["npy", "pt", "h5"])
def test_a_table_is_read_from_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"table.{kind}"
    if kind == "npy":
        np.save(path, TABLE)
    elif kind == "pt":
        torch.save(torch.from_numpy(TABLE), path)
    else:
        with h5py.File(path, "w") as file:
            file["deep/logits"] = TABLE
    source = f"{path}:deep/logits" if kind == "h5" else str(path)
    assert np.array_equal(read_table(source).astype(np.float16), TABLE)


def test_nothing_is_unpickled_from_a_file_of_somebody_else(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, ...]:
            return (tmp_path.joinpath("sprung").mkdir, ())

    torch.save({"logits": Trap()}, tmp_path / "trap.pt")
    np.save(tmp_path / "trap.npy", np.array([Trap()], dtype=object), allow_pickle=True)
    for name in ("trap.pt", "trap.npy"):
        with pytest.raises(DataError, match=name):
            read_table(str(tmp_path / name))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["text.csv", "data.h5", "broken.npy", "data.h5:gone"])
def test_a_file_that_is_no_table_is_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name.partition(":")[0]).write_bytes(b"no table")
    with pytest.raises(DataError, match=name.partition(":")[0]):
        read_table(str(tmp_path / name))


def test_many_tables_under_one_name_are_no_table(tmp_path: Path) -> None:
    np.savez(tmp_path / "many.npz", a=np.zeros(3))
    (tmp_path / "many.npz").rename(tmp_path / "many.npy")
    with pytest.raises(DataError, match=r"expected FILE\.npy"):
        read_table(str(tmp_path / "many.npy"))
