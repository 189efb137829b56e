"""A disk that is full or may only be read: the true error, the path, and what is kept."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from decant.cache.errors import StorageError
from decant.cache.io.locks import exclusive
from decant.pipeline.runs.json_files import write_json
from tests.helpers.commands import TINY, refused
from tests.helpers.processes import PATIENCE, ROOT

MOUNTS = not subprocess.run(["unshare", "-m", "true"], capture_output=True, check=False).returncode
needs_mounts = pytest.mark.skipif(not MOUNTS, reason="needs the right to mount file systems")


def mounted(mount: str, cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command where `mount` has been called, in a mount namespace of its own."""
    command = shlex.join([sys.executable, "-m", "decant", *words])
    return subprocess.run(
        ["unshare", "-m", "bash", "-c", f"{mount} && exec {command}"],
        cwd=cwd,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


@needs_mounts
def test_a_full_disk_is_named_with_the_file_that_it_did_not_take(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    said = refused(mounted("mount -t tmpfs -o size=12k tmpfs runs", tmp_path, "teacher", *TINY))
    assert said.startswith("decant: runs/digits/teacher-conv-")
    assert ": No space left on device; free some space" in said
    assert said.endswith("free some space and run the same command again, it goes on from here")
    assert ".draft" not in said


@needs_mounts
def test_a_folder_that_may_only_be_read_is_named_for_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    said = refused(mounted("mount -t tmpfs -o ro tmpfs runs", tmp_path, "teacher", *TINY))
    assert "Read-only file system" in said
    assert "runs/digits" in said


@needs_mounts
def test_a_lock_that_cannot_be_made_is_told_with_the_true_reason(tmp_path: Path) -> None:
    script = (
        "from pathlib import Path\nfrom decant.cache.io.locks import exclusive\n"
        "with exclusive(Path('store/a.h5.lock'), print): pass\n"
    )
    (tmp_path / "store").mkdir()
    command = shlex.join([sys.executable, "-c", script])
    done = subprocess.run(
        ["unshare", "-m", "bash", "-c", f"mount -t tmpfs -o ro tmpfs store && exec {command}"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "StorageError: store/a.h5.lock: opening the lock: Read-only file system" in done.stderr


def test_a_folder_in_the_place_of_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(OSError, match=r"result\.json") as caught:
        write_json(tmp_path / "result.json", {})
    assert ".draft" not in str(caught.value).partition(" -> ")[0]
    (tmp_path / "a.lock").mkdir()
    with (
        pytest.raises(StorageError, match=r"a\.lock: opening the lock: Is a directory"),
        exclusive(tmp_path / "a.lock", print),
    ):
        pass
