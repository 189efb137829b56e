"""Disks that take no more: each write is once the one that fails. The file is named, and what to do, and the same
command goes on from there.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from decant.cache.io.files import remedy
from tests.field.test_disks import needs_mounts
from tests.helpers.commands import fork_python
from tests.helpers.processes import PATIENCE, ROOT, finished

WRITTEN = {
    "recipe.toml",
    "metrics.jsonl",
    "checkpoint.pt",
    "weights.safetensors",
    "result.json",
    "caches.json",
    ".lock",
}


def swept(disk: Path, *words: str) -> list[str]:
    """What all phases say on a disk that grows each time that they fail."""
    disk.mkdir()
    done = subprocess.run(
        ["unshare", "-m", sys.executable, "-m", "tests.helpers.small_disks", str(disk), *words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    messages: list[str] = json.loads(done.stdout.splitlines()[-1])
    return messages


@needs_mounts
@pytest.mark.parametrize(
    "words",
    [
        ["inodes"],
        pytest.param(["inodes", "report"], marks=pytest.mark.slow),
        pytest.param(["bytes"], marks=pytest.mark.slow),
    ],
    ids=" and a ".join,
)
def test_every_write_is_once_the_one_that_the_disk_does_not_take(words: list[str], tmp_path: Path) -> None:
    messages = swept(tmp_path / "disk", *words)
    for message in messages:
        assert f"{tmp_path}/disk/" in message, message
        assert message.endswith("and run the same command again, it goes on from here"), message
        assert ".draft" not in message
        assert "\n" not in message
    if "inodes" in words:
        assert all("the disk has room for no more files: remove some" in message for message in messages)
        expected = WRITTEN | {".h5", "passes"}
        expected |= {"report.html", "report.md", "curves.png"} if "report" in words else set()
    else:
        expected = (WRITTEN - {".lock", "caches.json"}) | {"logits.npy", ".h5"}
    assert [name for name in sorted(expected) if not any(name in message for message in messages)] == []


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EDQUOT, "quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "--runs or --store"),
        (errno.ENOTDIR, "a file has the name of a folder that is needed"),
        (errno.EEXIST, "a file has the name of a folder that is needed"),
        (errno.EIO, "system's log"),
        (errno.ESTALE, "another machine has removed or replaced it"),
    ],
)
def test_each_refusal_of_a_disk_has_its_remedy(number: int, expected: str) -> None:
    assert expected in str(remedy(OSError(number, os.strerror(number))))
    assert remedy(OSError(errno.EINVAL, "Invalid argument")) is None


def test_a_limit_on_files_is_named_with_the_file(tmp_path: Path) -> None:
    """The system cuts a write short, and refuses the rest: of a table, of a file that is replaced, of a log."""
    script = """
import resource, sys
from pathlib import Path
from decant.cache import LogitCache, export_logits
from decant.cache.io.files import write_atomically
from decant.pipeline.cli.error_words import of_error
from decant.pipeline.training.epoch_log import append_epoch
from tests.helpers.caches import build, manifest
folder = Path(sys.argv[1])
cache = LogitCache.open(build(folder / "a.h5"))
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
for work in (
    lambda: export_logits(cache, folder / "logits.npy"),
    lambda: write_atomically(folder / "result.json", bytes(3000)),
    lambda: append_epoch(folder, {"epoch": 1, "loss": "x" * 3000}),
    lambda: build(folder / "b.h5", manifest(3, 5, 1)),
):
    try:
        work()
    except Exception as error:
        print(of_error(error))
"""
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    said = finished(fork_python(script, tmp_path)).splitlines()
    assert [
        name
        for name, line in zip(("logits.npy", "result.json", "metrics.jsonl", "b.h5"), said, strict=True)
        if name not in line or "ulimit -f" not in line
    ] == [], said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.h5", "metrics.jsonl"]
