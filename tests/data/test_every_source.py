"""What the phases ask of data holds of every source: the contract of `LabelledData`."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import describe_data, external, identity, load_data
from decant.pipeline.data.registry import _SOURCES
from decant.pipeline.data.samples import LabelledData, num_targets
from decant.pipeline.phases.datasets import Splits
from tests.helpers import tables, texts
from tests.helpers.extras import needs
from tests.helpers.folders import FORMS, keep, write_folder
from tests.helpers.small import recipe


def vectors(root: str, split: str) -> list[tuple[NDArray[np.float32], int | None]]:
    """A function of somebody's: features, with a label that is not known."""
    random = np.random.default_rng(len(split))
    return [(random.normal(size=6).astype("f4"), None if i == 3 else i % 3) for i in range(40)]


@dataclass(frozen=True)
class Source:
    """Settings of a source, and what there must be for it to read."""

    name: str
    prepare: Callable[[Path, pytest.MonkeyPatch], dict[str, str]] = lambda folder, patch: {}

    def read(self, folder: Path, patch: pytest.MonkeyPatch) -> DataSettings:
        return DataSettings(name=self.name, **self.prepare(folder, patch))


def in_folder(form: str) -> Source:
    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
        keep(form, patch)
        return {"root": str(write_folder(folder / "images"))}

    return Source("imagefolder", prepare)


def sentences(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Any]:
    pytest.importorskip("transformers", reason="texts need an extra: pip install 'decant-kd[text]'")
    (folder / "texts").mkdir()
    tokenizer = texts.train_tokenizer(texts.write(folder / "texts"))
    return {"root": str(folder / "texts"), "tokenizer": str(tokenizer), "max_length": 16}


def table(name: str) -> Source:
    """The same images in one of the forms of `tests.helpers.tables`."""

    def prepare(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
        tables.WRITE[name](folder / "table")
        return {"root": str(folder / "table")}

    return Source(name, prepare)


def as_needed(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, str]:
    patch.setattr(external, "MAX_ARRAY_BYTES", 0)
    return {}


SOURCES = {
    "digits": Source("digits"),
    "diabetes": Source("diabetes"),
    **{f"imagefolder {form}": in_folder(form) for form in FORMS},
    "text": Source("text", sentences),
    "npy": table("npy"),
    "webdataset": table("webdataset"),
    "parquet": table("parquet"),
    "hf": table("hf"),
    "function": Source(f"{__name__}:vectors"),
    "function as needed": Source(f"{__name__}:vectors", as_needed),
}
NEEDS = {"parquet": needs("pyarrow"), "hf": needs("datasets")}
NAMES = [pytest.param(name, marks=NEEDS.get(name, [])) for name in SOURCES]
DOWNLOADED = {"cifar10", "cifar100", "mnist", "fashion-mnist", "svhn"}
"""Which test_builtin.py reads from files of their formats."""


@pytest.fixture(params=[*NAMES, "held out", "the rest", "held out without labels"])
def pair(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[LabelledData, LabelledData]:
    """The data read twice."""
    if request.param in SOURCES:
        settings = SOURCES[request.param].read(tmp_path, monkeypatch)
        one, other = (load_data(settings, ViewsSettings(), "train") for _ in range(2))
        return one, other
    known = "false" if "without" in request.param else "true"
    words = ("data.transfer.share=0.2", f"data.transfer.labels={known}")
    both = [Splits.load(recipe(*words).settings) for _ in range(2)]
    found = [each.teacher_train if request.param == "the rest" else each.student_train for each in both]
    return found[0].data, found[1].data


def alone(data: LabelledData, index: int) -> dict[str, bytes]:
    """The bytes of a sample's inputs."""
    inputs = data.raw(np.array([index]))
    parts = inputs if isinstance(inputs, dict) else {"": inputs}
    return {name: value[0].tobytes() for name, value in parts.items()}


def test_every_source_that_has_a_name_is_tried_here() -> None:
    assert set(_SOURCES) - DOWNLOADED == {
        source.name for source in SOURCES.values() if ":" not in source.name
    }


def test_labels_are_classes_or_targets_of_each_sample(pair: tuple[LabelledData, LabelledData]) -> None:
    data, _ = pair
    targets = num_targets(data)
    assert len(data.labels) == len(data) > 0
    if targets is None:
        assert (data.labels.dtype, data.labels.ndim) == (np.dtype("int64"), 1)
        assert data.labels.min() >= -1
        assert not data.classes or data.labels.max() < len(data.classes)
    else:
        assert (data.labels.dtype, data.labels.shape) == (np.dtype("float32"), (len(data), targets))
        assert data.classes == ()
    assert all(isinstance(name, str) for name in data.classes)


def test_a_sample_is_the_same_alone_in_any_batch_and_twice(pair: tuple[LabelledData, LabelledData]) -> None:
    data, _ = pair
    order = np.random.default_rng(0).permutation(len(data))[:9]
    order = np.concatenate([order, order[:2]])
    inputs = data.raw(order)
    for place, index in enumerate(order.tolist()):
        if isinstance(inputs, dict):
            length = int(inputs["attention_mask"][place].sum())
            found = {name: value[place, :length].tobytes() for name, value in inputs.items()}
            assert length <= data.input_shape[0]
        else:
            found = {"": inputs[place].tobytes()}
            assert inputs.shape[1:] == data.input_shape
            assert inputs.dtype == (np.uint8 if len(data.input_shape) == 3 else np.float32)
        assert found == alone(data, index), f"sample {index}"


def test_what_is_given_is_a_copy(pair: tuple[LabelledData, LabelledData]) -> None:
    data, _ = pair
    before, inputs = alone(data, 1), data.raw(np.array([1]))
    for value in inputs.values() if isinstance(inputs, dict) else [inputs]:
        value[:] = 0
    assert alone(data, 1) == before


def test_read_again_or_in_another_process_the_data_are_the_same(
    pair: tuple[LabelledData, LabelledData],
) -> None:
    data, again = pair
    assert len(data.digest()) == 64
    for other in (again, pickle.loads(pickle.dumps(data))):
        assert identity(other) == identity(data)
        assert np.array_equal(other.labels, data.labels, equal_nan=other.labels.dtype.kind == "f")
        assert alone(other, len(data) - 1) == alone(data, len(data) - 1)
    assert json.loads(json.dumps(identity(data))) == identity(data)


@pytest.mark.parametrize("name", NAMES)
def test_both_parts_go_together_and_can_be_described_unread(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SOURCES[name].read(tmp_path, monkeypatch)
    train, test = (load_data(settings, ViewsSettings(), split) for split in ("train", "test"))
    assert (train.classes, train.input_shape) == (test.classes, test.input_shape)
    assert (train.split, test.split) == ("train", "test")
    assert identity(train) != identity(test)
    described = describe_data(settings, ViewsSettings(), "train")
    assert (identity(described), described.input_shape) == (identity(train), train.input_shape)
    assert np.array_equal(described.labels, train.labels)
