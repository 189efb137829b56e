"""`decant cache-logits --part`: jobs of an array, which share nothing but the store."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest

from decant.cache import LogitCache
from tests.helpers.commands import decant, start
from tests.helpers.processes import wait_until

FEW = ("--recipe", "digits", "--set", "teacher.epochs=1", "--set", "cache.batch_size=100")
VIEWS = ("--set", "views.count=2", "--set", 'views.augment=[{op="pad-crop", padding=1}]')


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a teacher, and with the cache of one pass in `whole`."""
    folder = tmp_path_factory.mktemp("parts")
    assert decant("teacher", *FEW, *VIEWS, cwd=folder).returncode == 0
    assert decant("cache-logits", *FEW, *VIEWS, "--store", "whole", cwd=folder).returncode == 0
    return folder


def whole(folder: Path) -> Path:
    (path,) = (folder / "whole").glob("*.h5")
    return path


def test_parts_in_any_order_make_the_very_file_of_one_pass(taught: Path) -> None:
    for part in ("3/3", "1/3"):
        done = decant("cache-logits", *FEW, *VIEWS, "--store", "parts", "--part", part, cwd=taught)
        assert done.returncode == 0, done.stderr
        assert f"wrote part {part[0]} of 3 of parts/" in done.stdout
        assert "blocks are not written" in done.stdout
        assert list((taught / "parts").glob("*.h5")) == []
        assert "next: decant cache-logits" in done.stdout
    done = decant("cache-logits", *FEW, *VIEWS, "--store", "parts", "--part", "2/3", "--json", cwd=taught)
    (made,) = json.loads(done.stdout[done.stdout.index("[\n") :])
    assert made["rows"] == 437 + 500, "of 15 batches of each of 2 views the second ten"
    (path,) = (taught / "parts").glob("*.h5")
    assert path.read_bytes() == whole(taught).read_bytes()
    assert [entry.name for entry in (taught / "parts").iterdir() if entry.suffix != ".h5"] == []
    again = decant("cache-logits", *FEW, *VIEWS, "--store", "parts", "--part", "1/3", cwd=taught)
    assert f"found {path.relative_to(taught)}: nothing to do" in again.stdout


def test_parts_at_once_and_one_that_is_killed(taught: Path) -> None:
    store = taught / "at-once"
    command = ("cache-logits", *FEW, *VIEWS, "--store", "at-once")
    killed = start(*command, "--part", "2/4", cwd=taught)
    wait_until(lambda: any(store.glob("*.partial")) if store.exists() else False)
    time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    running = [start(*command, "--part", f"{number}/4", cwd=taught) for number in (1, 2, 3, 4)]
    for process in running:
        _, said = process.communicate()
        assert process.returncode == 0, said
    (path,) = store.glob("*.h5")
    assert path.read_bytes() == whole(taught).read_bytes()
    assert LogitCache.open(path).verify() == []


def test_a_whole_pass_goes_on_from_parts(taught: Path) -> None:
    command = ("cache-logits", *FEW, *VIEWS, "--store", "mixed")
    assert decant(*command, "--part", "1/2", cwd=taught).returncode == 0
    done = decant(*command, "--json", cwd=taught)
    (made,) = json.loads(done.stdout[done.stdout.index("[\n") :])
    assert made["rows"] < 2 * 1437
    assert Path(taught, made["path"]).read_bytes() == whole(taught).read_bytes()


@pytest.mark.parametrize("part", ["17/16", "0/3", "3", "1/0", "a/b", "-1/2", "1.5/2", ""])
def test_parts_that_cannot_be_are_refused(tmp_path: Path, part: str) -> None:
    refused = decant("cache-logits", "--recipe", "digits", "--part", part, cwd=tmp_path)
    assert refused.returncode == 2
    assert "expected I/N with 1 ≤ I ≤ N, as 3/16" in refused.stderr


def test_a_dry_run_has_no_parts(tmp_path: Path) -> None:
    refused = decant("cache-logits", "--recipe", "digits", "--part", "1/2", "--dry-run", cwd=tmp_path)
    assert refused.returncode == 2
    assert "a dry run is of the whole cache" in refused.stderr
