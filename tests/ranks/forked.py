"""Ranks of a job that no launcher starts: forked from a process that has imported torch already."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from tests.helpers import commands
from tests.helpers.processes import PATIENCE


def run_forked(ranks: int, function: Callable[..., object], *arguments: object, folder: Path) -> str:
    """Calls a function in so many ranks of one job; what all of them said on stderr. Each must end well."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    files = [folder / f"stderr-{ranks}-{rank}" for rank in range(ranks)]
    jobs = [
        commands.FORKS.Process(target=_be_rank, args=(rank, ranks, port, files[rank], function, arguments))
        for rank in range(ranks)
    ]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join(PATIENCE)
        if job.exitcode is None:
            job.kill()
    said = "".join(file.read_text() for file in files)
    assert [job.exitcode for job in jobs] == [0] * ranks, said
    return said


def _be_rank(
    rank: int, size: int, port: int, err: Path, function: Callable[..., object], arguments: tuple[object, ...]
) -> None:
    from decant.pipeline.ranks import leaving

    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ |= {"LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    os.dup2(os.open(err, os.O_WRONLY | os.O_CREAT), 2)
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    function(*arguments)
    leaving.leave(0)
