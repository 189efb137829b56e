"""The store: the same question finds the same file, and of two that would build it one waits for the other."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from pathlib import Path

import pytest

from decant.cache import LogitCache, LogitCacheWriter, StorageError, Store
from decant.cache.io import partial
from tests.helpers.caches import build, holds_the_answers, leftovers, manifest, write_missing
from tests.helpers.commands import fork_python
from tests.helpers.processes import PATIENCE, finished, line

BUILDER = """
import sys, time
from decant.cache import LogitCache, LogitCacheWriter, Store
from tests.helpers.caches import holds_the_answers, manifest, write_missing
store = Store(sys.argv[1])
with store.building(manifest(), lambda holder: print("waits for", holder, flush=True)) as path:
    found = store.find(manifest())
    if found is None:
        print("builds", flush=True)
        sys.stdin.readline()
        with LogitCacheWriter(path, manifest()) as writer:
            write_missing(writer)
            found = writer.publish()
print("ends", holds_the_answers(LogitCache.open(found)))
"""


def test_a_file_is_named_so_that_a_person_recognises_it(tmp_path: Path) -> None:
    of = manifest(
        data={"name": "Имя of/the: data", "split": "train"}, teacher={"network": {"name": "resnet-56"}}
    )
    assert Store(tmp_path).path(of) == tmp_path / f"of-the-data-train-resnet-56-{of.key[:16]}.h5"
    bare = manifest(data={"name": None, "split": ""}, teacher={"network": None})
    assert Store(tmp_path).path(bare).name == f"cache-{bare.key[:16]}.h5"


def test_the_folder_is_asked_for_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DECANT_STORE", raising=False)
    assert Store().root == Path("caches")
    monkeypatch.setenv("DECANT_STORE", str(tmp_path / "shared"))
    assert Store().root == tmp_path / "shared"
    assert Store("here").root == Path("here")


def test_a_published_file_is_found_by_its_key_under_any_name(tmp_path: Path) -> None:
    store = Store(tmp_path / "[store] é")
    assert store.find(manifest()) is None
    path = build(store.path(manifest()))
    assert store.find(manifest(info={"device": "cuda"})) == path
    assert store.find(manifest(num_views=3)) is None
    renamed = path.rename(path.with_name(f"my-teacher-{manifest().key[:16]}.h5"))
    assert store.find(manifest()) == renamed


def test_nothing_unfinished_is_found(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.building(manifest()) as path, LogitCacheWriter(path, manifest()):
        assert store.find(manifest()) is None


def test_finding_finishes_what_a_kill_left_of_publishing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    path = build(store.path(manifest()))
    build(tmp_path / "else.h5").rename(partial.new_name(path))
    assert store.find(manifest()) == path
    assert len(leftovers(tmp_path)) == 1, "nothing shows that the published file made it superfluous"
    os.link(path, partial.new_name(path))
    assert store.find(manifest()) == path
    assert leftovers(tmp_path) == []


def test_a_second_builder_waits_says_for_whom_and_uses_what_is_built(tmp_path: Path) -> None:
    first = fork_python(BUILDER, tmp_path)
    assert line(first) == "builds\n"
    second = fork_python(BUILDER, tmp_path)
    assert line(second).startswith(f"waits for process {first.pid} on ")
    time.sleep(0.3)
    assert second.poll() is None
    said, _ = first.communicate("\n", timeout=PATIENCE)
    assert said == "ends True\n"
    assert finished(second) == "ends True\n", "it builds nothing itself"
    assert leftovers(tmp_path) == [f"{Store(tmp_path).path(manifest()).name}.lock"]


def test_a_dead_builders_lock_is_not_in_the_way(tmp_path: Path) -> None:
    first = fork_python(BUILDER, tmp_path)
    assert line(first) == "builds\n"
    second = fork_python(BUILDER, tmp_path)
    assert line(second).startswith("waits for")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    said, _ = second.communicate("\n", timeout=PATIENCE)
    assert said == "builds\nends True\n"


def test_workers_that_outlive_the_build_do_not_keep_the_lock(tmp_path: Path) -> None:
    script = """
import os, sys, time
from decant.cache import Store
from tests.helpers.caches import manifest
store = Store(sys.argv[1])
with store.building(manifest()):
    if os.fork() == 0:
        time.sleep(600)
        os._exit(0)
with store.building(manifest(), lambda holder: print("waits")):
    print("has it", flush=True)
os.killpg(0, 9)
"""
    process = fork_python(script, tmp_path)
    out, _ = process.communicate(timeout=PATIENCE)
    assert out == "has it\n"


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_built_on_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    store = Store(tmp_path)
    with store.building(manifest()) as path, store.building(manifest()) as again:
        assert path == again
        with LogitCacheWriter(path, manifest()) as first, LogitCacheWriter(again, manifest()) as second:
            write_missing(first)
            write_missing(second)
            assert first.publish() == second.publish()
    assert holds_the_answers(LogitCache.open(path, verify="open"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="file"), Store(tmp_path / "file" / "store").building(manifest()):
        pass


def test_a_folder_in_place_of_a_cache_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match="is a folder; name a cache in it, or give the folder as --store"
    ):
        Store(tmp_path / "store").resolve(str(tmp_path))


def test_a_holder_that_would_upset_a_terminal_is_printed_plainly(tmp_path: Path) -> None:
    store = Store(tmp_path)
    lock = Path(f"{store.path(manifest())}.lock")
    lock.write_bytes(b"\x1b[2Jme\n")
    script = """
import fcntl, sys
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print("locked", flush=True)
sys.stdin.readline()
"""
    holder = fork_python(script, lock)
    assert line(holder) == "locked\n"
    said: list[str] = []

    def waiting(text: str) -> None:
        said.append(text)
        holder.communicate("\n")

    with store.building(manifest(), waiting):
        assert said == ["[2Jme"]


@pytest.mark.skipif(os.getuid() != 0, reason="needs a second user, so root")
def test_another_persons_lock_can_be_taken(open_folder: Path) -> None:
    with Store(open_folder).building(manifest()) as path:
        pass
    lock = Path(f"{path}.lock")
    lock.chmod(0o644)
    script = """
import os, sys
from decant.cache import Store
from tests.helpers.caches import build, manifest
os.setuid(65534)
with Store(sys.argv[1]).building(manifest()) as path:
    print(build(path).exists())
"""
    assert finished(fork_python(script, open_folder)) == "True\n"
