"""Uses are counted, and a cache that somebody uses is known to be used, by other processes too."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from decant.cache.io import usage
from tests.helpers.caches import build
from tests.helpers.processes import ROOT


def test_each_use_is_counted(tmp_path: Path) -> None:
    path = build(tmp_path / "a.h5")
    assert usage.count(path) == 0
    for expected in (1, 2):
        with usage.using(path):
            pass
        assert usage.count(path) == expected


def test_two_can_use_it_at_once_and_it_is_free_only_after_both(tmp_path: Path) -> None:
    path = build(tmp_path / "a.h5")
    with usage.using(path):
        with usage.using(path), usage.unused(path) as free:
            assert not free
        with usage.unused(path) as free:
            assert not free
    with usage.unused(path) as free:
        assert free


def test_a_use_by_another_process_is_seen_until_it_is_killed(tmp_path: Path) -> None:
    path = build(tmp_path / "a.h5")
    script = (
        "import sys, time; from pathlib import Path; from decant.cache.io import usage\n"
        "with usage.using(Path(sys.argv[1])): print('using', flush=True); time.sleep(600)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "using\n"
        with usage.unused(path) as free:
            assert not free
        other.kill()
    with usage.unused(path) as free:
        assert free


def test_the_last_use_is_later_than_the_publishing(tmp_path: Path) -> None:
    path = build(tmp_path / "a.h5")
    published = usage.last(path)
    with usage.using(path):
        pass
    assert usage.last(path) >= published == path.stat().st_mtime
    usage.forget(path)
    assert usage.count(path) == 0


def test_a_lock_file_of_somebody_else_is_still_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a store that several people write to, another's lock file can be read and not written."""
    path = build(tmp_path / "a.h5")
    (tmp_path / "a.h5.lock").touch()
    really_open = os.open

    def open_for_reading(name: Any, flags: int, mode: int = 0o777) -> int:
        if flags & (os.O_RDWR | os.O_WRONLY):
            raise PermissionError(errno.EACCES, "Permission denied", str(name))
        return really_open(name, flags, mode)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", open_for_reading)
        patched.setattr(usage, "_log", lambda _: tmp_path / "no such folder" / "log")
        using = usage.using(path)
        using.__enter__()
    with usage.unused(path) as free:
        assert not free
    using.__exit__(None, None, None)


def test_a_use_through_a_link_is_one_of_the_file(tmp_path: Path) -> None:
    """A colleague's `decant cache gc --delete` removed a file that students were reading through links."""
    path = build(tmp_path / "shared/a.h5")
    link = tmp_path / "mine.h5"
    link.symlink_to(path)
    os.utime(path, (0, 0))
    with usage.using(link), usage.unused(path) as free:
        assert not free
    assert usage.count(path) == usage.count(link) == 1
    assert usage.last(path) == usage.last(link) > 0
    assert {each.name for each in tmp_path.iterdir()} == {"shared", "mine.h5"}
