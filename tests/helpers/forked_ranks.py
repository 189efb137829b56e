"""Ranks of `decant` without a launcher: forked processes with the environment that torchrun gives, and a store that the
test runs as torchrun does. A rank costs no import of torch; what torchrun itself does is tested with torchrun.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore

from tests.helpers.commands import decant_at_once

_starts = iter(range(1_000_000))


@contextmanager
def launching(ranks: int, attempt: int | None = None) -> Iterator[Callable[[int], dict[str, str]]]:
    """Runs a store; yields the environment of each rank. Its address is a number: a rank that is forked while a thread
    of the store asks for a name would wait for that thread's lock for ever.
    """
    store = TCPStore("127.0.0.1", 0, None, True, timeout=timedelta(seconds=60), wait_for_workers=False)
    start = str(next(_starts) if attempt is None else attempt)
    yield lambda rank: {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",
        "TORCHELASTIC_RESTART_COUNT": start,
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
    with launching(ranks) as environment:
        return decant_at_once(
            [(words(rank), {**environment(rank), **env}) for rank in range(ranks)], cwd, meanwhile
        )


def one_that_speaks(done: Sequence[subprocess.CompletedProcess[str]]) -> str:
    """What one rank says on stderr, where all have failed and the others say nothing."""
    assert all(rank.returncode == 1 for rank in done), done
    spoken = [rank.stderr.strip() for rank in done if rank.stderr.strip()]  # click ends a line on Ctrl-C
    assert len(spoken) == 1, spoken
    assert len(spoken[0].splitlines()) == 1, spoken
    assert all(not rank.stdout for rank in done if rank.stderr.strip() != spoken[0]), done
    return spoken[0]
