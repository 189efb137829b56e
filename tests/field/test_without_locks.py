"""A system without `fcntl`, as Windows: caches are read, and one process at a time makes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.helpers.commands import TINY
from tests.helpers.processes import PATIENCE, ROOT

ELSEWHERE = """
import os, sys
import torch
sys.modules["fcntl"] = None  # has `import fcntl` raise ImportError, as it does there
for name in ("pread", "pwrite", "preadv", "posix_fallocate", "fchmod", "sched_getaffinity", "O_CLOEXEC"):
    delattr(os, name)
"""
READ_AND_WRITE = """
import numpy as np, torch
import decant
from decant.cache import import_logits
from torch.utils.data import TensorDataset

store = decant.Store("caches")
logits = 3 * np.eye(4, dtype="f4") - 1
path = import_logits(store, logits, None, teacher={"network": "toy"}, data={"name": "toy"})
cache = decant.LogitCache.open(path)
assert cache.verify() == []
data = TensorDataset(torch.zeros(4, 3), torch.arange(4))
read = decant.SoftLabelDataset(data, cache, check_inputs="off")
print(read[2][2].tolist(), store.find(cache.manifest) == path)
"""
COMMANDS = """
import subprocess, sys
from decant.pipeline.cli.main import main
for words in (["teacher"], ["cache-logits"], ["student"], ["status"], ["cache", "verify"], ["cache", "gc"]):
    print("$", *words, flush=True)
    tiny = sys.argv[1:] if words[0] in ("teacher", "cache-logits", "student", "status") else []
    from unittest import mock
    with mock.patch.object(sys, "argv", ["decant", *words, *tiny]):
        try:
            main()
        except SystemExit as end:
            print("exit", end.code, flush=True)
"""


def run(script: str, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", ELSEWHERE + script, *words],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_a_cache_is_built_read_and_learnt_from(tmp_path: Path) -> None:
    done = run(READ_AND_WRITE, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "[-1.0, -1.0, 2.0, -1.0] True\n"


def test_commands_work_or_say_why_not(tmp_path: Path) -> None:
    done = run(COMMANDS, tmp_path, *TINY, "--set", "student.seeds=1", "--set", "student.baseline=false")
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.count("exit 0") == 5, done.stdout + done.stderr
    assert done.stdout.endswith("$ cache gc\nexit 1\n")
    assert "this system has no file locks (fcntl), so nothing tells which files are in use" in done.stderr
    assert not list(tmp_path.glob("**/*.partial"))
