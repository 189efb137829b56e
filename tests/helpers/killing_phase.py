"""Kills the real `decant cache-logits` at random moments: `python -m tests.helpers.killing_phase FOLDER KILLS SEED`.

The command line runs in a forked process, so that a kill costs no import of torch. After every kill the published path
must be absent or whole; every file that is finished, after whatever number of kills, must have the very bytes of one
that was never killed.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot use its parent's threads

from decant.cache import LogitCache
from decant.pipeline.cli.main import decant
from decant.pipeline.phases import cache_logits  # noqa: F401  imported here once, for every fork
from decant.pipeline.runs import notes  # noqa: F401

SETTINGS = ["teacher.network.width=4", "teacher.epochs=1", "views.count=40", 'views.augment=[{op="flip"}]']
LONGEST = 0.6  # seconds until a kill


def words(phase: str, folder: Path, store: Path) -> list[str]:
    """The command line of a phase, whose batches do not end where blocks do."""
    overrides = [word for value in [*SETTINGS, "cache.batch_size=100"] for word in ("--set", value)]
    return [phase, *overrides, "--runs", str(folder / "runs"), "--store", str(store)]


def start(folder: Path, store: Path) -> int:
    """`decant cache-logits` in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    decant.main(words("cache-logits", folder, store), standalone_mode=False)
    os._exit(0)


def kill_after(child: int, seconds: float) -> bool:
    """Sends SIGKILL unless the process ends before; whether it met the process alive."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return False
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def published(store: Path) -> bytes | None:
    """The content of the one published file, which must be whole; None where there is none."""
    for path in store.glob("*.h5"):
        LogitCache.open(path, verify="open")
        return path.read_bytes()
    return None


def main(folder: Path, kills: int, seed: int) -> None:
    """Kills until there were `kills`; prints how many, and how many files were finished all the same."""
    decant.main(words("teacher", folder, folder / "expected"), standalone_mode=False)
    os.waitpid(start(folder, folder / "expected"), 0)
    expected = published(folder / "expected")
    assert expected is not None
    moments, met, finished = random.Random(seed), 0, 0
    while met < kills:
        store = folder / f"store-{finished}"
        met += kill_after(start(folder, store), moments.uniform(0.0, LONGEST))
        found = published(store)
        if found is not None:
            assert found == expected, f"{store}: other bytes after a kill"
            finished += 1
    store = folder / f"store-{finished}"
    os.waitpid(start(folder, store), 0)
    assert published(store) == expected
    print(f"{met} kills, {finished + 1} files finished, all byte-identical")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
