"""Where data come from: the embedded digits, torchvision's formats, and a person's own function."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torchvision.datasets
from numpy.typing import NDArray
from sklearn.datasets import load_diabetes

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import builtin, identity, load_data
from decant.pipeline.data.samples import LabelledData, Split, has_labels, num_outputs, num_targets, task_of
from tests.helpers.data import everything, read, refusal

PLAIN = ViewsSettings()


# digits


def test_digits_are_the_1797_images_each_in_one_part() -> None:
    from sklearn.datasets import load_digits

    train, test = read("digits"), read("digits", split="test")
    assert (len(train), len(test)) == (1437, 360)
    given = {
        image.tobytes(): label
        for image, label in zip(load_digits().images, load_digits().target, strict=True)
    }
    assert len(given) == 1797, "the set itself has no image twice"
    ours = np.concatenate([everything(train), everything(test)])
    labels = np.concatenate([train.labels, test.labels])
    sixteenths = np.rint(ours[:, 0] * (16 / 255))
    assert np.array_equal(ours[:, 0], np.rint(sixteenths * (255 / 16))), "16 grey levels over 0..255"
    found = {image.tobytes(): label for image, label in zip(sixteenths, labels, strict=True)}
    assert found == given


def test_no_test_digit_is_a_train_digit() -> None:
    train, test = (
        {image.tobytes() for image in everything(read("digits", split=split))} for split in ("train", "test")
    )
    assert not train & test


def test_digits_are_split_evenly_by_class() -> None:
    train, test = (
        np.bincount(read("digits", split=split).labels, minlength=10) for split in ("train", "test")
    )
    shares = test / (train + test)
    assert np.abs(shares - 360 / 1797).max() < 0.01, shares


def test_the_digits_and_their_order_can_never_change_unnoticed() -> None:
    assert read("digits").digest() == "636f67a7d4ac5a437c559c4280ea705878fd58b8e0cdb5a55ca3c74237b1214a"
    assert (
        read("digits", split="test").digest()
        == "a599c15bf6085bc5d73164dfc97cb588fbad7cd0ece2cec17ac9eef2bc4f8f09"
    )


def test_the_split_is_the_one_that_scikit_learn_drew() -> None:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    labels = load_digits().target
    _, test = train_test_split(np.arange(len(labels)), test_size=360, stratify=labels, random_state=0)
    assert np.array_equal(read("digits", split="test").labels, labels[np.sort(test)])


def test_digits_are_read_by_the_library_where_it_keeps_them_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digest = read("digits").digest()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    builtin._read_digits.cache_clear()
    assert read("digits").digest() == digest


def test_a_process_reads_the_file_of_the_digits_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read("digits")
    monkeypatch.setattr(gzip, "open", None)
    assert len(read("digits", split="test")) == 360


def test_digits_are_scaled_to_views_size() -> None:
    data = read("digits", size=16)
    assert data.input_shape == (1, 16, 16)
    assert np.array_equal(data.labels, read("digits").labels)
    assert read("digits", size=8).digest() == read("digits").digest()


# The embedded regression


def diabetes(split: Split) -> LabelledData:
    return load_data(DataSettings(name="diabetes"), ViewsSettings(), split)


def test_each_patient_is_in_one_part_with_the_features_as_they_come() -> None:
    features, progress = load_diabetes(return_X_y=True)
    rows = {
        tuple(row): value for row, value in zip(features.astype(np.float32).tolist(), progress, strict=True)
    }
    found = []
    for split, length in (("train", 353), ("test", 89)):
        part = diabetes(split)  # type: ignore[arg-type]
        assert (len(part), part.input_shape, part.labels.shape) == (length, (10,), (length, 1))
        inputs = part.raw(np.arange(length))
        assert inputs.dtype == part.labels.dtype == np.float32
        found += [tuple(row) for row in inputs.tolist()]
    assert len(found) == len(set(found)) == 442
    assert set(found) == set(rows)


def test_the_target_is_standardised_by_the_training_part_in_both() -> None:
    features, progress = load_diabetes(return_X_y=True)
    place = {tuple(row): index for index, row in enumerate(features.astype(np.float32).tolist())}
    train, test = diabetes("train"), diabetes("test")
    rows = {
        part.split: [place[tuple(row)] for row in part.raw(np.arange(len(part))).tolist()]
        for part in (train, test)
    }
    mean, std = progress[rows["train"]].mean(), progress[rows["train"]].std()
    for part in (train, test):
        assert np.allclose(part.labels[:, 0], (progress[rows[part.split]] - mean) / std, atol=1e-6)
    assert abs(train.labels.mean()) < 1e-6
    assert abs(train.labels.std() - 1) < 1e-6


def test_it_is_a_regression_of_one_target_the_same_every_time() -> None:
    data = diabetes("train")
    assert (task_of(data), num_targets(data), num_outputs(data), data.classes) == ("regression", 1, 1, ())
    assert has_labels(data)
    assert identity(data) == identity(diabetes("train"))
    assert identity(data)["sha256"] != identity(diabetes("test"))["sha256"]


# torchvision's sets, in the formats that their authors gave them


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape).astype(np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    """LeCun's format: two zeros, 8 for uint8, the number of dimensions, each big-endian, the bytes."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_mnist(root: Path, folder: str) -> dict[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    parts = {}
    (root / folder / "raw").mkdir(parents=True)
    for part, count in (("train", 7), ("t10k", 4)):
        images, labels = pixels(count, 28, 28), np.arange(count, dtype=np.uint8)
        parts[part] = images, labels
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            (root / folder / "raw" / name).write_bytes(idx(array))
    return parts


@pytest.mark.parametrize(("name", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
def test_mnist_is_grey_images_of_its_files(name: str, folder: str, tmp_path: Path) -> None:
    parts = write_mnist(tmp_path, folder)
    for split, part in (("train", "train"), ("test", "t10k")):
        data = read(name, tmp_path, split)  # type: ignore[arg-type]
        assert np.array_equal(everything(data), parts[part][0][:, None])
        assert np.array_equal(data.labels, parts[part][1])
        assert len(data.classes) == 10
    assert read(name, tmp_path, size=32).input_shape == (1, 32, 32)


def test_a_damaged_mnist_is_one_line_that_names_its_folder(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    for content in (b"", path.read_bytes()[:1000], b"\x00" * 5000):
        path.write_bytes(content)
        assert f"mnist: cannot be read from '{tmp_path}'" in refusal("mnist", tmp_path)


def accepted(path: Path) -> list[str]:
    """A file's name and checksum, as torchvision lists those that it takes."""
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def test_cifar_is_the_rows_of_its_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rows = {"data_batch_1": pixels(5, 3072), "data_batch_2": pixels(4, 3072), "test_batch": pixels(3, 3072)}
    for place, (name, data) in enumerate(rows.items()):
        (folder / name).write_bytes(pickle.dumps({"data": data, "labels": [place] * len(data)}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    kind = torchvision.datasets.CIFAR10
    monkeypatch.setattr(
        kind, "train_list", [accepted(folder / name) for name in ("data_batch_1", "data_batch_2")]
    )
    monkeypatch.setattr(kind, "test_list", [accepted(folder / "test_batch")])
    meta = dict(zip(("filename", "md5"), accepted(folder / "batches.meta"), strict=True))
    monkeypatch.setattr(kind, "meta", {**kind.meta, **meta})

    train, test = read("cifar10", tmp_path), read("cifar10", tmp_path, "test")
    expected = np.concatenate([rows["data_batch_1"], rows["data_batch_2"]]).reshape(9, 3, 32, 32)
    assert np.array_equal(everything(train), expected)
    assert train.labels.tolist() == [0] * 5 + [1] * 4
    assert np.array_equal(everything(test), rows["test_batch"].reshape(3, 3, 32, 32))
    assert train.classes == test.classes == tuple("abcdefghij")


def test_svhn_is_the_arrays_of_its_matlab_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = (
        pixels(32, 32, 3, 6),
        np.array([[10], [1], [2], [9], [10], [5]], np.uint8),
    )  # 10 is a zero
    scipy.io.savemat(tmp_path / "train_32x32.mat", {"X": images, "y": labels})
    name, digest = accepted(tmp_path / "train_32x32.mat")
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", {"train": ["", name, digest]})
    data = read("svhn", tmp_path)
    assert np.array_equal(everything(data), images.transpose(3, 2, 0, 1))
    assert data.labels.tolist() == [0, 1, 2, 9, 0, 5]
    assert data.classes == tuple("0123456789")


@pytest.mark.parametrize("name", builtin.TORCHVISION)
def test_a_failed_download_is_one_line_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # where nobody answers, so that no test downloads
    monkeypatch.setattr(
        time, "sleep", lambda seconds: pytest.fail("a download that fails is not tried again")
    )
    said = refusal(name, tmp_path)
    assert said.startswith(f"{name}: cannot be read from '{tmp_path}', nor downloaded there (")
    assert said.endswith("set data.root to where it is, or try again with a network")
