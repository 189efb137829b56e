"""Reading lazily: in batches of a loader with workers, by pickle, with labels that are checked late."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from decant.cache import CorruptError, LogitCache, SoftLabelDataset
from decant.cache.io import usage
from decant.cache.remote.addresses import Address
from decant.cache.remote.fsspec_folder import FsspecFolder
from decant.cache.remote.opening import open_folder
from decant.cache.remote.publishing import publish
from decant.pipeline.training import loading
from tests.helpers.caches import build, holds_the_answers, manifest
from tests.helpers.extras import needs
from tests.helpers.web import Web

MANY = manifest(num_samples=2000, num_views=1)


def data(samples: int) -> TensorDataset:
    """Inputs are the numbers of the samples."""
    return TensorDataset(torch.arange(samples), torch.arange(samples) % 10)


@pytest.mark.parametrize(
    "context", [pytest.param(name, marks=needs("aiohttp")) for name in ("fork", "spawn")]
)
def test_workers_fetch_what_they_read_and_the_copy_is_whole_after_an_epoch(web: Web, context: str) -> None:
    build(web.folder / "x.h5", MANY)
    cache, whole = LogitCache.open(f"{web.url}/x.h5", lazy=True), LogitCache.open(web.folder / "x.h5")
    cache.logits([0])  # the process that opened it has a thread of its own by now
    train = SoftLabelDataset(data(2000), cache, check_inputs="off")
    more = {"multiprocessing_context": context, "persistent_workers": True, "num_workers": 1}
    loader = DataLoader(train, batch_size=50, shuffle=True, **more)  # type: ignore[arg-type]
    for epoch in range(2):
        train.set_epoch(epoch)
        seen = 0
        for samples, _, logits in loader:
            assert np.array_equal(logits.numpy(), whole.logits(samples.numpy()))
            seen += len(samples)
        assert seen == 2000
    train.check_unchanged(checksums=True)
    assert cache.path.name == "x.h5"
    assert cache.path.read_bytes() == whole.path.read_bytes()
    assert usage.count(cache.path) == 1, "noted while the copy had another name"
    assert [path.name for path in cache.path.parent.glob("*.uses")] == ["x.h5.uses"]


def test_threads_that_ask_first_at_once_share_a_connection() -> None:
    """Who drops one closes its session, in the middle of a request of another thread: seen in one epoch of eight."""
    together = threading.Barrier(4, timeout=60)

    class Folder(FsspecFolder):
        def _connect(self) -> object:
            together.wait()
            return object()

    folder = Folder(Address.of("memory://caches"))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: folder.fs, range(4)))
    assert len(set(map(id, found))) == 1
    assert folder.fs is found[0]


def stored(tmp_path: Path) -> str:
    url = f"memory://{uuid.uuid4().hex}"
    publish(build(tmp_path / "x.h5", MANY), open_folder(url))
    return f"{url}/x.h5"


def test_a_copy_by_pickle_is_the_same_cache(tmp_path: Path) -> None:
    cache = LogitCache.open(stored(tmp_path), lazy=True)
    again = pickle.loads(pickle.dumps(cache))
    assert np.array_equal(again.logits([5, 1999]), cache.logits([5, 1999]))
    assert holds_the_answers(again)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_while_a_thread_writes_goes_on(tmp_path: Path) -> None:
    cache = LogitCache.open(stored(tmp_path), lazy=True)
    filling = cache._lazy._filling  # type: ignore[union-attr]
    with filling.copy._lock:
        child = os.fork()
        if child == 0:
            filling.fetch([3])
            os._exit(0 if filling.copy.missing([3]) == [] else 1)
    deadline = time.monotonic() + 60
    while (ended := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.02)
    if ended[0] == 0:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert ended == (child, 0)


def test_what_is_prefetched_is_here_when_it_is_read(tmp_path: Path) -> None:
    cache = LogitCache.open(stored(tmp_path), lazy=True)
    cache.prefetch(range(1900, 2000))
    filling = cache._lazy._filling  # type: ignore[union-attr]
    wanted = range(1900 >> 5, 2000 >> 5)
    deadline = time.monotonic() + 60
    while filling.copy.missing(wanted):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(IndexError):
        cache.prefetch([2000])


def test_labels_that_prove_to_be_others_are_refused(tmp_path: Path) -> None:
    """A store that says other labels first than those that its blocks have checksums of."""
    url = stored(tmp_path)
    name = url.rpartition("/")[2]
    cache = LogitCache.open(url, lazy=True)
    folder = cache._lazy._filling.folder  # type: ignore[union-attr]
    table, read = cache._layout.tables["labels"], folder.read

    def lie(name: str, first: int, end: int, tag: str = "") -> bytes:
        content = read(name, first, end, tag)
        return b"\7" + content[1:] if first == table.offset and end == table.end else content

    folder.read = lie  # type: ignore[method-assign]
    assert cache.labels[0] != 0
    with pytest.raises(CorruptError, match=f"{name}: its labels or input checksums were others"):
        cache.logits(slice(None))


def test_labels_of_blocks_that_were_checked_stay_as_they_are(tmp_path: Path) -> None:
    cache = LogitCache.open(stored(tmp_path), lazy=True)
    filling = cache._lazy._filling  # type: ignore[union-attr]
    filling.fetch([0])
    folder, read = filling.folder, filling.folder.read
    folder.read = lambda *words: bytes(len(read(*words)))  # type: ignore[method-assign]
    assert cache.labels[:32].tolist() == (np.arange(32) % 10).tolist()
    assert cache.labels[32:].tolist() == [0] * 1968


def test_a_lazy_copy_that_is_changed_is_noticed(tmp_path: Path) -> None:
    cache = LogitCache.open(stored(tmp_path), lazy=True)
    assert holds_the_answers(cache)
    cache.check_unchanged()
    with open(cache.path.with_suffix(".h5"), "rb") as file:
        content = bytearray(file.read())
    cache.path.chmod(0o644)
    with open(cache.path, "r+b") as file:
        file.seek(40_000)
        file.write(bytes([content[40_000] ^ 1]))
    with pytest.raises(CorruptError, match="has changed since it was read"):
        cache.check_unchanged(checksums=True)


def test_the_loader_of_a_student_says_what_is_read_next(tmp_path: Path) -> None:
    cache = LogitCache.open(stored(tmp_path), lazy=True)
    train = SoftLabelDataset(data(2000), cache, check_inputs="off")
    told: list[int] = []
    cache._lazy.prefetch = told.extend  # type: ignore[union-attr, method-assign]
    keys = loading.ShuffledKeys(2000, 100, seed=0)
    sampler = loading.loader(train, keys).sampler  # type: ignore[arg-type]
    assert len(sampler) == 20  # type: ignore[arg-type]
    assert np.array_equal(next(iter(sampler)), next(iter(keys)))
    expected = {sample >> 5 for batch in list(keys)[:5] for sample in batch[:, 0].tolist()}
    assert set(told) == expected
