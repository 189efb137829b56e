"""SoftLabelDataset: the logits that a student gets are those of its very sample and view, or it stops."""

from __future__ import annotations

import pickle
import warnings
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import ConcatDataset, DataLoader, Dataset, Subset, TensorDataset

import decant
from decant.cache import (
    CacheWarning,
    CorruptError,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    RewrittenError,
    SoftLabelDataset,
    in_turn,
    split_keys,
)
from decant.cache import dataset as dataset_module
from decant.cache.format.hdf5 import check
from tests.helpers.caches import manifest

N, C = 40, 5


class Views(Dataset[Any]):
    """Images (1, 4, 4) uint8 whose pixels say which sample and view they are."""

    def __init__(self, length: int = N, views: int = 2, shift: int = 0, label_shift: int = 0) -> None:
        self.length, self.views, self.shift, self.label_shift = length, views, shift, label_shift

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
        index, view = key if isinstance(key, tuple) else (key, 0)
        sample = (index + self.shift) % self.length
        return torch.full((1, 4, 4), sample + 50 * view, dtype=torch.uint8), (sample + self.label_shift) % C

    def batch(self, keys: Any) -> tuple[torch.Tensor, torch.Tensor]:
        indices, views = split_keys(keys, len(self))
        inputs, labels = zip(
            *(self[index, view] for index, view in zip(indices, views, strict=True)), strict=True
        )
        return torch.stack(inputs), torch.tensor(labels)


def logits_of(index: int, view: int = 0) -> list[float]:
    return [float(index + 100 * view + column) for column in range(C)]


def make(path: Path, views: int = 2, **more: Any) -> Path:
    data = Views()
    with LogitCacheWriter(path, manifest(N, C, views, **more)) as writer:
        for view in range(views):
            inputs, labels = data.batch([(index, view) for index in range(N)])
            writer.write(
                np.arange(N),
                np.array([logits_of(index, view) for index in range(N)]),
                labels=labels.numpy(),
                input_crc32=[zlib.crc32(value.numpy()) for value in inputs],
                view=view,
            )
        return writer.publish()


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return LogitCache.open(make(tmp_path_factory.mktemp("dataset") / "two.h5"))


@pytest.fixture(scope="module")
def one_view(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return LogitCache.open(make(tmp_path_factory.mktemp("dataset") / "one.h5", 1))


def test_an_item_is_input_label_and_logits_of_one_sample_and_view(cache: LogitCache) -> None:
    dataset = SoftLabelDataset(Views(), cache, check_inputs="all")
    for index in (0, 7, N - 1):
        for view in (0, 1):
            image, label, logits = dataset[index, view]
            assert int(image[0, 0, 0]) == index + 50 * view
            assert (label, logits.tolist()) == (index % C, logits_of(index, view))
            assert logits.dtype == torch.float32
    assert dataset[-1, 0][2].tolist() == logits_of(N - 1)
    assert len(dataset) == N


def test_a_dataset_of_one_view_is_asked_by_index_alone(one_view: LogitCache) -> None:
    images = torch.arange(N, dtype=torch.uint8)[:, None, None, None].expand(N, 1, 4, 4).contiguous()
    dataset = SoftLabelDataset(TensorDataset(images, torch.arange(N) % C), one_view, check_inputs="all")  # type: ignore[arg-type]
    image, label, logits = dataset[9]
    assert (int(image[0, 0, 0]), int(label), logits.tolist()) == (9, 9 % C, logits_of(9))
    with pytest.raises(IndexError, match="view"):
        dataset[9, 1]


def test_items_batches_and_single_reads_agree(cache: LogitCache) -> None:
    dataset = SoftLabelDataset(Views(), cache, check_inputs="all")
    keys = [(3, 1), (0, 0), (-1, 1), (3, 0)]
    items = dataset.__getitems__(keys)
    inputs, labels, logits = dataset.batch(keys)
    array = dataset.batch(np.array(keys))
    for place, key in enumerate(keys):
        image, label, row = dataset[key]
        assert torch.equal(items[place][0], image)
        assert torch.equal(inputs[place], image)
        assert items[place][1] == label == int(labels[place])
        assert torch.equal(items[place][2], row)
        assert torch.equal(logits[place], row)
    assert all(
        torch.equal(first, second) for first, second in zip(array, (inputs, labels, logits), strict=True)
    )
    assert dataset.__getitems__([]) == []


@pytest.mark.parametrize("index", [N, -N - 1, 10**12])
def test_an_index_out_of_range_is_an_index_error(cache: LogitCache, index: int) -> None:
    with pytest.raises(IndexError):
        SoftLabelDataset(Views(), cache)[index, 0]


@pytest.mark.parametrize("check", ["sample", "all", "off"])
def test_a_subset_of_a_subset_is_followed(cache: LogitCache, check: Any) -> None:
    outer = Subset(Views(), [9, 8, 7, 30, 31, -1])
    dataset = SoftLabelDataset(Subset(outer, [5, 3, 0]), cache, check_inputs=check)
    assert len(dataset) == 3
    for place, index in enumerate([N - 1, 30, 9]):
        for view in (0, 1):
            image, label, logits = dataset[place, view]
            assert int(image[0, 0, 0]) % 50 == index
            assert (label, logits.tolist()) == (index % C, logits_of(index, view))
    inputs, _, logits = dataset.batch([(0, 1), (2, 0)])
    assert inputs[:, 0, 0, 0].tolist() == [N - 1 + 50, 9]
    assert logits.tolist() == [logits_of(N - 1, 1), logits_of(9)]


def test_a_subset_of_one_view_is_asked_itself(one_view: LogitCache) -> None:
    """So that one which does more than pick samples is not passed by."""

    class Flipped(Subset[Any]):
        def __getitem__(self, index: Any) -> Any:
            image, label = super().__getitem__(index)
            return image.flip(-1), label

        def __getitems__(self, indices: Any) -> Any:
            return [self[index] for index in indices]

    dataset = SoftLabelDataset(Flipped(Views(views=1), [4, 2]), one_view)
    assert dataset[1][2].tolist() == logits_of(2)


@pytest.mark.parametrize("length", [N - 1, N + 1, 0])
def test_grown_or_shrunk_data_are_refused(cache: LogitCache, length: int) -> None:
    with pytest.raises(MismatchError, match=rf"data.length: the dataset has {length}, the cache {N}"):
        SoftLabelDataset(Views(length), cache)


@pytest.mark.parametrize("by", ["item", "batch"])
def test_re_ordered_and_relabelled_data_are_refused(cache: LogitCache, by: str) -> None:
    for data in (Views(shift=1), Views(label_shift=1)):
        dataset = SoftLabelDataset(data, cache, check_inputs="off")
        with pytest.raises(
            MismatchError, match="sample 4: its label is 0, and was 4 when the teacher saw it"
        ):
            dataset[4, 0] if by == "item" else dataset.batch([(4, 0)])


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_any_integer_type_are_compared(one_view: LogitCache, dtype: torch.dtype) -> None:
    images = torch.zeros(N, 1, 4, 4, dtype=torch.uint8)
    wrong = (torch.arange(N) + 1).remainder(C).to(dtype)
    dataset = SoftLabelDataset(TensorDataset(images, wrong), one_view, check_inputs="off")  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match="sample 4"):
        dataset[4]


@pytest.mark.parametrize("targets", [None, 3])
def test_a_label_that_the_teacher_did_not_see_is_not_compared(tmp_path: Path, targets: int | None) -> None:
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(N, C, 1, num_targets=targets)) as writer:
        writer.write(np.arange(N), np.zeros((N, C)), inputs=np.zeros((N, 2), "f4"))
        cache = LogitCache.open(writer.publish())
    labels = torch.arange(N) % C if targets is None else torch.rand(N, targets)
    data = TensorDataset(torch.zeros(N, 2), labels)
    assert len(SoftLabelDataset(data, cache).__getitems__([1, 2])) == 2  # type: ignore[arg-type]


def test_regression_targets_are_compared(tmp_path: Path) -> None:
    targets = np.random.default_rng(0).normal(size=(N, 3))
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(N, C, 1, num_targets=3)) as writer:
        writer.write(np.arange(N), np.zeros((N, C)), labels=targets, inputs=np.zeros((N, 2), "f4"))
        cache = LogitCache.open(writer.publish())
    inputs = torch.zeros(N, 2)
    assert SoftLabelDataset(TensorDataset(inputs, torch.from_numpy(targets)), cache)[5]  # type: ignore[arg-type]
    targets[5, 1] += 1
    with pytest.raises(MismatchError, match="sample 5"):
        SoftLabelDataset(TensorDataset(inputs, torch.from_numpy(targets)), cache)[5]  # type: ignore[arg-type]


def test_one_input_a_batch_or_every_input_is_compared(cache: LogitCache) -> None:
    """The label of a sample five places on is the same: only the pixels tell."""
    moved = Views(shift=C)
    for check_inputs in ("sample", "all"):
        with pytest.raises(
            MismatchError, match=r"sample 4, view 1: the input is not what the teacher saw \(CRC-32"
        ):
            SoftLabelDataset(moved, cache, check_inputs=check_inputs)[4, 1]  # type: ignore[arg-type]
    assert SoftLabelDataset(moved, cache, check_inputs="off")[4, 0]

    class OneMoved(Views):
        def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
            return Views(shift=C)[key] if key[0] == 6 else super().__getitem__(key)

    train = SoftLabelDataset(OneMoved(), cache)
    with pytest.raises(MismatchError, match="sample 6"):
        SoftLabelDataset(OneMoved(), cache).batch([(4, 0), (6, 0)])  # all of the first batch are
    train.batch([(index, 0) for index in range(7, 30)])
    train.batch([(4, 0), (6, 0)])
    with pytest.raises(MismatchError, match="sample 6, view 0"):
        SoftLabelDataset(OneMoved(), cache, check_inputs="all").batch([(4, 0), (6, 0)])


@pytest.mark.parametrize("subset", [False, True])
def test_batches_made_together_are_those_made_alone_and_one_input_of_each_is_compared(
    cache: LogitCache, monkeypatch: pytest.MonkeyPatch, subset: bool
) -> None:
    class SomeMoved(Views):
        def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
            return Views(shift=C)[key] if key[0] == 6 else super().__getitem__(key)

    def train(data: Views) -> SoftLabelDataset:
        return SoftLabelDataset(Subset(data, range(N)[::-1]) if subset else data, cache)

    order = np.random.default_rng(3).permutation(N)
    of_6 = N - 1 - 6 if subset else 6
    order = order[order != of_6]
    keys = [np.stack([part, part % 2], axis=1) for part in np.split(order, [20, 27, 34])]
    monkeypatch.setattr(Views, "batch", _also_of_none(Views.batch))
    keys.append(keys[0][:0])
    expected, found = [train(Views()).batch(each) for each in keys], train(Views()).batches(keys)
    for alone, together in zip(expected, found, strict=True):
        assert all(torch.equal(*parts) for parts in zip(alone, together, strict=True))
    keys[2][3], moved = (of_6, 0), train(SomeMoved())
    moved.batches(keys)
    keys[2][[0, 3]] = keys[2][[3, 0]]
    with pytest.raises(MismatchError, match="sample 6, view 0"):
        moved.batches(keys)


def test_batches_made_together_may_hold_the_same_values_in_another_dtype(cache: LogitCache) -> None:
    class InFloat64(Views):
        def batch(self, keys: Any) -> tuple[torch.Tensor, torch.Tensor]:
            inputs, labels = super().batch(keys)
            return inputs.double(), labels

    keys = [np.stack([part, np.zeros_like(part)], axis=1) for part in np.split(np.arange(N), 4)]
    inputs = [batch[0] for batch in SoftLabelDataset(InFloat64(), cache).batches(keys)]
    assert torch.equal(torch.cat(inputs), Views().batch(np.concatenate(keys))[0].double())


@pytest.mark.parametrize("subset", [False, True])
@pytest.mark.parametrize("made", ["batch by batch", "labels first"])
def test_batches_whose_logits_are_read_ahead_are_those_made_alone_and_each_is_compared(
    cache: LogitCache, monkeypatch: pytest.MonkeyPatch, subset: bool, made: str
) -> None:
    monkeypatch.setattr(dataset_module, "_BYTES_AHEAD", 3 * 4 * C * 4)
    asked = []
    if made == "labels first":
        monkeypatch.setattr(
            Views,
            "labels_first",
            lambda data, keys: asked.append(keys) or _labels_first(data, keys),
            raising=False,
        )

    def train(data: Views) -> SoftLabelDataset:
        return SoftLabelDataset(Subset(data, range(N)[::-1]) if subset else data, cache)

    order = np.random.default_rng(3).permutation(N)
    keys = [np.stack([part, part % 2], axis=1) for part in np.array_split(order, 10)]
    keys.insert(2, keys[0][:0])
    monkeypatch.setattr(Views, "batch", _also_of_none(Views.batch))
    found = list(train(Views()).each_batch(keys))
    assert len(found) == len(keys)
    for each, together in zip(keys, found, strict=True):
        alone = train(Views()).batch(each)
        assert [part.dtype for part in together] == [part.dtype for part in alone]
        assert all(torch.equal(*parts) for parts in zip(alone, together, strict=True))
    for wrong, said in (({"shift": C}, "view"), ({"label_shift": 1}, "its label is")):
        bad, got = _From(keys[7], N if subset else 0, **wrong), []  # the seventh is in the third run
        with pytest.raises(MismatchError, match=said):
            got.extend(_counted(train(bad).each_batch(keys), got))
        assert len(got) == 7
    assert len(asked) == (4 + 2 * 3) * (made == "labels first"), "once a run: of 1, 3, 3 and 4 batches"


def _labels_first(data: Views, keys: Any) -> Any:
    """As `ViewedData` has it."""
    return np.array([data[key][1] for key in map(tuple, keys.tolist())]), lambda first, end: data.batch(
        keys[first:end]
    )[0]


def _also_of_none(batch: Any) -> Any:
    nothing = torch.zeros((0, 1, 4, 4), dtype=torch.uint8), torch.zeros(0, dtype=torch.int64)
    return lambda self, keys: batch(self, keys) if len(keys) else nothing


def _counted(batches: Any, got: list[Any]) -> Any:
    for batch in batches:
        got.append(batch)
    return ()


class _From(Views):
    """Views that are others for the first sample of some keys."""

    def __init__(self, keys: Any, reversed_from: int, **wrong: int) -> None:
        super().__init__()
        first = int(keys[0, 0])
        self.sample = reversed_from - 1 - first if reversed_from else first
        self.other = Views(**wrong)

    def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
        return self.other[key] if key[0] == self.sample else super().__getitem__(key)


def _one_hot(labels: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, C)


ODD_BATCHES: dict[str, Any] = {
    "int32 labels": lambda inputs, labels: (inputs, labels.int()),
    "labels in a column": lambda inputs, labels: (inputs, labels[:, None]),
    "labels in a row": lambda inputs, labels: (inputs, labels[None]),
    "whole floats": lambda inputs, labels: (inputs, labels.double()),
    "other floats": lambda inputs, labels: (inputs, labels + 0.5),
    "bytes of the labels as floats": lambda inputs, labels: (inputs, labels.view(torch.float64)),
    "one-hot labels": lambda inputs, labels: (inputs, _one_hot(labels)),
    "labels with gaps": lambda inputs, labels: (inputs, labels.repeat_interleave(2)[::2]),
    "a list of labels": lambda inputs, labels: (inputs, labels.tolist()),
    "labels the other way round": lambda inputs, labels: (inputs, labels.flip(0)),
    "too few labels": lambda inputs, labels: (inputs, labels[:-1]),
    "shares of pixels": lambda inputs, labels: (inputs / 255, labels),
    "channels last": lambda inputs, labels: (inputs.permute(0, 2, 3, 1), labels),
    "rows with gaps": lambda inputs, labels: (inputs.repeat(1, 1, 1, 2)[..., :4], labels),
    "bfloat16": lambda inputs, labels: (inputs.bfloat16(), labels),
    "with a gradient": lambda inputs, labels: (inputs.float().requires_grad_(), labels),
    "an array": lambda inputs, labels: (inputs.numpy(), labels),
    "too few inputs": lambda inputs, labels: (inputs[:-1], labels),
    "too few of both": lambda inputs, labels: (inputs[:-1], labels[:-1]),
    "moved inputs": lambda inputs, labels: (inputs + 1, labels),
    "all but the first moved": lambda inputs, labels: (torch.cat([inputs[:1], inputs[1:] + 1]), labels),
    "inputs without bytes": lambda inputs, labels: ([str(value) for value in inputs], labels),
}


@pytest.mark.parametrize("what", ODD_BATCHES)
@pytest.mark.parametrize("start", [0, 24])  # the first 16 inputs are all compared
def test_odd_batches_are_taken_or_refused_alike_whether_logits_are_read_ahead_or_not(
    cache: LogitCache, what: str, start: int
) -> None:
    class Odd(Views):
        def batch(self, keys: Any) -> Any:
            made = super().batch(keys)
            return ODD_BATCHES[what](*made) if keys[0, 0] >= start else made

    keys = [np.stack([np.arange(first, first + 4), [0] * 4], axis=1) for first in range(0, N, 4)]

    one, other = SoftLabelDataset(Odd(), cache), SoftLabelDataset(Odd(), cache)
    assert _outcome(other.each_batch(keys)) == _outcome(map(one.batch, keys))


def _outcome(batches: Any) -> tuple[list[Any], list[str]]:
    """The labels and logits that are handed out, and what is said."""
    made, said = [], []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            for _, labels, logits in batches:
                made.append((labels if isinstance(labels, list) else labels.tolist(), logits.tolist()))
        except MismatchError as error:
            said.append(str(error))
    return made, said + [str(each.message) for each in warned]


OTHER_LABELS: dict[str, Any] = {
    "int32": lambda labels: labels.astype("i4"),
    "in a column": lambda labels: labels[:, None],
    "whole floats": lambda labels: labels.astype("f8"),
    "other floats": lambda labels: labels + 0.5,
    "their bytes as floats": lambda labels: labels.view("f8"),
    "one-hot": lambda labels: np.eye(C)[labels],
    "one is another": lambda labels: np.where(np.arange(len(labels)) == 29, 0, labels),
}


@pytest.mark.parametrize("what", OTHER_LABELS)
def test_odd_labels_that_come_first_are_taken_or_refused_as_those_of_a_batch(
    cache: LogitCache, what: str
) -> None:
    class Odd(Views):
        def batch(self, keys: Any) -> Any:
            return super().batch(keys)[0], torch.from_numpy(self.labels_first(keys)[0])

        def labels_first(self, keys: Any) -> Any:
            odd = OTHER_LABELS[what](np.arange(N) % C)
            return odd[keys[:, 0]], lambda first, end: super(Odd, self).batch(keys[first:end])[0]

    keys = [np.stack([np.arange(first, first + 4), [0] * 4], axis=1) for first in range(0, N, 4)]
    first, alone = SoftLabelDataset(Odd(), cache), SoftLabelDataset(Odd(), cache)
    assert _outcome(first.each_batch(keys)) == _outcome(map(alone.batch, keys))


class Scaled(Dataset[Any]):
    """Another dataset with its pixels doubled, whose other attributes it hands on."""

    def __init__(self, inner: Views) -> None:
        self.inner = inner

    def __len__(self) -> int:
        return len(self.inner)

    def __getitem__(self, key: Any) -> Any:
        pixels, label = self.inner[key]
        return 2 * pixels, label

    def batch(self, keys: Any) -> Any:
        pixels, labels = self.inner.batch(keys)
        return 2 * pixels, labels

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["inner"], name)


def test_batches_of_a_dataset_that_hands_on_the_attributes_of_another_are_its_own(
    cache: LogitCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Views, "labels_first", _labels_first, raising=False)
    train = SoftLabelDataset(Scaled(Views()), cache, check_inputs="off")
    keys = np.array([[3, 0], [5, 1]])
    assert torch.equal(next(train.each_batch([keys]))[0], train.batch(keys)[0])


class TakesViews(ConcatDataset[Any]):
    """A class of the user's that asks its parts for a view."""

    def __getitem__(self, key: Any) -> Any:
        index, view = key if isinstance(key, tuple) else (key, 0)
        return self.datasets[index // (N // 2)][index % (N // 2), view]


def test_views_in_a_class_that_asks_for_them_are_read(tmp_path: Path) -> None:
    halves = [decant.Views(TensorDataset(torch.arange(N // 2), torch.zeros(N // 2)), count=2)] * 2
    cache = LogitCache.open(make(tmp_path / "a.h5"))
    with pytest.raises(MismatchError, match="a ConcatDataset of Views"):
        SoftLabelDataset(ConcatDataset(halves), cache)
    train = SoftLabelDataset(TakesViews(halves), cache, check_inputs="off", compare_labels=False)
    assert train[N // 2 + 3, 1][2].tolist() == logits_of(N // 2 + 3, 1)


@pytest.mark.parametrize("labels", [True, False])
def test_fewer_inputs_are_refused_also_where_nothing_is_recorded_of_them(
    tmp_path: Path, labels: bool
) -> None:
    """Once the first 16 inputs were looked at, a batch is taken for what it is expected to be by less."""

    class Fewer(Views):
        def batch(self, keys: Any) -> Any:
            inputs, labels = super().batch(keys)
            return inputs[: len(keys) - (keys[0, 0] == 20)], labels

    with LogitCacheWriter(tmp_path / "none.h5", manifest(N, C, 1)) as writer:
        writer.write(range(N), [logits_of(index) for index in range(N)], labels=np.arange(N) % C)
        none = LogitCache.open(writer.publish())
    with pytest.warns(CacheWarning, match="no checksums"):
        fewer = SoftLabelDataset(Fewer(), none, compare_labels=labels)
    keys, got = [np.stack([np.arange(at, at + 4), [0] * 4], axis=1) for at in range(0, N, 4)], []
    with pytest.raises(MismatchError, match="gives 3 inputs of 4 samples"):
        got.extend(_counted(fewer.each_batch(keys), got))
    assert len(got) == 5
    with pytest.raises(MismatchError, match="gives 3 inputs of 4 samples"):
        fewer.batch(keys[5])


@pytest.mark.parametrize("labels", [True, False])
def test_fewer_inputs_than_samples_are_refused(cache: LogitCache, labels: bool) -> None:
    """As where a dataset leaves out what it cannot read: whose the others are is not known."""

    class Fewer(Views):
        def batch(self, keys: Any) -> Any:
            return tuple(part[1 - labels :][: len(keys) - 1] for part in super().batch(keys))

    fewer, keys = SoftLabelDataset(Fewer(), cache, compare_labels=labels), np.array([[3, 0], [4, 0]])
    for read in (
        lambda: fewer.batch(keys),
        lambda: list(fewer.each_batch([keys])),
        lambda: fewer.batches([keys]),
    ):
        with pytest.raises(MismatchError, match=r"gives 1 inputs of 2 samples, .* leave samples that cannot"):
            read()


def said_of(dataset: Any, cache: LogitCache) -> str:
    with pytest.raises(MismatchError) as raised:
        SoftLabelDataset(dataset, cache, check_inputs="all").batch([(index, 1) for index in range(10)])
    return str(raised.value)


class Brighter(Views):
    """The same labels, of inputs that no sample has."""

    def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
        image, label = super().__getitem__(key)
        return image + 120, label


def test_the_likely_cause_is_told_from_how_many_inputs_differ(cache: LogitCache) -> None:
    class OneMoved(Views):
        def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
            return Brighter()[key] if key[0] == 6 else super().__getitem__(key)

    assert "1 of these 10 inputs differ: the data of those samples have changed" in said_of(OneMoved(), cache)
    assert "10 of these 10 inputs differ: the transform has changed" in said_of(Brighter(), cache)


def test_a_library_that_is_another_since_is_named(tmp_path: Path) -> None:
    versions = {"torch": metadata.version("torch") + "+local", "numpy": "1.0.0", "no-such-library": "1.0"}
    made = LogitCache.open(make(tmp_path / "cache.h5", info={"versions": versions}))
    said = said_of(Brighter(), made)
    assert f"a library is another since: numpy 1.0.0 → {np.__version__}; build" in said


def test_an_unknown_check_is_refused(cache: LogitCache) -> None:
    with pytest.raises(ValueError, match="expected sample, all or off, found 'some'"):
        SoftLabelDataset(Views(), cache, check_inputs="some")  # type: ignore[arg-type]


def test_damage_is_named_as_damage_and_not_as_other_data(tmp_path: Path) -> None:
    path = make(tmp_path / "cache.h5")
    with open(path, "rb") as file:
        tables = check(file, str(path)).tables
    for name in ("labels", "input_crc32", "logits"):
        content = bytearray(path.read_bytes())
        content[tables[name].offset] ^= 1
        (tmp_path / "damaged.h5").write_bytes(content)
        with pytest.raises(CorruptError, match="not as it was written"):
            SoftLabelDataset(Views(), LogitCache.open(tmp_path / "damaged.h5"))[0, 0]


def test_a_cache_that_has_changed_since_is_named_for_batches_made_together_too(tmp_path: Path) -> None:
    path = make(tmp_path / "cache.h5")
    train = SoftLabelDataset(Views(), LogitCache.open(path))
    keys = [np.stack([part, np.zeros_like(part)], axis=1) for part in np.split(np.arange(12), 2)]
    train.batches(keys)
    with open(path, "rb") as file:
        of_6 = check(file, str(path)).tables["input_crc32"].offset + 4 * 6
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(of_6)
        file.write(bytes([1, 2, 3, 4]))
    with pytest.raises(CorruptError, match="has changed since it was read"):
        train.batches(keys)


def test_what_is_damaged_is_said_when_its_batch_comes_though_rows_are_read_ahead(tmp_path: Path) -> None:
    """The second view is that of another epoch, which the batches before do not depend on."""
    path = make(tmp_path / "cache.h5")
    with open(path, "rb") as file:
        found = check(file, str(path))
    content = bytearray(path.read_bytes())
    table = found.tables["logits"]
    content[table.offset + N * C * table.dtype.itemsize] ^= 1
    (tmp_path / "damaged.h5").write_bytes(content)
    train = SoftLabelDataset(Views(), LogitCache.open(tmp_path / "damaged.h5", verify="lazy"))
    keys = [
        np.stack([part, np.full(4, view)], axis=1) for view in (0, 1) for part in np.split(np.arange(N), 10)
    ]
    alone, got = [train.batch(each) for each in keys[:10]], []
    with pytest.raises(CorruptError, match="not as it was written"):
        got.extend(_counted(train.each_batch(keys), got))
    assert len(got) == 10
    for one, together in zip(alone, got, strict=True):
        assert all(torch.equal(*parts) for parts in zip(one, together, strict=True))


def test_an_input_that_was_refused_is_compared_again(cache: LogitCache) -> None:
    """Of the first batches all inputs are: batches made together are looked at one by one where one is wrong."""

    class SomeMoved(Views):
        def __getitem__(self, key: Any) -> tuple[torch.Tensor, int]:
            return Views(shift=C)[key] if key[0] == 11 else super().__getitem__(key)

    train = SoftLabelDataset(SomeMoved(), cache)
    keys = [np.stack([np.arange(first, first + 7), [0] * 7], axis=1) for first in (0, 7)]
    with pytest.raises(MismatchError, match="sample 11, view 0"):
        train.batches(keys)
    assert len(train.batch(keys[0])) == 3
    with pytest.raises(MismatchError, match="sample 11, view 0"):
        train.batch(keys[1])


def test_an_error_that_no_batch_has_alone_is_raised_too() -> None:
    asked = list[int]()

    def several(run: Any) -> Any:
        raise ValueError("together")

    batches = in_turn(several, lambda key: asked.append(key) or key, [3, 4, 5])
    assert [next(batches), next(batches)] == [3, 4]
    with pytest.raises(ValueError, match="together"):
        next(batches)
    assert asked == [3, 4, 5]


def test_a_cache_that_was_written_to_concerns_every_batch() -> None:
    def several(run: Any) -> Any:
        raise RewrittenError("cache.h5: was written to")

    with pytest.raises(RewrittenError):
        next(in_turn(several, lambda key: key, [3, 4]))


class Epoch:
    """Batches of (index, view): every sample once, shuffled, in the views in turn."""

    def __iter__(self) -> Any:
        order = np.random.default_rng(0).permutation(N)
        return iter([[(int(index), int(index) % 2) for index in part] for part in np.array_split(order, 6)])

    def __len__(self) -> int:
        return 6


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
@pytest.mark.parametrize(
    ("workers", "method"),
    [(0, None), (1, "fork"), (1, "spawn"), (2, "forkserver"), (8, "fork")],
)
def test_loaders_of_every_kind_give_the_same(cache: LogitCache, workers: int, method: str | None) -> None:
    loader: DataLoader[Any] = DataLoader(
        SoftLabelDataset(Views(), cache, check_inputs="all"),
        batch_sampler=Epoch(),  # type: ignore[arg-type]
        num_workers=workers,
        multiprocessing_context=method,
    )
    seen = []
    for inputs, labels, logits in loader:
        for image, label, row in zip(inputs, labels, logits, strict=True):
            index, view = int(image[0, 0, 0]) % 50, int(image[0, 0, 0]) // 50
            assert (int(label), row.tolist()) == (index % C, logits_of(index, view))
            seen.append(index)
    assert sorted(seen) == list(range(N))


def test_a_worker_that_meets_other_data_stops_the_loader_with_its_reason(cache: LogitCache) -> None:
    dataset = SoftLabelDataset(Views(shift=1), cache)
    dataset.set_epoch(0)
    loader: DataLoader[Any] = DataLoader(dataset, batch_size=N, num_workers=1, multiprocessing_context="fork")
    batches = iter(loader)
    with pytest.raises(MismatchError, match="re-ordered or relabelled"):
        next(batches)
    batches._shutdown_workers()  # type: ignore[attr-defined]  # at once: collected later it waits for seconds


def test_it_is_pickled_with_its_cache(cache: LogitCache) -> None:
    again = pickle.loads(pickle.dumps(SoftLabelDataset(Views(), cache)))
    assert again[5, 1][2].tolist() == logits_of(5, 1)
