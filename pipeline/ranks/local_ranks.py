"""Ranks that a command starts itself, beside it on its machine, without a launcher."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.cores import own_cores
from decant.pipeline.ranks.launch import launched

_BESIDE = "DECANT_RANKS_BESIDE"
_THREADS = "OMP_NUM_THREADS"
_SECONDS_TO_END = 10.0

_started: list[subprocess.Popen[bytes]] = []


def is_beside() -> bool:
    """Whether this process is one of ranks that a command started itself."""
    return _BESIDE in os.environ


@contextlib.contextmanager
def ranks_beside(count: int) -> Iterator[None]:
    """Has this command be rank 0 of `count` ranks until the end; the others run the same command. They divide the cores
    of the machine, unless OMP_NUM_THREADS says how many each has. In one of the others, and with a count of 1, does
    nothing but see that a rank ends with rank 0.

    Raises RankError where a launcher has started ranks already.
    """
    if is_beside():
        with _ended_with_rank_0():
            yield
        return
    if count > 1 and launched() is not None:
        raise RankError("--jobs: a launcher has started the ranks of this job already; leave it out")
    if count == 1:
        yield
        return
    before = dict(os.environ)
    os.environ |= _environment(count)
    command = [sys.executable, "-m", "decant", *sys.argv[1:]]
    try:
        for rank in range(1, count):
            of_rank = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            _started.append(
                subprocess.Popen(command, env=of_rank, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
            )
        yield
    finally:
        _end_others()
        os.environ.clear()
        os.environ |= before


def require_alive() -> None:
    """Raises RankError where a rank that was started here has been killed."""
    for process in _started:
        code = process.poll()
        if code is not None and code < 0:
            raise RankError(
                f"a process beside this one was killed ({signal.Signals(-code).name}), most often because memory ran "
                "out; run the same command again, with fewer --jobs: it goes on from what is saved"
            )


def _environment(count: int) -> dict[str, str]:
    """What a launcher would set, of rank 0."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "RANK": "0",
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": "0",
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        _BESIDE: str(count),
        _THREADS: os.environ.get(_THREADS) or str(max(1, own_cores() // count)),
    }


def _end_others() -> None:
    """Ends what was started, as far as it still runs."""
    for process in _started:
        if process.stdin is not None:
            process.stdin.close()  # at which it ends itself
    for process in _started:
        try:
            process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    _started.clear()


@contextlib.contextmanager
def _ended_with_rank_0() -> Iterator[None]:
    """Ends this rank, as a launcher would, where rank 0 ends first, however it does. A rank whose work is done ends by
    itself, where a signal would find nobody to tell it in words.
    """
    done = threading.Event()

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdin.buffer.read()
        if not done.is_set():
            os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        done.set()
