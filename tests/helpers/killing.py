"""Builders that are killed, for real: forked from one small process, by SIGKILL, at a chosen call or moment.

Run in a process of its own (`tests/test_kills.py` does), since it forks.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from decant.cache import LogitCache, LogitCacheWriter, Manifest, Store
from decant.cache.format import hdf5
from decant.cache.io import partial
from tests.helpers.caches import build, holds_the_answers, leftovers, manifest, write

STEPS = ("posix_fallocate", "pwrite", "fsync", "rename", "replace", "fchmod", "link", "unlink")


def build_in_store(root: Path, of: Manifest, progress: int = -1) -> Path:
    """What a capture does: looks, locks, looks again, goes on, publishes; says on a pipe which blocks are whole."""
    store = Store(root)
    if found := store.find(of):
        return found
    with store.building(of) as path:
        if found := store.find(of):
            return found
        with LogitCacheWriter(path, of) as writer:
            for view in range(of.num_views):
                missing = np.flatnonzero(~writer.is_written(view))
                for start in range(0, len(missing), 20):
                    write(writer, view, missing[start : start + 20])
                    if progress >= 0:
                        os.write(progress, bytes([int(np.count_nonzero(writer._entries))]))
            return writer.publish()


def die_at(call: int, halfway: bool) -> None:
    """The process will kill itself at the call-th of the STEPS: before it, or after it (half of it, of a write)."""
    made = 0

    def watched(real: Callable[..., object], name: str) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            nonlocal made
            made += 1
            if made == call:
                try:
                    if name == "pwrite" and halfway:
                        fd, data, offset = arguments
                        real(fd, memoryview(data)[: len(data) // 2], offset)  # type: ignore[arg-type]
                    elif halfway:
                        real(*arguments, **options)
                finally:
                    os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        return step

    for name in STEPS:
        setattr(os, name, watched(getattr(os, name), name))
    create = hdf5.create
    hdf5.create = watched(create, "create")  # type: ignore[assignment]


def run(work: Callable[[int], None], kill_after: float | None = None) -> tuple[bool, int]:
    """Forks, works, perhaps kills; whether it was killed, and how many blocks it had said to be whole."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            work(writing)
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(child, signal.SIGKILL)
    said = b""
    while part := os.read(reading, 4096):
        said += part
    os.close(reading)
    _, status = os.waitpid(child, 0)
    killed = os.WIFSIGNALED(status)
    assert killed or os.WEXITSTATUS(status) == 0, "the builder failed by itself"
    return killed, said[-1] if said else 0


def check_after_a_kill(root: Path, of: Manifest, whole_blocks: int) -> None:
    """The published path is absent or whole; no more than the unfinished blocks is lost."""
    path = Store(root).path(of)
    if path.exists():
        assert holds_the_answers(LogitCache.open(path, verify="open")), "a published file is not whole"
    else:
        kept = sum(int(np.count_nonzero(entries_of(found))) for found in partial.begun(path))
        assert kept >= whole_blocks, f"{whole_blocks} blocks were whole, {kept} are left"


def entries_of(path: Path) -> np.ndarray:
    with open(path, "rb") as file:
        table = hdf5.check(file, str(path)).tables["blocks"]
        return np.frombuffer(os.pread(file.fileno(), table.nbytes, table.offset), table.dtype)


def at_every_step(root: Path) -> None:
    """Kills a builder before, and in or after, each of its calls; goes on; compares. Prints how many kills."""
    of, kills = manifest(), 0
    expected = build(root / "expected.h5", of).read_bytes()
    for halfway in (False, True):
        call = 0
        while True:
            call += 1
            store = root / f"{halfway}{call}"
            store.mkdir()

            def work(progress: int, call: int = call, halfway: bool = halfway, store: Path = store) -> None:
                die_at(call, halfway)
                build_in_store(store, of, progress)

            killed, whole = run(work)
            if not killed:
                break
            kills += 1
            check_after_a_kill(store, of, whole)
            killed, _ = run(lambda progress, store=store: build_in_store(store, of, progress) and None)
            assert not killed
            compare(store, of, expected)
            shutil.rmtree(store)
    print(kills)


def at_random_moments(root: Path, kills: int, seed: int) -> None:
    """Kills builders at random moments, each going on where the last one died, until `kills` are reached."""
    of, done, chance = manifest(1200), 0, random.Random(seed)
    expected = build(root / "expected.h5", of).read_bytes()
    started = time.perf_counter()
    run(lambda progress: build_in_store(root / "timed", of, progress) and None)
    usual = time.perf_counter() - started
    while done < kills:
        store = root / f"store{done}"
        store.mkdir()
        killed = True
        while killed:
            killed, whole = run(
                lambda progress, store=store: build_in_store(store, of, progress) and None,
                chance.uniform(0, usual / 2),
            )
            done += killed
            check_after_a_kill(store, of, whole)
        compare(store, of, expected)
        shutil.rmtree(store)
    print(done)


def compare(store: Path, of: Manifest, expected: bytes) -> None:
    path = Store(store).find(of)
    assert path is not None
    assert path.read_bytes() == expected, "not the bytes of a builder that was never killed"
    assert leftovers(store) == [f"{path.name}.lock"], leftovers(store)


if __name__ == "__main__":
    if sys.argv[1] == "steps":
        at_every_step(Path(sys.argv[2]))
    else:
        at_random_moments(Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
