"""attach: samples of a stream get the logits of the key that they carry, or are refused by name."""

from __future__ import annotations

import functools
import pickle
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, get_worker_info

import decant
from decant.cache import CacheWarning, LogitCache, LogitCacheWriter, MismatchError, attach
from tests.helpers.caches import manifest

N, C, V = 70, 4, 3
LABELS = np.arange(N) % C
IMAGES = np.random.default_rng(5).integers(0, 256, (V, N, 3, 4, 4), dtype=np.uint8)
LOGITS = np.random.default_rng(6).normal(size=(V, N, C)).astype("f4") + 6 * np.eye(C, dtype="f4")[LABELS]


def build(path: Path, views: int = 1) -> LogitCache:
    with LogitCacheWriter(path, manifest(N, C, views, "float32")) as writer:
        for view in range(views):
            writer.write(np.arange(N), LOGITS[view], labels=LABELS, inputs=IMAGES[view], view=view)
        return LogitCache.open(writer.publish())


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return build(tmp_path_factory.mktemp("stream") / "one.h5")


@pytest.fixture(scope="module")
def views(tmp_path_factory: pytest.TempPathFactory) -> LogitCache:
    return build(tmp_path_factory.mktemp("stream") / "three.h5", V)


def samples(
    indices: Any = None, view: int = 0, key: Callable[[int], Any] = lambda index: index
) -> list[dict[str, Any]]:
    """Samples as webdataset's are, shuffled unless `indices` say which."""
    order = np.random.default_rng(1).permutation(N).tolist() if indices is None else indices
    return [{"image": IMAGES[view, i], "label": int(LABELS[i]), "index": key(i)} for i in order]


class Divides(IterableDataset[Any]):
    """Divides its samples among workers, or each worker reads all."""

    def __init__(self, divides: bool = True) -> None:
        self.divides = divides

    def __iter__(self) -> Iterator[Any]:
        worker = get_worker_info()
        step = worker.num_workers if worker and self.divides else 1
        return iter(samples()[(worker.id if step > 1 and worker else 0) :: step])


joined = functools.partial(attach, key="index", keys=("image", "label"), check_inputs="all")


def test_samples_get_the_logits_of_their_key_in_the_order_of_the_stream(cache: LogitCache) -> None:
    given = samples()
    found = list(joined(given, cache))
    assert [sample["index"] for sample in found] == [sample["index"] for sample in given]
    for sample in found:
        assert sample["teacher_logits"].tolist() == LOGITS[0, sample["index"]].tolist()
        assert sample["teacher_logits"].dtype == torch.float32
    assert "teacher_logits" not in given[0], "the stream's own sample is as it was"


@pytest.mark.parametrize(
    "make",
    [int, np.int64, np.uint8, torch.tensor, np.array, lambda i: (i, 0), lambda i: torch.tensor([i, 0])],
)
def test_a_key_may_be_any_whole_number_or_a_pair(cache: LogitCache, make: Any) -> None:
    (found,) = joined(samples([7], key=make), cache)
    assert found["teacher_logits"].tolist() == LOGITS[0, 7].tolist()


def test_tuples_get_their_logits_at_the_end(cache: LogitCache) -> None:
    stream = [(IMAGES[0, i], LABELS[i], i) for i in (5, 3)]
    for key in (2, -1, lambda sample: sample[2]):
        keys = None if isinstance(key, int) else (0, 1)
        found = list(attach(stream, cache, key=key, keys=keys, check_inputs="all"))
        assert [sample[3].tolist() for sample in found] == [LOGITS[0, 5].tolist(), LOGITS[0, 3].tolist()]


def test_a_key_has_a_view_or_the_epoch_has_it(views: LogitCache) -> None:
    pairs = joined(samples([4], view=2, key=lambda index: (index, 2)), views)
    assert [sample["teacher_logits"].tolist() for sample in pairs] == [LOGITS[2, 4].tolist()]
    with pytest.raises(
        MismatchError, match=r"key 4: has no view, and the cache has 3: give keys \(index, view\), or"
    ):
        list(joined(samples([4]), views))
    for epoch in range(4):
        stream = joined(samples([4], view=epoch % V), views)
        stream.set_epoch(epoch)
        assert [sample["teacher_logits"].tolist() for sample in stream] == [LOGITS[epoch % V, 4].tolist()]


def test_the_iterable_is_told_the_epoch(cache: LogitCache) -> None:
    class Told(Divides):
        epoch = -1

        def set_epoch(self, epoch: int) -> None:
            self.epoch = epoch

    inner = Told()
    joined(inner, cache).set_epoch(3)
    assert inner.epoch == 3


@pytest.mark.parametrize(
    ("key", "said"),
    [
        (None, "key 'index': expected an index or (index, view), found nothing"),
        ("7", "found '7'; give a function of the sample, as key=lambda sample: int(sample[…])"),
        (7.0, "expected an index or (index, view), found 7.0"),
        (True, "expected an index or (index, view), found True"),
        ((7, None), "expected an index or (index, view), found (7, None)"),
        (torch.arange(8), "found Tensor of shape (8,): attach logits to samples, before they are batched"),
    ],
)
def test_a_key_that_is_none_is_refused_with_what_was_found(cache: LogitCache, key: Any, said: str) -> None:
    with pytest.raises(TypeError) as refused:
        list(joined(samples([7], key=lambda _: key), cache))
    assert said in str(refused.value)


@pytest.mark.parametrize("key", [N, -1, 2**70])
def test_a_key_that_the_cache_does_not_have_is_refused(cache: LogitCache, key: int) -> None:
    with pytest.raises(
        MismatchError, match=rf"key {key:,}: the cache has samples 0 to 69; it is of other data"
    ):
        list(joined(samples([7], key=lambda _: key), cache))


def test_a_view_that_the_cache_does_not_have_is_refused(cache: LogitCache) -> None:
    with pytest.raises(MismatchError, match=r"key \(7, 1\): the cache has 1 views, from 0"):
        list(joined(samples([7], key=lambda index: (index, 1)), cache))


def test_a_missing_field_is_refused_with_those_that_are_there(cache: LogitCache) -> None:
    with pytest.raises(
        TypeError, match=r"key 'id': no such field in a sample, .* dictionary of image, label, index"
    ):
        list(attach(samples(), cache, key="id", keys=("image", "label")))
    others = [{"jpg": b"bytes", "cls": one["label"], "index": one["index"]} for one in samples()]
    with pytest.raises(
        TypeError, match=r"must be \(input, label\), found a dictionary of jpg, cls; give attach"
    ):
        list(attach(others, cache, key="index"))
    assert len(list(attach(samples(), cache, key="index", check_inputs="all"))) == N, "recognised"
    twice = joined(list(joined(samples(), cache)), cache)
    with pytest.raises(TypeError, match="'teacher_logits' already"):
        list(twice)


def test_labels_and_inputs_are_compared_with_those_of_the_teachers_pass(cache: LogitCache) -> None:
    shifted = samples(range(20), key=lambda index: index + 1)
    with pytest.raises(MismatchError, match="sample 1: its label is 0, and was 1 when the teacher saw it"):
        list(joined(shifted, cache))
    same_labels = samples(range(20), key=lambda index: index + C)
    with pytest.raises(MismatchError, match="sample 4, view 0: the input is not what the teacher saw"):
        list(attach(same_labels, cache, key="index", keys=("image", "label")))
    unchecked = attach(shifted, cache, key="index", check_inputs="off", compare_labels=False)
    assert len(list(unchecked)) == 20


def test_inputs_are_compared_again_and_again(cache: LogitCache) -> None:
    given = samples(range(40))
    given[32]["image"] = IMAGES[0, 0]
    with pytest.raises(MismatchError, match="sample 32, view 0"):
        list(attach(given, cache, key="index", keys=("image", "label")))


@pytest.mark.parametrize(
    ("stream", "start"),
    [(samples(), "fork"), (Divides(), "fork"), (Divides(), "spawn")],
    ids=["list", "own", "spawn"],
)
def test_workers_divide_the_stream(cache: LogitCache, stream: Any, start: str) -> None:
    loader = DataLoader(
        joined(stream, cache),
        batch_size=None,
        num_workers=2,
        persistent_workers=True,
        multiprocessing_context=start,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            found = list(loader)
            assert sorted(sample["index"] for sample in found) == list(range(N))
            for sample in found:
                assert sample["teacher_logits"].tolist() == LOGITS[0, sample["index"]].tolist()


def test_live_workers_see_the_epoch(views: LogitCache) -> None:
    stream = attach(samples(range(8)), views, key="index", check_inputs="off", compare_labels=False)
    loader = DataLoader(stream, batch_size=None, num_workers=1, persistent_workers=True)
    for epoch in range(4):
        stream.set_epoch(epoch)
        assert [one["teacher_logits"].tolist() for one in loader] == LOGITS[epoch % V, :8].tolist()


def test_what_comes_twice_in_a_pass_is_said_once(cache: LogitCache) -> None:
    stream = joined(samples([7, 8, 7, 8]), cache)
    with pytest.warns(CacheWarning, match="sample 7 came twice in one pass") as said:
        list(stream)
    list(stream)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(joined(samples([7, 8, 7]), cache, repeats=True))
        again = joined(samples([7, 8]), cache)
        assert [len(list(again)) for _ in range(3)] == [2, 2, 2], "another pass is no repeat"


def test_workers_that_all_read_the_whole_stream_are_said(cache: LogitCache) -> None:
    stream = joined(Divides(divides=False), cache)
    with pytest.raises(CacheWarning, match="with several workers the iterable may not divide its samples"):
        # pytest makes it an error, in a worker where that is forked
        list(DataLoader(stream, batch_size=None, num_workers=2, multiprocessing_context="fork"))


def test_an_iterator_is_read_once(cache: LogitCache) -> None:
    stream = joined(iter(samples()), cache)
    assert len(list(stream)) == N
    with pytest.raises(
        RuntimeError, match=r"list_iterator: an iterator gives its samples once, and they were read"
    ):
        list(stream)


def test_what_has_an_index_is_for_the_other_dataset(cache: LogitCache) -> None:
    data: Any = TensorDataset(torch.zeros(N), torch.zeros(N))
    with pytest.raises(
        TypeError, match=r"a map-style dataset: SoftLabelDataset\(dataset, cache\) reads it by index"
    ):
        attach(data, cache, key=0)
    with pytest.raises(TypeError, match="expected an iterable of samples, found int"):
        attach(3, cache, key=0)  # type: ignore[arg-type]


def test_a_copy_by_pickle_reads_the_same(cache: LogitCache) -> None:
    copied = pickle.loads(pickle.dumps(joined(samples([3]), cache)))
    (found,) = copied
    assert found["teacher_logits"].tolist() == LOGITS[0, 3].tolist()


def test_attach_is_a_name_of_the_package() -> None:
    assert decant.attach is attach
