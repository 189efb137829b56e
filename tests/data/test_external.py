"""A dataset of one's own: inputs and labels in any form, a large one read as it is needed, mistakes named."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.data import external
from decant.pipeline.data.samples import NO_LABEL
from decant.pipeline.errors import DataError
from tests.helpers.data import everything, read, refusal

PLAIN = ViewsSettings()


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape).astype(np.uint8)


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
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", limit)
    data = read(f"{__name__}:{function.__name__}")
    assert data.lazy == (limit == 0)
    assert np.array_equal(everything(data), IMAGES)
    assert data.labels.tolist() == [index % 3 for index in range(300)]
    assert data.classes == (("a", "b", "c") if function is as_arrays else ())
    assert read(f"{__name__}:{function.__name__}", size=2).input_shape == (3, 2, 2)


def features(root: str, split: str) -> list[tuple[list[float], int]]:
    return [([index / 7, -1.0], index) for index in range(3)]


def unlabelled(root: str, split: str) -> Samples:
    return Samples(list(IMAGES[:3]), [1, 0, None])


def test_features_are_float32() -> None:
    found = everything(read(f"{__name__}:features"))
    assert found.dtype == np.float32
    assert np.array_equal(found, np.array([[0, -1], [1 / 7, -1], [2 / 7, -1]], np.float32))


def test_a_label_may_be_none() -> None:
    assert read(f"{__name__}:unlabelled").labels.tolist() == [1, 0, NO_LABEL]


def targets(root: str, split: str) -> Samples:
    return Samples(list(IMAGES[:3]), [0.5, None, np.float64(2.5)])


@pytest.mark.parametrize("limit", [1 << 30, 0])
def test_a_label_may_be_a_float(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", limit)
    data = read(f"{__name__}:targets")
    assert data.labels.dtype == np.float32
    assert np.array_equal(data.labels, [[0.5], [np.nan], [2.5]], equal_nan=True)
    assert np.array_equal(everything(data), IMAGES[:3])


def by_root_and_split(root: str, split: str) -> list[tuple[list[float], int]]:
    return [([float(len(root))], label) for label in ((0, 1) if split == "train" else (0,))]


def test_a_function_is_told_root_and_split() -> None:
    assert everything(read(f"{__name__}:by_root_and_split", "four")).tolist() == [[4.0], [4.0]]
    assert everything(read(f"{__name__}:by_root_and_split", "four", "test")).tolist() == [[4.0]]


# … that is too large to hold


def test_a_large_set_with_targets_is_not_read_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0)
    data: Any = read(f"{__name__}:with_targets")
    assert data.dataset.reads == 1
    assert data.labels.tolist() == [index % 3 for index in range(300)]
    data.digest()
    assert data.dataset.reads == 1 + 256


def test_the_digest_of_a_large_set_is_of_its_labels_and_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0)

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
    monkeypatch.setattr(external, "MAX_ARRAY_BYTES", 0)
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


def a_loader(root: str, split: str) -> Any:
    return torch.utils.data.DataLoader(Samples(list(IMAGES), [0] * 300))


def columns(root: str, split: str) -> dict[str, Any]:
    return {"image": IMAGES, "label": np.arange(300) % 3}


def a_mask(root: str, split: str) -> Any:
    return torch.utils.data.Subset(Samples(list(IMAGES), [0] * 300), np.arange(300) < 9)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (f"{__name__}:a_loader", "found DataLoader: a recipe reads samples by their index; of a loader give"),
        (
            f"{__name__}:columns",
            "found a dict of image, label: of columns make a torch.utils.data.TensorDataset",
        ),
        (
            f"{__name__}:a_mask",
            "Subset: its indices are truth values, which torch takes for the samples 0 and 1",
        ),
        ("no_such_module:f", "cannot be imported (ModuleNotFoundError: No module named 'no_such_module')"),
        (f"{__name__}:missing", " has no 'missing'"),
        (":f", "cannot be imported (ValueError: "),
        (f"{__name__}:np", "np is not callable, it is of type module"),
        (
            f"{__name__}:takes_nothing",
            "does not take root = 'data', split = 'train' (TypeError: ",
        ),
        (f"{__name__}:fails", "(KeyError: 'the file of the labels')"),
        (f"{__name__}:returns_none", "must return a dataset with a length and items (TypeError: "),
        (f"{__name__}:iterable_only", "must return a dataset with a length and items (TypeError: "),
        (f"{__name__}:empty", "no samples"),
        (
            f"{__name__}:no_pairs",
            "train: sample 1: items must be (input, label), found ndarray of shape (3, 4, 5); of an array of inputs "
            "and one of labels make a torch.utils.data.TensorDataset(inputs, labels)",
        ),
        (f"{__name__}:text_labels", "train: sample 1: label 'cat': a text needs class names"),
        (
            f"{__name__}:float_labels",
            "train: sample 1: its label is a row of 1 floats, that of sample 0 a class",
        ),
        (
            f"{__name__}:integer_inputs",
            "sample 0: inputs must be images, uint8 or float arrays, found int64",
        ),
        (f"{__name__}:mixed_shapes", "train: sample 1: uint8 (3, 2, 5), where the first is uint8 (3, 4, 5)"),
        (f"{__name__}:mixed_types", "train: sample 1: float32 (3, 4, 5), where the first is uint8 (3, 4, 5)"),
    ],
)
def test_a_function_that_cannot_be_used_is_named_with_the_reason(name: str, says: str) -> None:
    said = refusal(name)
    assert name in said
    assert says in said
