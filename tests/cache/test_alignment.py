"""What users bring to a cache: items, labels and inputs of other kinds than ours, and keys without a view."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import decant
from decant.cache import (
    CacheWarning,
    CorruptError,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    SoftLabelDataset,
    input_crc32,
    split_keys,
)
from decant.cache.alignment.expected_batches import ExpectedBatches
from decant.cache.alignment.same_input import difference, matching_form
from decant.cache.format.hdf5 import check
from tests.helpers.caches import manifest

N, C, V = 24, 4, 3
IMAGES = np.random.default_rng(5).integers(0, 256, (N, 6, 5, 3), dtype=np.uint8)
LABELS = np.arange(N) % C
LOGITS = np.random.default_rng(6).normal(size=(N, C)) + 6 * np.eye(C)[LABELS]


def build(path: Path, views: int = 1, inputs: Any = IMAGES, **of: Any) -> LogitCache:
    with LogitCacheWriter(path, manifest(N, C, views, **of)) as writer:
        for view in range(views):
            writer.write(np.arange(N), LOGITS + view, labels=LABELS, inputs=inputs, view=view)
        return LogitCache.open(writer.publish())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return build(tmp_path_factory.mktemp("alignment") / "one.h5")


@pytest.fixture(scope="module")
def three_views(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return build(tmp_path_factory.mktemp("alignment") / "three.h5", V)


class Items(Dataset[Any]):
    """Items made of an image and a label by a function."""

    def __init__(self, make: Any = lambda image, label: (image, label), shift: int = 0) -> None:
        self.make, self.shift = make, shift

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        place = (index + self.shift) % N
        return self.make(IMAGES[place], int(LABELS[place]))


class Viewed(Dataset[Any]):
    """Takes an index alone, or (index, view)."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, key: Any) -> Any:
        index, _ = key if isinstance(key, tuple) else (key, 0)
        return IMAGES[index], int(LABELS[index])


class Seen(Viewed):
    """Takes (index, view), and gives the view as its input."""

    def __getitem__(self, key: Any) -> Any:
        return key[1], int(LABELS[key[0]])


# Items


def test_a_dictionary_is_refused_by_its_names_and_taken_by_keys(cache: LogitCache) -> None:
    other = Items(lambda image, label: {"image": image, "label": label, "target": label})
    with pytest.raises(TypeError, match=r'dictionary of image, label, target; .*keys=\("image", "label"\)'):
        SoftLabelDataset(other, cache)[0]
    named = Items(lambda image, label: {"image": image, "label": label})
    image, label, logits = SoftLabelDataset(named, cache, keys=("image", "label"))[5]
    assert (image is not None, label, len(logits)) == (True, 1, C)
    with pytest.raises(TypeError, match=r"keys: expected an item with .*a dictionary of image, label"):
        SoftLabelDataset(named, cache, keys=("image", "target"))[5]


def test_a_dictionary_of_usual_names_stays_one_and_is_compared(cache: LogitCache) -> None:
    """Two strings, the names of its fields, were once taken for input and label."""
    named = Items(lambda image, label: {"image": image, "label": label, "path": "a.png"})
    train = SoftLabelDataset(named, cache, check_inputs="all")
    assert list(train[5]) == ["image", "label", "path", "teacher_logits"]
    assert torch.equal(train[5]["teacher_logits"], torch.from_numpy(cache.logits(5)).float())
    batch = next(iter(DataLoader(train, batch_size=6)))
    assert batch["teacher_logits"].shape == (6, C)
    with pytest.raises(MismatchError, match="its label is 3, and was 1"):
        SoftLabelDataset(Items(lambda image, label: {"image": image, "label": 3}), cache)[5]
    with pytest.raises(MismatchError, match="not what the teacher saw"):
        SoftLabelDataset(Items(lambda image, label: {"image": image + 1, "label": label}), cache)[5]


def test_a_longer_tuple_is_refused_and_taken_by_its_places(cache: LogitCache) -> None:
    triples = Items(lambda image, label: (image, label, 7))
    with pytest.raises(TypeError, match=r"found a tuple of 3; .*keys=\(0, 1\)"):
        SoftLabelDataset(triples, cache)[0]
    assert SoftLabelDataset(triples, cache, check_inputs="all", keys=(0, 1))[5][1] == 1


@pytest.mark.parametrize("item", [torch.zeros(2, 3), "ab", np.zeros((2, 3)), 7])
def test_what_could_be_unpacked_by_accident_is_no_pair(cache: LogitCache, item: Any) -> None:
    with pytest.raises(TypeError, match="items of the dataset must be"):
        SoftLabelDataset(Items(lambda image, label: item), cache)[0]
    assert SoftLabelDataset(Items(lambda image, label: [image, label]), cache)[0][1] == 0


def test_an_input_may_be_several_values_of_a_dictionary(tmp_path: Path) -> None:
    ids, mask = torch.randint(0, 99, (N, 7)), torch.ones(N, 7, dtype=torch.int64)
    texts = build(tmp_path / "texts.h5", inputs={"input_ids": ids, "attention_mask": mask})
    keys = (("input_ids", "attention_mask"), "label")

    class Texts(Items):
        def __getitem__(self, index: int) -> Any:
            named = {"input_ids": ids[index].int(), "attention_mask": mask[index].int()}
            return {**named, "label": int(LABELS[index]), "text": "words"}

    train = SoftLabelDataset(Texts(), texts, check_inputs="all", keys=keys)
    assert set(train[3][0]) == {"input_ids", "attention_mask"}, "int32 and int64 ids are the same"
    ids[3, 2] += 1
    with pytest.raises(MismatchError, match="sample 3"):
        train[3]


class Stream(IterableDataset[Any]):
    """Has a length, and no index."""

    def __len__(self) -> int:
        return N

    def __iter__(self) -> Any:
        return iter(Items())


@pytest.mark.parametrize("data", [Stream(), DataLoader(Items()), iter([])])
def test_what_has_no_index_is_refused(cache: LogitCache, data: Any) -> None:
    with pytest.raises(TypeError, match=f"expected a map-style dataset.*found .*{type(data).__name__}"):
        SoftLabelDataset(data, cache)


# Labels


@pytest.mark.parametrize(
    "make",
    [
        np.int32,
        np.float32,
        float,
        lambda label: torch.tensor([label]),
        lambda label: torch.tensor(float(label), dtype=torch.bfloat16),
        lambda label: torch.nn.functional.one_hot(torch.tensor(label), C),
        lambda label: np.eye(C, dtype="f4")[label],
        lambda label: "abcd"[label],
    ],
)
def test_labels_of_every_kind_are_compared(tmp_path: Path, make: Any) -> None:
    named = build(tmp_path / "named.h5", data={"classes": list("abcd")})
    right = Items(lambda image, label: (image, make(label)))
    assert len(SoftLabelDataset(right, named).__getitems__([1, 2, 7])) == 3
    wrong = Items(lambda image, label: (image, make((label + 1) % C)))
    with pytest.raises(MismatchError, match="sample 2: its label is 3, and was 2"):
        SoftLabelDataset(wrong, named).__getitems__([2, 7])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bool, torch.uint8])
def test_labels_of_a_batch_are_compared_in_one_column_too(cache: LogitCache, dtype: torch.dtype) -> None:
    two = torch.from_numpy(LABELS)[:, None].to(dtype)
    rows = np.arange(2)
    SoftLabelDataset(Items(), cache).check_labels(rows, two[:2])
    with pytest.raises(MismatchError, match="sample 1: its label is 0"):
        SoftLabelDataset(Items(), cache).check_labels(rows, two[:2] * 0)


@pytest.mark.parametrize(
    ("label", "kind"),
    [("cat", "strings"), (None, "None"), (0.5, "no whole"), (np.full(C, 0.25), "not one-hot")],
)
def test_labels_that_cannot_be_compared_are_said_once(cache: LogitCache, label: Any, kind: str) -> None:
    other = Items(lambda image, _: (image, label))
    train = SoftLabelDataset(other, cache)
    with pytest.warns(CacheWarning, match=rf"labels are not compared.*{kind}") as said:
        _ = [train[index] for index in range(5)]
    assert len(said) == 1
    SoftLabelDataset(other, cache, compare_labels=False)[0]


def test_a_mixed_label_that_is_whole_is_not_taken_for_another(cache: LogitCache) -> None:
    """Mixup may give a sample wholly to its partner, by chance."""
    shares = np.full((3, C), 0.25, "f4")
    shares[2] = np.eye(C)[0]
    train = SoftLabelDataset(Items(), cache)
    with pytest.warns(CacheWarning, match="not compared"):
        train.check_labels(np.arange(3), shares)
    train.check_labels(np.array([2]), shares[2:])
    with pytest.raises(MismatchError):
        SoftLabelDataset(Items(), cache).check_labels(np.array([2]), shares[2:])


def test_targets_are_compared_in_the_precision_that_they_have(tmp_path: Path) -> None:
    targets = np.random.default_rng(0).normal(size=(N, 1))
    with LogitCacheWriter(tmp_path / "cache.h5", manifest(N, C, 1, num_targets=1)) as writer:
        writer.write(np.arange(N), LOGITS, labels=targets, inputs=IMAGES)
        cache = LogitCache.open(writer.publish())
    train, rows = SoftLabelDataset(Items(), cache), np.arange(N)
    for same in (targets, targets[:, 0], torch.from_numpy(targets).bfloat16(), targets.astype("f2")):
        train.check_labels(rows, same)
    for other in (targets[:, 0] + 0.1, targets * 1.001, torch.from_numpy(targets * 1.1).half()):
        with pytest.raises(MismatchError, match="sample 0"):
            train.check_labels(rows, other)


# Inputs


def as_tensor(image: np.ndarray) -> torch.Tensor:
    """As torchvision's ToTensor does."""
    return torch.from_numpy(image.transpose(2, 0, 1).copy()).float().div(255)


FORMS: dict[str, Any] = {
    "uint8, channels last": lambda image: image,
    "uint8, channels first": lambda image: torch.from_numpy(image.transpose(2, 0, 1).copy()),
    "a picture": Image.fromarray,
    "ToTensor": as_tensor,
    "floats 0 to 1 in float64": lambda image: image / 255,
    "whole floats": lambda image: image.astype("f4"),
    "integers": lambda image: torch.from_numpy(image.transpose(2, 0, 1).copy()).long(),
}
WRONG: dict[str, tuple[Any, str]] = {
    "mirrored": (lambda image: np.ascontiguousarray(image[:, ::-1]), "mirrored left to right"),
    "upside down": (lambda image: as_tensor(image[::-1].copy()), "mirrored top to bottom"),
    "blue first": (lambda image: np.ascontiguousarray(image[..., ::-1]), "BGR for RGB"),
    "on its side": (lambda image: np.ascontiguousarray(image.swapaxes(0, 1)), "rows and columns"),
    "normalised": (lambda image: (as_tensor(image) - 0.5) / 0.2, "which are no pixels: normalised"),
    "a little brighter": (lambda image: np.minimum(image, 254) + 1, "inputs differ"),
    "rounded": (lambda image: as_tensor(image).half().float(), "which are no pixels"),
}


@pytest.mark.parametrize("student", FORMS)
@pytest.mark.parametrize("teacher", FORMS)
def test_the_same_pixels_are_the_same_input_in_every_form(teacher: str, student: str) -> None:
    for image in (IMAGES[0], IMAGES[1]):
        recorded = input_crc32(FORMS[teacher](image))
        assert recorded is not None
        value = FORMS[student](image)
        assert input_crc32(value) == recorded or matching_form(value, recorded) is not None
        assert matching_form(FORMS[student](IMAGES[2]), recorded) is None


@pytest.mark.parametrize("name", WRONG)
def test_other_pixels_are_refused_and_the_difference_is_named(cache: LogitCache, name: str) -> None:
    change, says = WRONG[name]
    with pytest.raises(MismatchError, match=says):
        SoftLabelDataset(Items(lambda image, label: (change(image), label)), cache)[3]


def test_one_image_that_was_replaced_is_told_from_a_transform_that_changed(cache: LogitCache) -> None:
    """Of one, too, it was said that it is normalised, though all around it had the floats that the teacher saw."""
    noise = torch.randn(3, *IMAGES[0].shape[:2])
    replaced = Items(
        lambda image, label: (noise if np.array_equal(image, IMAGES[2]) else as_tensor(image), label)
    )
    train = SoftLabelDataset(replaced, cache, check_inputs="all")
    with pytest.raises(MismatchError, match=f"1 of these {N} inputs differ: the data of those samples have"):
        train.__getitems__(list(range(N)))


@pytest.mark.parametrize("form", FORMS)
def test_a_student_reads_its_pictures_in_any_form(cache: LogitCache, form: str) -> None:
    right = SoftLabelDataset(
        Items(lambda image, label: (FORMS[form](image), label)), cache, check_inputs="all"
    )
    assert len(right.__getitems__(list(range(N)))) == N
    other = Items(lambda image, label: (FORMS[form](image), label), shift=C)
    with pytest.raises(MismatchError, match="not what the teacher saw"):
        SoftLabelDataset(other, cache)[0]


def test_features_of_another_precision_are_the_same_where_their_values_are() -> None:
    values = np.random.default_rng(0).normal(size=9).astype("f4")
    crc = input_crc32(values)
    assert crc is not None
    assert matching_form(values.astype("f8"), crc) is not None
    assert matching_form(values.astype("f8") + 1e-12, crc) is None
    assert matching_form(values.astype("f2"), crc) is None
    assert difference("text", crc) is None


def test_a_cache_without_checksums_is_said_once_or_refused(tmp_path: Path) -> None:
    blind = build(tmp_path / "blind.h5", inputs=None)
    with pytest.warns(CacheWarning, match=r"no checksums of them: .*inputs=") as said:
        SoftLabelDataset(Items(), blind)[0]
    assert len(said) == 1
    with pytest.raises(MismatchError, match=r"check_inputs: .*no checksums"):
        SoftLabelDataset(Items(), blind, check_inputs="all")
    SoftLabelDataset(Items(), blind, check_inputs="off")[0]


def test_inputs_that_have_no_bytes_are_said_once_or_refused(cache: LogitCache) -> None:
    texts = Items(lambda image, label: ("a text", label))
    train = SoftLabelDataset(texts, cache)
    with pytest.warns(CacheWarning, match="inputs of type str cannot be compared") as said:
        _ = [train[index] for index in range(5)]
    assert len(said) == 1
    with pytest.raises(MismatchError, match="inputs of type str"):
        SoftLabelDataset(texts, cache, check_inputs="all")[0]


# Keys without a view


def test_a_key_without_a_view_reads_view_0_and_says_so_once(three_views: LogitCache) -> None:
    train = SoftLabelDataset(Viewed(), three_views)
    with pytest.warns(CacheWarning, match=r"view 0 only, of 3: call set_epoch") as said:
        found = [train[index][2] for index in (4, 5)]
    assert len(said) == 1
    assert torch.equal(found[0], torch.from_numpy(three_views.logits([4])[0]).float())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SoftLabelDataset(Viewed(), three_views)[4, 2]
        one = SoftLabelDataset(Viewed(), three_views)
        one.set_epoch(0)
        one[4]


@pytest.mark.parametrize(
    "key", [slice(0, 2), [1, 2], np.arange(2), "3", 3.5, None, (1, 2, 3), (1, "2"), (None, 0)]
)
def test_what_is_no_key_is_refused(three_views: LogitCache, key: Any) -> None:
    train = SoftLabelDataset(Viewed(), three_views)
    with pytest.raises(TypeError, match=r"key: expected an index or \(index, view\), found"):
        train[key]


@pytest.mark.parametrize("wrong", ["teacher.h5", Path("teacher.h5"), None, [], ["teacher.h5"], Viewed()])
def test_what_is_no_open_cache_is_refused(wrong: Any) -> None:
    for take in (SoftLabelDataset, lambda data, cache: decant.attach([], cache, key="index")):
        with pytest.raises(TypeError, match=r"cache: expected an open cache, as decant.LogitCache.open"):
            take(Viewed(), wrong)


def test_set_epoch_reads_the_views_in_turn(three_views: LogitCache) -> None:
    train = SoftLabelDataset(Seen(), three_views, check_inputs="off")
    for epoch in range(2 * V):
        train.set_epoch(epoch)
        assert [train[7][0], train[7, 1][0]] == [epoch % V, 1]
        assert torch.equal(train[7][2], torch.from_numpy(three_views.logits([7], epoch % V)[0]).float())
    for wrong in (-1, 0.5):
        with pytest.raises((ValueError, TypeError)):
            train.set_epoch(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (1, "spawn"), (1, "forkserver")])
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_set_epoch_reaches_live_workers(
    three_views: LogitCache, workers: int, method: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a script shares memory by name, as macOS does: workers that are spawned know of no such choice."""
    if method == "spawn":
        monkeypatch.setattr(torch.multiprocessing, "_sharing_strategy", "file_system")
        assert torch.multiprocessing.get_sharing_strategy() == "file_system"
    train = SoftLabelDataset(Seen(), three_views, check_inputs="off")
    loader: DataLoader[Any] = DataLoader(
        train,
        batch_size=5,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context=method,
        persistent_workers=workers > 0,
    )
    for epoch in (0, 2, 1, 3, 7):
        train.set_epoch(epoch)
        views = torch.cat([inputs for inputs, _, _ in loader])
        assert views.tolist() == [epoch % V] * N


def test_a_copy_has_an_epoch_of_its_own_which_its_workers_share(three_views: LogitCache) -> None:
    train = SoftLabelDataset(Seen(), three_views, check_inputs="off")
    train.set_epoch(1)
    for again in (pickle.loads(pickle.dumps(train)), copy.deepcopy(train)):
        again.set_epoch(2)
        assert (train[0][0], again[0][0]) == (1, 2)
        loader: DataLoader[Any] = DataLoader(
            again, num_workers=1, multiprocessing_context="fork", persistent_workers=True
        )
        for epoch in (2, 0):
            again.set_epoch(epoch)
            assert {int(view) for view, _, _ in loader} == {epoch}


@pytest.mark.parametrize(
    "data", [Items(), [(image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True)]]
)
def test_a_dataset_that_takes_an_index_alone_is_told_what_it_must_take(
    three_views: LogitCache, data: Any
) -> None:
    for key in ((3, 1), 3):
        train = SoftLabelDataset(data, three_views)
        train.set_epoch(0)
        with pytest.raises(
            MismatchError, match=r"has 3 views, and .* takes an index alone.*decant\.recipe_dataset"
        ):
            train[key]


def test_tensors_would_take_a_view_for_an_index(three_views: LogitCache) -> None:
    tensors = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))
    with pytest.raises(MismatchError, match="TensorDataset takes an index alone"):
        SoftLabelDataset(tensors, three_views)  # type: ignore[arg-type]


def test_an_error_of_the_dataset_itself_stays_what_it_is(three_views: LogitCache) -> None:
    class Broken(Viewed):
        def __getitem__(self, key: Any) -> Any:
            raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        SoftLabelDataset(Broken(), three_views)[3, 1]


def test_a_sample_whose_label_was_not_recorded_may_have_any(tmp_path: Path) -> None:
    recorded = np.where(np.arange(N) % 2, LABELS, -1)
    with LogitCacheWriter(tmp_path / "half.h5", manifest(N, C, 1)) as writer:
        writer.write(np.arange(N), LOGITS, labels=recorded)
        train = SoftLabelDataset(Items(), LogitCache.open(writer.publish()), check_inputs="off")
    given = torch.from_numpy(LABELS.copy())
    train.check_labels(np.arange(N), given)
    given[1] = (given[1] + 1) % C
    with pytest.raises(MismatchError, match="sample 1: its label is"):
        train.check_labels(np.arange(N), given)


def test_where_no_label_was_recorded_none_is_compared(tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "none.h5", manifest(N, C, 1)) as writer:
        writer.write(np.arange(N), LOGITS, labels=np.full(N, -1))
        train = SoftLabelDataset(Items(), LogitCache.open(writer.publish()), check_inputs="off")
    train.check_labels(np.arange(N), ["cat"] * N)  # and nothing is said


@pytest.mark.parametrize(
    ("keys", "says"),
    [([N], "sample"), ([0, -N - 1], "sample"), ([(0, -1)], "views count from 0")],
    ids=["after the last", "before the first", "a view from the end"],
)
def test_a_key_that_no_sample_has_is_refused(keys: Any, says: str) -> None:
    with pytest.raises(IndexError, match=says):
        split_keys(keys, N)
    pairs = np.array([key if isinstance(key, tuple) else (key, 0) for key in keys])
    with pytest.raises(IndexError, match=says):
        split_keys(pairs, N)


def test_labels_that_differ_since_the_file_was_written_to_are_its_change_and_not_the_datasets(
    tmp_path: Path,
) -> None:
    train = SoftLabelDataset(Items(), build(tmp_path / "cache.h5"), check_inputs="off")
    assert train[3][1] == LABELS[3]
    (tmp_path / "cache.h5").chmod(0o644)
    with open(tmp_path / "cache.h5", "r+b") as file:
        layout = check(file, "cache.h5")
        file.seek(layout.tables["labels"].offset + 8 * 3)
        file.write(b"\1")
    with pytest.raises(CorruptError, match="has changed since it was read"):
        train[3]


def test_labels_are_expected_only_byte_by_byte_and_each_of_them(cache: LogitCache) -> None:
    rows = np.array([2, 0, 1])
    expected = ExpectedBatches(cache, rows, np.zeros(3, np.intp), [0, 2, 3])
    first, second = torch.from_numpy(cache.labels[rows[:2]]), torch.from_numpy(cache.labels[rows[2:]])
    assert expected.has_labels(0, first)
    assert expected.has_labels(1, second)
    for other in (first[:1], first[:, None], first.view(torch.float64), first.flip(0)):
        assert not expected.has_labels(0, other), other
    assert not expected.has_labels(1, first[:1])
