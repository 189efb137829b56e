"""Kills random ranks of a real `decant cache-logits` at random moments, by SIGKILL: `python -m
tests.helpers.killing_ranks FOLDER KILLS SEED`.

Each start has two to four ranks, forked so that a kill costs no import of torch, with the environment and the store
that torchrun gives; where one is killed, the others are ended by SIGTERM as torchrun does. The published path must be
absent or whole at any time; a file that is finished, after whatever kills and numbers of ranks, must have the very
bytes of one process's, and nothing beside it. Every third pass ends in a process alone, or a part, that finds what is
left.
"""

from __future__ import annotations

import faulthandler
import os
import random
import signal
import sys
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot use its parent's threads

from decant.pipeline.cli import main as command_line
from decant.pipeline.cli.main import decant
from decant.pipeline.phases import cache_ranks  # noqa: F401  imported here once, for every fork
from decant.pipeline.ranks import ending, facts
from decant.pipeline.runs import notes  # noqa: F401
from tests.helpers.forked_ranks import launching_apart
from tests.helpers.killing_phase import published

SETTINGS = ["teacher.network.width=4", "teacher.epochs=1", "views.count=40", 'views.augment=[{op="flip"}]']
LONGEST = 2.5  # seconds until a kill, or as long as a job takes
PATIENCE = 60.0


def words(phase: str, folder: Path, store: Path, *more: str) -> list[str]:
    """The command line of a phase, whose batches do not end where blocks do."""
    overrides = [word for value in [*SETTINGS, "cache.batch_size=100"] for word in ("--set", value)]
    return [phase, *overrides, "--runs", str(folder / "runs"), "--store", str(store), *more]


def start(given: list[str], environment: dict[str, str], out: Path) -> int:
    """`decant` in a process of its own; its id."""
    child = os.fork()
    if child:
        return child
    try:
        faulthandler.register(signal.SIGUSR1)
        os.environ.update(environment)
        fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(fd, 1)
        os.dup2(fd, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
        sys.argv = ["decant", *given]
        command_line.main()
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)
    finally:
        os._exit(1)


def ended(children: set[int], seconds: float) -> dict[int, int]:
    """The exit codes of those that end within the time; waits until all have, or one has failed."""
    found: dict[int, int] = {}
    until = time.monotonic() + seconds
    while children - found.keys() and time.monotonic() < until and not any(found.values()):
        for child in children - found.keys():
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                found[child] = os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    return found


def one_start(
    given: list[str], ranks: int, kill_after: float | None, chance: random.Random, out: Path
) -> bool | None:
    """A job of so many ranks: whether it has finished, and no rank was killed before."""
    with launching_apart(ranks) as environment:
        children = [start(given, environment(rank), out) for rank in range(ranks)]
        codes = ended(set(children), PATIENCE if kill_after is None else kill_after)
        left = set(children) - codes.keys()
        if left and not any(codes.values()):
            assert kill_after is not None, f"stuck: {out.read_text()[-2000:]}"
            os.kill(chance.choice(sorted(left)), signal.SIGKILL)
            codes |= ended(left, PATIENCE)  # until one has failed
            left = set(children) - codes.keys()
        if not any(codes.values()):
            return True  # whoever was chosen had ended
        for child in left:
            os.kill(child, signal.SIGTERM)
        for child in left:
            if not ended({child}, PATIENCE):
                os.kill(child, signal.SIGUSR1)
                time.sleep(1)
                raise AssertionError(f"a rank does not end on SIGTERM: {out.read_text()[-3000:]}")
        assert -signal.SIGKILL in codes.values(), (codes, out.read_text()[-2000:])
        return False


def main(folder: Path, kills: int, seed: int) -> None:
    """Kills until there were `kills`; prints how many, and how many files were finished all the same."""
    facts.program_facts()  # once, for every fork
    decant.main(words("teacher", folder, folder / "expected"), standalone_mode=False)
    decant.main(words("cache-logits", folder, folder / "expected"), standalone_mode=False)
    expected = published(folder / "expected")
    assert expected is not None
    chance, met, finished, out = random.Random(seed), 0, 0, folder / "said"
    started = time.monotonic()
    assert one_start(words("cache-logits", folder, folder / "timed"), 3, None, chance, out)
    longest = min(LONGEST, time.monotonic() - started)  # later kills would meet nobody
    while True:
        store = folder / f"store-{finished}"
        given, done = words("cache-logits", folder, store), False
        if met < kills:
            done = bool(one_start(given, chance.randint(2, 4), chance.uniform(0.0, longest), chance, out))
            met += not done
        elif finished % 3 == 2:
            done = ended({start(given, {}, out)}, PATIENCE) != {}
        else:
            done = bool(one_start(given, chance.randint(2, 4), None, chance, out))
            assert done, out.read_text()[-2000:]
        found = published(store)
        assert found == expected or (found is None and not done), f"{store}: other bytes after a kill"
        if done:
            names = [entry.name for entry in store.iterdir() if entry.suffix not in (".h5", ".lock")]
            assert not names, names
        if found is not None:
            finished += 1
            print(f"{met} kills, {finished} files finished", file=sys.stderr, flush=True)
            if met >= kills:
                break
    print(f"{met} kills, {finished} files finished, all byte-identical")


if __name__ == "__main__":
    ending._LINGERING_SECONDS = 0.5  # nobody but this script ends the others
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
