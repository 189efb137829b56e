"""Builders that are killed, for real: forked from one small process, by SIGKILL, at a chosen call or moment.

Run in a process of its own (`tests/cache/test_kills.py` does), since it forks. By hand, for builders of cache files:
`python -m tests.helpers.killing random DIR KILLS SEED`.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from decant.cache.format import hdf5
from decant.cache.io.blockfile import BlockFile
from tests.helpers.block_files import KINDS, Kind, entries

STEPS = (
    "posix_fallocate",
    "ftruncate",
    "pwrite",
    "fsync",
    "rename",
    "replace",
    "fchmod",
    "chmod",
    "link",
    "unlink",
)


def die_at(call: int, halfway: bool) -> None:
    """The process will kill itself at the call-th of the STEPS: before it, or after it (half of it, of a write)."""
    calls = itertools.count(1)  # what several threads may ask

    def watched(real: Callable[..., object], name: str) -> Callable[..., object]:
        def step(*arguments: object, **options: object) -> object:
            if next(calls) == call:
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
    hdf5.create = watched(hdf5.create, "create")  # type: ignore[assignment]


def say_blocks(pipe: int) -> None:
    """After each entry that this process writes, a byte on the pipe: how many blocks of the file are whole."""
    write_entry = BlockFile.write_entry

    def watched(self: BlockFile, block: int, entry: int) -> None:
        write_entry(self, block, entry)
        os.write(pipe, bytes([int(np.count_nonzero(self.read_entries()))]))

    BlockFile.write_entry = watched  # type: ignore[method-assign]


def run(work: Callable[[], object], kill_after: float | None = None) -> tuple[bool, int]:
    """Runs `work` in a forked process, and kills it after so many seconds. Returns whether it was killed, and how many
    blocks it had reported as whole.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        code = 1
        try:
            say_blocks(writing)
            work()
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


def check_after_a_kill(kind: Kind, root: Path, whole_blocks: int) -> None:
    """The published path is absent or whole; no more than the unfinished blocks is lost."""
    path = kind.path(root)
    if path.exists():
        assert kind.is_sound(path), "a published file is not whole"
    else:
        kept = sum(int(np.count_nonzero(entries(kind, found))) for found in kind.unfinished(root))
        assert kept >= whole_blocks, f"{whole_blocks} blocks were whole, {kept} are left"


def at_every_step(kind: Kind, root: Path) -> None:
    """Kills a builder before, and in or after, each of its calls; goes on; compares. Prints how many kills."""
    (root / "never").mkdir()
    kills, expected = 0, kind.build(root / "never").read_bytes()
    for halfway in (False, True):
        for call in itertools.count(1):
            folder = root / f"{halfway}{call}"
            folder.mkdir()

            def work(call: int = call, halfway: bool = halfway, folder: Path = folder) -> None:
                die_at(call, halfway)
                kind.build(folder)

            killed, whole = run(work)
            if not killed:
                break
            kills += 1
            check_after_a_kill(kind, folder, whole)
            killed, _ = run(lambda folder=folder: kind.build(folder))
            assert not killed
            compare(kind, folder, expected)
            shutil.rmtree(folder)
    print(kills)


KILLS_OF_A_FILE = 20
"""Then its builder may finish: where the machine has become slow, the next kill would always come before the end."""


def at_random_moments(kind: Kind, root: Path, kills: int, seed: int) -> None:
    """Kills builders at random moments, each going on where the last one died, until `kills` are reached."""
    done, chance = 0, random.Random(seed)
    for name in ("never", "timed"):
        (root / name).mkdir()
    expected = kind.build(root / "never").read_bytes()
    started = time.perf_counter()
    run(lambda: kind.build(root / "timed"))
    usual = time.perf_counter() - started
    while done < kills:
        folder = root / f"folder{done}"
        folder.mkdir()
        killed, here = True, 0
        while killed:
            moment = chance.uniform(0, usual / 2) if here < KILLS_OF_A_FILE else None
            killed, whole = run(lambda folder=folder: kind.build(folder), moment)
            done, here = done + killed, here + killed
            check_after_a_kill(kind, folder, whole)
        compare(kind, folder, expected)
        shutil.rmtree(folder)
    print(done)


def compare(kind: Kind, folder: Path, expected: bytes) -> None:
    """The file is there, as one that was never killed, and beside it nothing but its lock."""
    path = kind.path(folder)
    assert path.read_bytes() == expected, "not the bytes of a builder that was never killed"
    assert sorted(found.name for found in folder.iterdir()) == [path.name, f"{path.name}.lock"]


if __name__ == "__main__":
    assert sys.argv[1] == "random", "random DIR KILLS SEED [KIND]"
    root = Path(sys.argv[2])
    root.mkdir(parents=True, exist_ok=True)
    kind, size = ("cache", 1200) if len(sys.argv) < 6 else (sys.argv[5], 150)
    at_random_moments(KINDS[kind](size), root, int(sys.argv[3]), int(sys.argv[4]))
