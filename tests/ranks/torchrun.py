"""Real jobs of torchrun: `decant` or a script of Python in several ranks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.processes import PATIENCE, ROOT


def torchrun(ranks: int, *options: str) -> tuple[str, ...]:
    """The words that start a command in so many ranks on this machine."""
    return (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nnodes=1",
        f"--nproc-per-node={ranks}",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=localhost:0",
        *options,
    )


def environment(**more: str) -> dict[str, str]:
    """Of a job, which finds this checkout and no GPU."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **more}


def start_ranks(ranks: int, *words: object, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """A job in the background, in a session of its own."""
    return subprocess.Popen(
        [*torchrun(ranks), *map(str, words)],
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run_ranks(ranks: int, *words: object, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """A job, when it has ended."""
    job = start_ranks(ranks, *words, cwd=cwd, **env)
    try:
        out, err = job.communicate(timeout=PATIENCE)
    finally:
        if job.poll() is None:
            job.kill()
    return subprocess.CompletedProcess(list(map(str, words)), job.returncode, out, err)


def said(err: str) -> list[str]:
    """The lines of decant's own on stderr: what is left of the launcher's page and its logs."""
    return [
        line for line in err.splitlines() if line.startswith(("decant: ", "warning: ", "Usage: ", "Error: "))
    ]
