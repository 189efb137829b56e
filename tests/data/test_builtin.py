"""Where data come from: the embedded digits, torchvision's formats, and a person's own function."""

from __future__ import annotations

import hashlib
import pickle
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import builtin, load
from decant.pipeline.data.samples import NO_LABEL, LabelledData, Split
from decant.pipeline.errors import DataError

PLAIN = ViewsSettings()


def read(name: str, root: Path | str = "data", split: Split = "train", **views: Any) -> LabelledData:
    return load(DataSettings(name=name, root=str(root)), ViewsSettings(**views), split)


def everything(data: LabelledData) -> NDArray[Any]:
    return data.raw(np.arange(len(data)))


def refusal(name: str, root: Path | str = "data", split: Split = "train", **views: Any) -> str:
    with pytest.raises(DataError) as caught:
        everything(read(name, root, split, **views))
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


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


def test_digits_are_scaled_to_views_size() -> None:
    data = read("digits", size=16)
    assert data.input_shape == (1, 16, 16)
    assert np.array_equal(data.labels, read("digits").labels)
    assert read("digits", size=8).digest() == read("digits").digest()


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


# A person's own function


class Samples:
    """What a person might hand over: inputs and labels in lists, and how often each was read."""

    def __init__(self, inputs: list[Any], labels: list[Any], **more: Any) -> None:
        self.inputs, self.labels_, self.reads = inputs, labels, 0
        self.__dict__.update(more)

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        self.reads += 1
        return self.inputs[index], self.labels_[index]


IMAGES = pixels(300, 3, 4, 5)


def as_arrays(root: str, split: str) -> Samples:
    return Samples(list(IMAGES), [int(index % 3) for index in range(300)], classes=["a", "b", "c"])


def as_tensors(root: str, split: str) -> Samples:
    return Samples(list(torch.from_numpy(IMAGES)), list(torch.arange(300) % 3))


def as_pillow(root: str, split: str) -> Samples:
    return Samples([Image.fromarray(image.transpose(1, 2, 0)) for image in IMAGES], list(np.arange(300) % 3))


def as_subset(root: str, split: str) -> torch.utils.data.Subset[Any]:
    return torch.utils.data.Subset(as_arrays(root, split), range(300))  # type: ignore[arg-type]


def with_targets(root: str, split: str) -> Samples:
    return Samples(list(IMAGES), [index % 3 for index in range(300)], targets=torch.arange(300) % 3)


@pytest.mark.parametrize("function", [as_arrays, as_tensors, as_pillow, as_subset])
@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_a_function_gives_images_in_any_form(
    function: Callable[..., Any], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builtin, "MAX_ARRAY_BYTES", limit)
    data = read(f"{__name__}:{function.__name__}")
    assert data.lazy == (limit == 0)
    assert np.array_equal(everything(data), IMAGES)
    assert data.labels.tolist() == [index % 3 for index in range(300)]
    assert data.classes == (("a", "b", "c") if function is as_arrays else ())
    assert read(f"{__name__}:{function.__name__}", size=2).input_shape == (3, 2, 2)


def features(root: str, split: str) -> list[tuple[list[float], int]]:
    return [([index / 7, -1.0], index) for index in range(3)]


def unlabelled(root: str, split: str) -> Samples:
    return Samples(list(IMAGES[:3]), [None, 2, None])


def test_features_are_float32() -> None:
    found = everything(read(f"{__name__}:features"))
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array([[0, -1], [1 / 7, -1], [2 / 7, -1]], np.float32))


def test_a_label_may_be_none() -> None:
    assert read(f"{__name__}:unlabelled").labels.tolist() == [NO_LABEL, 2, NO_LABEL]


def targets(root: str, split: str) -> Samples:
    return Samples(list(IMAGES[:3]), [0.5, None, np.float64(2.5)])


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_a_label_may_be_a_float(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "MAX_ARRAY_BYTES", limit)
    data = read(f"{__name__}:targets")
    assert data.labels.dtype == np.float32
    assert np.array_equal(data.labels, [[0.5], [np.nan], [2.5]], equal_nan=True)
    assert np.array_equal(everything(data), IMAGES[:3])


def by_root_and_split(root: str, split: str) -> list[tuple[list[float], int]]:
    return [([float(len(root))], 0)] * (2 if split == "train" else 1)


def test_a_function_is_told_root_and_split() -> None:
    assert everything(read(f"{__name__}:by_root_and_split", "four")).tolist() == [[4.0], [4.0]]
    assert everything(read(f"{__name__}:by_root_and_split", "four", "test")).tolist() == [[4.0]]


# … that is too large to hold


def test_a_large_set_with_targets_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "MAX_ARRAY_BYTES", 0)
    data: Any = read(f"{__name__}:with_targets")
    assert data.dataset.reads == 1
    assert data.labels.tolist() == [index % 3 for index in range(300)]
    data.digest()
    assert data.dataset.reads == 1 + 256


def test_the_digest_of_a_large_set_is_of_its_labels_and_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "MAX_ARRAY_BYTES", 0)

    def digest(inputs: NDArray[Any], labels: list[int]) -> str:
        given = Samples(list(inputs), labels)
        monkeypatch.setattr(sys.modules[__name__], "as_arrays", lambda root, split: given)
        return read(f"{__name__}:as_arrays").digest()

    labels = [index % 3 for index in range(300)]
    whole, changed, relabelled = digest(IMAGES, labels), IMAGES.copy(), [*labels[:17], 0, *labels[18:]]
    changed[299, 2, 3, 4] ^= 1
    assert digest(IMAGES, labels) == whole
    others = [digest(changed, labels), digest(IMAGES, relabelled), digest(IMAGES[:-1], labels[:-1])]
    assert len({whole, *others}) == 4


def test_a_label_that_changes_from_one_reading_to_the_next_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builtin, "MAX_ARRAY_BYTES", 0)
    data: Any = read(f"{__name__}:with_targets")
    data.dataset.labels_[17] = 9
    with pytest.raises(DataError, match="sample 17: its label was 2, and now is 9"):
        everything(data)


# … that cannot be used


def takes_nothing() -> list[Any]:
    return []


def fails(root: str, split: str) -> list[Any]:
    raise KeyError("the file of the labels")


def returns_none(root: str, split: str) -> None:
    return None


def iterable_only(root: str, split: str) -> Any:
    return iter([(IMAGES[0], 0)])


def empty(root: str, split: str) -> list[Any]:
    return []


def no_pairs(root: str, split: str) -> list[Any]:
    return [(IMAGES[0], 0), IMAGES[1]]


def text_labels(root: str, split: str) -> list[Any]:
    return [(IMAGES[0], 0), (IMAGES[1], "cat")]


def float_labels(root: str, split: str) -> list[Any]:
    return [(IMAGES[0], 0), (IMAGES[1], 1.5)]


def integer_inputs(root: str, split: str) -> list[Any]:
    return [(np.arange(3), 0)]


def mixed_shapes(root: str, split: str) -> list[Any]:
    return [(IMAGES[0], 0), (IMAGES[1][:, :2], 1)]


def mixed_types(root: str, split: str) -> list[Any]:
    return [(IMAGES[0], 0), (IMAGES[1] / 255, 1)]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("no_such_module:f", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        (f"{__name__}:missing", " has no 'missing'"),
        (":f", "cannot be imported (ValueError: "),
        ("os:path", "path is not callable, it is of type module"),
        (
            f"{__name__}:takes_nothing",
            "does not take root = 'data', split = 'train' (TypeError: ",
        ),
        (f"{__name__}:fails", "(KeyError: 'the file of the labels')"),
        (f"{__name__}:returns_none", "must return a dataset with a length and items (TypeError: "),
        (f"{__name__}:iterable_only", "must return a dataset with a length and items (TypeError: "),
        (f"{__name__}:empty", "no samples"),
        (f"{__name__}:no_pairs", "train: sample 1: expected (input, label), found ValueError: "),
        (f"{__name__}:text_labels", "train: sample 1: expected (input, label), found TypeError: "),
        (
            f"{__name__}:float_labels",
            "train: sample 1: its label is a row of 1 floats, that of sample 0 a class",
        ),
        (
            f"{__name__}:integer_inputs",
            "sample 0: expected (input, label), found TypeError: inputs must be images",
        ),
        (f"{__name__}:mixed_shapes", "train: sample 1: uint8 (3, 2, 5), where the first is uint8 (3, 4, 5)"),
        (f"{__name__}:mixed_types", "train: sample 1: float32 (3, 4, 5), where the first is uint8 (3, 4, 5)"),
    ],
)
def test_a_function_that_cannot_be_used_is_named_with_the_reason(name: str, says: str) -> None:
    said = refusal(name)
    assert name in said
    assert says in said
