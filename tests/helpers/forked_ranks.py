"""Ranks of `decant` without a launcher: forked processes with the environment that torchrun gives, and a store that the
test runs as torchrun does. A rank costs no import of torch; what torchrun itself does is tested with torchrun.
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

from torch.distributed import TCPStore

from tests.helpers.commands import decant_at_once


@contextmanager
def launching(ranks: int) -> Iterator[Callable[[int], dict[str, str]]]:
    """Runs a store; yields the environment of each rank."""
    store = TCPStore("127.0.0.1", 0, None, True, timeout=timedelta(seconds=60), wait_for_workers=False)
    yield partial(environment, ranks, store.port)


@contextmanager
def launching_apart(ranks: int) -> Iterator[Callable[[int], dict[str, str]]]:
    """The same with the store in a process of its own, for who forks ranks: what is forked while threads of the store
    run may wait for a lock for ever.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        store = TCPStore("127.0.0.1", 0, None, True, timeout=timedelta(seconds=60), wait_for_workers=False)
        os.write(writing, str(store.port).encode().ljust(8))
        signal.pause()
    try:
        yield partial(environment, ranks, int(os.read(reading, 8)))
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
        os.close(writing)


def environment(ranks: int, port: int, rank: int) -> dict[str, str]:
    """What torchrun tells a rank."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_RUN_ID": "test",
    }


def run_forked(
    ranks: int,
    words: Callable[[int], Sequence[str | Path]],
    cwd: Path,
    meanwhile: Callable[[list[int]], object] = lambda children: None,
    **env: str,
) -> list[subprocess.CompletedProcess[str]]:
    """`decant WORDS`, or a script, in so many ranks at once, each with words of its own; what each has said, by rank.
    Takes `meanwhile` as `decant_at_once` does.
    """
    with launching(ranks) as given:
        return decant_at_once(
            [(words(rank), {**given(rank), **env}) for rank in range(ranks)], cwd, meanwhile
        )


def one_that_speaks(done: Sequence[subprocess.CompletedProcess[str]]) -> str:
    """What one rank says on stderr, where all have failed and the others say nothing."""
    assert all(rank.returncode == 1 for rank in done), done
    spoken = [rank.stderr.strip() for rank in done if rank.stderr.strip()]  # click ends a line on Ctrl-C
    assert len(spoken) == 1, spoken
    assert len(spoken[0].splitlines()) == 1, spoken
    assert all(not rank.stdout for rank in done if rank.stderr.strip() != spoken[0]), done
    return spoken[0]
