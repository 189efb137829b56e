"""Kills at random moments of a fetch and of publishing: nothing is lost, nothing half is seen, and the same command
goes on. A few in the suite, 100 of each with `-m slow`.
"""

from __future__ import annotations

import os
import random
import shutil
import time
from pathlib import Path

import pytest

from decant.cache import LogitCache
from decant.cache.remote import mirror
from decant.cache.remote.opening import open_folder
from tests.helpers.caches import build, holds_the_answers, manifest
from tests.helpers.extras import needs
from tests.helpers.processes import finished, line, python
from tests.helpers.web import Handler, Web

pytestmark = needs("s3fs", "moto", "aiohttp")

PULL = """
import sys
from decant.cache import LogitCache
print("begins", flush=True)
LogitCache.open(sys.argv[1], lazy=len(sys.argv) > 2).verify()
print("ends", flush=True)
"""
PUSH = """
import sys
from decant.cache import push_cache
print("begins", flush=True)
push_cache(sys.argv[1], sys.argv[2])
print("ends", flush=True)
"""
LARGE = manifest(num_samples=4000, num_views=4)  # 34 MB: several groups of blocks, several parts of an upload


def kills() -> list[object]:
    return [pytest.param(3, id="few"), pytest.param(100, id="many", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("large") / "x.h5", LARGE)


def seconds_of(script: str, *words: object) -> float:
    """How long the work of a script takes once it has begun."""
    process = python(script, *words, PYTHONWARNINGS="ignore")
    assert line(process) == "begins\n"
    started = time.monotonic()
    finished(process)
    return time.monotonic() - started


def killed(script: str, *words: object, within: float) -> bool:
    """Starts a script and kills it at a random moment; whether it was killed before its end."""
    process = python(script, *words, PYTHONWARNINGS="ignore")
    line(process)
    time.sleep(random.uniform(0, within))
    process.kill()
    out, _ = process.communicate()
    return "ends" not in out


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("count", kills())
def test_a_fetch_that_is_killed_goes_on_and_shows_no_half_file(
    web: Web, cache: Path, count: int, lazy: bool
) -> None:
    shutil.copy(cache, web.folder / "x.h5")
    url, words = f"{web.url}/x.h5", ["lazy"] * lazy

    def slowly(handler: Handler) -> bool:
        time.sleep(0.02)
        return False

    web.trick = slowly
    within = seconds_of(PULL, url, *words)
    content, seen = cache.read_bytes(), 0
    for _ in range(count):
        shutil.rmtree(mirror.home())
        for _ in range(2):  # the second goes on with what the first has left
            cut = killed(PULL, url, *words, within=within)
            seen, within = seen + cut, within if cut else 0.8 * within  # the machine is quicker by now
            for path in mirror.home().glob("stores/*/x.h5"):
                assert path.read_bytes() == content
        before = web.sent
        opened = LogitCache.open(url)
        assert web.sent - before < len(content) + 200_000
        assert opened.path.read_bytes() == content
        assert sorted(path.suffix for path in opened.path.parent.iterdir() if path.suffix != ".lock") == [
            ".h5",
            ".source",
        ]
    assert holds_the_answers(opened)
    assert seen > 0 or count < 20


@pytest.mark.parametrize("count", kills())
def test_publishing_that_is_killed_shows_no_half_file_and_goes_on(
    bucket: str, cache: Path, count: int
) -> None:
    store = f"s3://{bucket}"
    within = seconds_of(PUSH, cache, f"{store}/timed")
    content, seen = cache.read_bytes(), 0
    for number in range(count):
        folder = open_folder(f"{store}/{number}")
        cut = killed(PUSH, cache, folder.shown, within=within)
        seen, within = seen + cut, within if cut else 0.8 * within
        assert folder.names() in ({}, {"x.h5": len(content)})
        finished(python(PUSH, cache, folder.shown, PYTHONWARNINGS="ignore"))
        assert folder.names() == {"x.h5": len(content)}
        if number < 3:
            assert LogitCache.open(f"{store}/{number}/x.h5").path.read_bytes() == content
        folder.remove("x.h5")
        folder.leftovers(0, delete=True)
        assert folder.leftovers(0, delete=False) == []
    assert seen > 0 or count < 20
    assert os.path.getsize(cache) == len(content)
