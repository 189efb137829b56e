"""Arrays and weights in archives: what they unpack to is looked at before it is unpacked."""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from decant.cache.io import usage
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import load_data
from decant.pipeline.data.array_files import read_table
from decant.pipeline.errors import DataError, WeightsError
from decant.pipeline.networks.foreign_weights.class_names import names_in_file
from decant.pipeline.networks.foreign_weights.reading import read_checkpoint
from decant.pipeline.training.epoch_log import METRICS, keep_epochs, read_epochs
from tests.helpers.memory import MIB, peak_mib

MOST = 100  # MiB, of files that are smaller than 2


def compressed(content: bytes, path: Path, times: int = 200) -> Path:
    """A zip archive again, with members deflated, and one more of zeros."""
    with (
        zipfile.ZipFile(io.BytesIO(content)) as archive,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as made,
    ):
        for member in archive.infolist():
            made.writestr(member.filename, archive.read(member))
        made.writestr(f"{archive.infolist()[0].filename.partition('/')[0]}/data/77", bytes(times * MIB))
    return path


def saved(content: object) -> bytes:
    file = io.BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".ckpt", ".tar"])
def test_weights_that_unpack_to_many_times_their_size_are_refused(ending: str, tmp_path: Path) -> None:
    path = compressed(saved({"weight": torch.zeros(3)}), tmp_path / f"net{ending}")

    def read() -> None:
        with pytest.raises(
            WeightsError, match=r"net.*: it unpacks to|it is damaged or cut short.*unpacks to"
        ):
            read_checkpoint(path)

    assert peak_mib(read) < MOST


def test_weights_that_were_packed_again_are_read(tmp_path: Path) -> None:
    path = compressed(saved({"weight": torch.arange(3.0)}), tmp_path / "net.pth", times=0)
    found = read_checkpoint(path)
    assert isinstance(found, dict)
    assert found["weight"].tolist() == [0.0, 1.0, 2.0]


def test_arrays_that_unpack_to_many_times_their_size_are_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "zeros.npz", np.zeros((200, MIB), np.uint8))
    np.savez_compressed(tmp_path / "ones.npz", np.ones((20, 10), np.float32))
    (tmp_path / "zeros.pt").write_bytes(compressed(saved(torch.zeros(3, 2)), tmp_path / "x").read_bytes())

    def read() -> None:
        for name in ("zeros.npz", "zeros.pt"):
            with pytest.raises(DataError, match=f"{name}: .*unpacks to"):
                read_table(str(tmp_path / name))

    assert peak_mib(read) < MOST
    assert read_table(str(tmp_path / "ones.npz")).sum() == 200


def test_tables_that_say_more_than_a_memory_holds_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("logits", (10**8, 10**5), "f4", chunks=(1000, 1000))
    (tmp_path / "a.pt").write_bytes(saved(torch.zeros(1).expand(10**7, 10**6)))
    np.save(tmp_path / "a.npy", np.zeros((2, 3)))
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(
        whole.replace(b"(2, 3)", b"(99999999999, 9)".ljust(6))[:128] + whole[128:]
    )

    def read() -> None:
        for name in ("a.h5", "a.pt", "a.npy"):
            with pytest.raises(DataError, match=f"{name}: "):
                read_table(str(tmp_path / name))

    assert peak_mib(read) < MOST


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["sparse", "meta", "quantised", "complex"])
def test_tensors_that_are_no_tables_are_named(kind: str, tmp_path: Path) -> None:
    tensor = {
        "sparse": lambda: torch.ones(3, 4).to_sparse(),
        "meta": lambda: torch.ones(3, 4, device="meta"),
        "quantised": lambda: torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8),
        "complex": lambda: torch.ones(3, 4, dtype=torch.complex64),
    }[kind]()
    (tmp_path / "a.pt").write_bytes(saved(tensor))
    with pytest.raises(DataError, match=r"a\.pt: expected a plain tensor"):
        read_table(str(tmp_path / "a.pt"))


def test_files_of_holes_are_not_read_whole(tmp_path: Path) -> None:
    """A few hundred bytes of an archive unpack to a file that says it has a thousand thousand million of them."""
    names = (METRICS, "a.h5.uses", "config.json")
    for name in names:
        with open(tmp_path / name, "w") as file:
            file.truncate(10**12)
    holes = tarfile.TarInfo("b.png")
    holes.size = 10**12
    label = tarfile.TarInfo("b.cls")
    label.size = 1
    with open(tmp_path / "train.tar", "wb") as file:
        file.write(holes.tobuf())
        file.seek(-(-(10**12) // 512) * 512, os.SEEK_CUR)
        file.write(label.tobuf() + b"0".ljust(512, b"\0") + bytes(1024))
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pth")

    def read() -> None:
        assert read_epochs(tmp_path) == []
        with pytest.raises(OSError, match="1,000,000,000,000 bytes, and at most"):
            keep_epochs(tmp_path, 1)
        assert usage.count(tmp_path / "a.h5") == 0
        assert names_in_file(tmp_path / "net.pth", 3) is None
        with pytest.raises(DataError, match=r"train\.tar: has a member of 1,000,000,000,000 bytes"):
            load_data(DataSettings(name="webdataset", root=str(tmp_path)), ViewsSettings(), "train")

    assert peak_mib(read) < MOST
