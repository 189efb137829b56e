"""Commands that start a training in processes of its own, as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.helpers.processes import PATIENCE, ROOT

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")


_ABORTED_AT_THE_END = "terminate called without an active exception"
"""What threads of gloo make of Python's end, now and then, when all is done."""


def launch(*words: object, cwd: Path, again: int = 5) -> str:
    """What a command printed; it must succeed, but for an abort of gloo's, after which it is run again."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*map(str, words)],
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if done.returncode and again and _ABORTED_AT_THE_END in done.stderr:
        return launch(*words, cwd=cwd, again=again - 1)
    assert done.returncode == 0, f"{words}: exit {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout + done.stderr
