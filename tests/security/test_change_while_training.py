"""A cache that changes while a student trains from it: never a wrong student that is called finished, never a process
that ends without a word.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import TensorDataset

from decant.cache import CorruptError, LogitCache, RewrittenError, SoftLabelDataset
from decant.cache.stream import attach
from tests.helpers.caches import build, manifest
from tests.helpers.commands import decant, fork_python, only, refused, succeed
from tests.helpers.processes import finished

RECIPE = """
[data]
name = "digits"
[teacher]
network = {name = "conv", width = 4}
epochs = 2
lr = 0.003
[student]
network = {name = "mlp", hidden = 8}
epochs = 3
batch_size = 64
lr = 0.03
baseline = false
[student.objective]
name = "losses:loss"
"""
LOSSES = """
import os, pathlib, shutil, time

calls = 0

def act(path, action):
    held = path.stat()
    size = held.st_size
    path.chmod(0o644)
    time.sleep(0.02)
    if action == "emptied":
        os.truncate(path, 0)
    elif action == "cut short":
        os.truncate(path, size // 2)
    elif action in ("overwritten", "overwritten, its time put back"):
        with path.open("r+b") as file:
            file.seek(40_000)
            file.write(b"\\x3c" * 5_000)
    elif action == "overwritten by another cache":
        path.write_bytes(pathlib.Path("other.h5").read_bytes())
    elif action == "rewritten":
        path.write_bytes(path.read_bytes())
    elif action == "replaced":
        shutil.copy("other.h5", "draft.h5")
        os.replace("draft.h5", path)
    elif action == "deleted":
        path.unlink()
    if action.endswith("put back"):
        os.utime(path, ns=(held.st_atime_ns, held.st_mtime_ns))

def loss(student_logits, teacher_logits, labels):
    global calls
    calls += 1
    action, at = os.environ.get("ACTION"), os.environ.get("AT", "30").split()
    if action and str(calls) in at:
        act(next(pathlib.Path("store").glob("*.h5")), action)
    return ((student_logits - teacher_logits) ** 2).mean()
"""
STEPS_OF_AN_EPOCH = 23


def student(folder: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return decant("student", "--recipe", "mine.toml", "--store", "store", *words, cwd=folder, **env)


def weights(folder: Path) -> bytes:
    """Of the one finished student."""
    only(folder, "runs/mine/student-*/seed-0/result.json")
    return only(folder, "runs/mine/student-*/seed-0/weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A folder with a cache, and the weights of a student whose cache stayed as it was."""
    folder = tmp_path_factory.mktemp("ready") / "work"
    folder.mkdir()
    (folder / "mine.toml").write_text(RECIPE)
    (folder / "losses.py").write_text(LOSSES)
    for phase in ("teacher", "cache-logits"):
        succeed(decant(phase, "--recipe", "mine.toml", "--store", "store", cwd=folder))
    other = ("--set", "cache.batch_size=100", "--set", "teacher.seed=5")
    for phase in ("teacher", "cache-logits"):
        succeed(
            decant(phase, "--recipe", "mine.toml", *other, "--runs", "r", "--store", "others", cwd=folder)
        )
    only(folder, "others/*.h5").rename(folder / "other.h5")
    trained = folder.with_name("trained")
    shutil.copytree(folder, trained)
    succeed(student(trained))
    return folder, weights(trained)


@pytest.fixture
def work(ready: tuple[Path, bytes], tmp_path: Path) -> Path:
    shutil.copytree(ready[0], tmp_path / "work")
    return tmp_path / "work"


HARMFUL = {
    "emptied": "now has 0; fetch",
    "cut short": "now has ",
    "overwritten": "has changed since it was read",
    "overwritten, its time put back": "has changed since it was read",
    "overwritten by another cache": "has changed since it was read",
}


@pytest.mark.parametrize("action", HARMFUL)
def test_no_student_of_a_changed_cache_is_finished(
    action: str, work: Path, ready: tuple[Path, bytes]
) -> None:
    path = only(work, "store/*.h5")
    whole = path.read_bytes()
    said = refused(student(work, ACTION=action)).splitlines()
    assert len(said) == 1, said
    assert said[0].startswith(f"decant: store/{path.name}: ")
    assert HARMFUL[action] in said[0] or "was cut short, or its disk failed" in said[0], said
    assert not list(work.glob("runs/mine/student-*/seed-0/result.json"))
    path.write_bytes(whole)
    succeed(student(work))
    assert weights(work) == ready[1], "an epoch with other logits was kept"


@pytest.mark.parametrize("action", ["deleted", "replaced"])
def test_a_cache_that_loses_its_name_is_read_on(action: str, work: Path, ready: tuple[Path, bytes]) -> None:
    path = only(work, "store/*.h5")
    key = LogitCache.open(path).manifest.key
    done = student(work, ACTION=action)
    succeed(done)
    assert done.stderr.count("warning: ") == 1, done.stderr
    expected = {"deleted": "was deleted while it is read", "replaced": "another file has taken its name"}
    assert f"store/{path.name}: {expected[action]}" in done.stderr
    assert weights(work) == ready[1]
    result = json.loads(only(work, "runs/mine/student-*/seed-0/result.json").read_text())
    assert result["cache"] == key, "what was read is named"


def test_an_epoch_in_which_the_same_bytes_were_written_is_trained_again(
    work: Path, ready: tuple[Path, bytes]
) -> None:
    done = student(work, ACTION="rewritten")
    succeed(done)
    assert done.stderr.count("was written to while it was read, and is as it was before") == 1, done.stderr
    assert "this epoch is trained again" in done.stderr
    assert weights(work) == ready[1]


def test_a_file_that_is_always_written_to_is_an_error_in_the_end(
    work: Path, ready: tuple[Path, bytes]
) -> None:
    """Its first epoch is tried three times; where each epoch is well the second time, training goes on."""
    every_time = " ".join(str(step) for step in range(5, 1000, STEPS_OF_AN_EPOCH))
    said = refused(student(work, ACTION="rewritten", AT=every_time))
    assert said.count("this epoch is trained again") == 2
    assert said.splitlines()[-1].startswith("decant: store/")
    every_second_time = " ".join(str(step) for step in range(5, 1000, 2 * STEPS_OF_AN_EPOCH))
    done = student(work, ACTION="rewritten", AT=every_second_time)
    succeed(done)
    assert done.stderr.count("this epoch is trained again") == 3
    assert weights(work) == ready[1]


def test_other_permissions_are_no_change(work: Path, ready: tuple[Path, bytes]) -> None:
    done = student(work, ACTION="none")
    succeed(done)
    assert "warning" not in done.stderr
    assert weights(work) == ready[1]


@pytest.mark.parametrize("at", [1, 3 * STEPS_OF_AN_EPOCH])
def test_it_is_found_whenever_it_happens(at: int, work: Path, ready: tuple[Path, bytes]) -> None:
    path = only(work, "store/*.h5")
    whole = path.read_bytes()
    refused(student(work, ACTION="overwritten", AT=str(at)))
    path.write_bytes(whole)
    succeed(student(work))
    assert weights(work) == ready[1]


# Loops of one's own

READER = """
import os, sys
import torch
from pathlib import Path
from decant.cache import CorruptError, LogitCache
from torch.utils.data import DataLoader, Dataset

path, workers = Path(sys.argv[1]), int(sys.argv[2])
cache = LogitCache.open(path)

class Rows(Dataset):
    def __len__(self):
        return 4000
    def __getitem__(self, index):
        return cache.logits(index)

forked = {"num_workers": workers, "multiprocessing_context": "fork"} if workers else {}  # -c has no module to import
try:
    for number, batch in enumerate(DataLoader(Rows(), batch_size=100, **forked)):
        if number == 3:
            path.chmod(0o644)
            os.truncate(path, 100_000)
except CorruptError as error:
    print(str(error).strip().splitlines()[-1])
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_a_file_that_is_cut_short_is_an_error_and_no_signal(workers: int, tmp_path: Path) -> None:
    path = build(tmp_path / "c.h5", manifest(4000, 100))
    said = finished(fork_python(READER, path, workers))
    assert str(path) in said
    assert "was cut short, or its disk failed, while it was read" in said


def test_labels_of_a_file_that_is_cut_short_are_not_taken_for_others(tmp_path: Path) -> None:
    of = manifest(4000, 100, num_views=1)
    path = build(tmp_path / "c.h5", of)
    cache = LogitCache.open(path)
    labels = cache.labels.copy()
    data = SoftLabelDataset(
        TensorDataset(torch.zeros(4000, 1), torch.from_numpy(labels)), cache, check_inputs="off"
    )
    for index in range(4000):
        data[index]
    path.chmod(0o644)
    os.truncate(path, 32_768 + 4000 * 200)  # whose logits are whole, and labels gone
    with pytest.raises(CorruptError, match=r"was cut short|now has 832,768"):
        [data[index] for index in range(4000)]


def test_a_loop_of_ones_own_hears_of_it_at_the_next_epoch(tmp_path: Path) -> None:
    path = build(tmp_path / "c.h5", manifest(100, num_views=1))
    cache = LogitCache.open(path)
    data = SoftLabelDataset(TensorDataset(torch.zeros(100, 1), torch.from_numpy(cache.labels.copy())), cache)
    cache.logits(np.arange(40))
    data.set_epoch(0)
    whole = path.read_bytes()
    path.chmod(0o644)
    time.sleep(0.02)
    path.write_bytes(whole)
    with pytest.raises(RewrittenError, match="was written to while it was read"):
        data.set_epoch(1)
    data.set_epoch(1)
    data.check_unchanged(checksums=True)
    time.sleep(0.02)
    with path.open("r+b") as file:
        file.seek(60_000)
        file.write(b"other")
    with pytest.raises(CorruptError, match=r"view 0, block 0 .* has changed since it was read"):
        data.set_epoch(2)


@pytest.mark.parametrize("more", [-1, 1])
def test_a_byte_less_or_more_is_a_change(more: int, tmp_path: Path) -> None:
    path = build(tmp_path / "c.h5", manifest(100, num_views=1))
    cache = LogitCache.open(path)
    cache.logits([0])
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size + more)
    with pytest.raises(CorruptError, match=r"bytes when it was opened, and now has"):
        cache.check_unchanged()


def test_a_stream_hears_of_it_too(tmp_path: Path) -> None:
    path = build(tmp_path / "c.h5", manifest(100, num_views=1))
    stream = attach(
        [{"index": 3}], LogitCache.open(path), key="index", check_inputs="off", compare_labels=False
    )
    list(stream)
    path.chmod(0o644)
    os.truncate(path, 1000)
    with pytest.raises(CorruptError, match=r"now has 1,000"):
        stream.set_epoch(1)


def test_what_no_time_tells_checksums_do(tmp_path: Path) -> None:
    path = build(tmp_path / "c.h5", manifest(100, num_views=1))
    cache = LogitCache.open(path)
    cache.logits(np.arange(40))
    path.chmod(0o644)
    cache.check_unchanged()
    with path.open("r+b") as file:
        file.seek(60_000)
        file.write(b"other")
    cache._soundness._unchanged._stamp = cache._soundness._mapped.stamp()  # as where the system notes no time
    cache.check_unchanged()
    with pytest.raises(CorruptError, match=r"view 0, block 0 .* has changed since it was read"):
        cache.check_unchanged(checksums=True)


def test_another_working_folder_is_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    build(tmp_path / "c.h5", manifest(100, num_views=1))
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path)
    cache = LogitCache.open("c.h5")
    monkeypatch.chdir("inner")
    cache.check_unchanged(checksums=True)
    assert not recwarn.list


def test_what_was_never_read_may_be_anything(tmp_path: Path) -> None:
    """It is found when it is read."""
    path = build(tmp_path / "c.h5", manifest(100, num_views=1))
    cache = LogitCache.open(path)
    cache.logits(np.arange(3))
    path.chmod(0o644)
    time.sleep(0.02)
    with path.open("r+b") as file:
        file.seek(32_768 + 99 * 2000)
        file.write(b"other")
    with pytest.raises(RewrittenError):
        cache.check_unchanged(checksums=True)
    with pytest.raises(CorruptError, match="is not as it was written"):
        cache.logits([99])


def test_a_copy_in_memory_is_not_reached(tmp_path: Path) -> None:
    path = build(tmp_path / "c.h5", manifest(100, num_views=1))
    cache = LogitCache.open(path, table="ram")
    expected = cache.logits(slice(None))
    whole = path.read_bytes()
    path.chmod(0o644)
    time.sleep(0.02)
    path.write_bytes(whole)
    cache.check_unchanged(checksums=True)
    assert np.array_equal(cache.logits(slice(None)), expected)
