"""Builders of one cache in a store elsewhere: a courtesy, and what holds without it."""

from __future__ import annotations

import json
import threading
import time
import uuid
from types import SimpleNamespace
from typing import cast

import pytest

from decant.cache.remote import building as module
from decant.cache.remote.building import BUILDING, abandoned, building
from decant.cache.remote.folder import RemoteFolder
from decant.cache.remote.opening import open_folder
from tests.helpers.processes import wait_until


@pytest.fixture
def folder() -> RemoteFolder:
    return open_folder(f"memory://{uuid.uuid4().hex}")


def build(folder: RemoteFolder, waiting: list[str], published: bool = False, expires: float = 30) -> bool:
    with building(folder, "x.h5", waiting.append, lambda: published, expires, poll=0.02):
        return True


def until(folder: RemoteFolder) -> float:
    found = module._read(folder, f"x.h5{BUILDING}") or {"expires": 0.0}  # it may just be replaced
    return cast("float", found["expires"])


def test_one_waits_for_the_other_and_says_for_whom(folder: RemoteFolder) -> None:
    said: list[str] = []
    with building(folder, "x.h5", said.append, lambda: False):
        other = threading.Thread(target=build, args=(folder, said))
        other.start()
        wait_until(lambda: said)
        assert other.is_alive()
    other.join(20)
    assert not other.is_alive()
    assert len(said) == 1
    assert said[0].startswith("process ")
    assert folder.names() == {}


def test_who_waits_goes_on_when_the_cache_is_published(folder: RemoteFolder) -> None:
    said: list[str] = []
    with building(folder, "x.h5", said.append, lambda: False):
        assert build(folder, said, published=True)
        assert list(folder.names()) == [f"x.h5{BUILDING}"]


def test_a_builder_that_was_killed_is_waited_for_no_longer_than_it_says(
    folder: RemoteFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    clock = SimpleNamespace(time=lambda: now[0], monotonic=time.monotonic, sleep=time.sleep)
    monkeypatch.setattr(module, "time", clock)
    note = {"holder": "process 1 on gone", "expires": now[0] + 300, "token": "of another"}
    folder.put_small(f"x.h5{BUILDING}", json.dumps(note).encode())
    said: list[str] = []

    def wait(holder: str) -> None:
        said.append(holder)
        now[0] += 301

    now[0] += 299
    assert abandoned(folder, delete=True) == []
    with building(folder, "x.h5", wait, lambda: False, expires=1e6, poll=0.02):
        pass
    assert said == ["process 1 on gone"]


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[" * 3000, b'{"holder": 3, "expires": "x"}', b"\0" * 10_000, b"[1]"]
)
def test_a_note_that_says_nothing_holds_nobody_off(folder: RemoteFolder, content: bytes) -> None:
    folder.put_small(f"x.h5{BUILDING}", content)
    assert build(folder, [])
    folder.put_small(f"x.h5{BUILDING}", content)
    assert abandoned(folder, delete=True) == [f"{folder.shown}/x.h5{BUILDING}"]
    assert folder.names() == {}


def test_a_builder_that_lives_goes_on_counting(folder: RemoteFolder) -> None:
    assert module.EXPIRES > 60
    with building(folder, "x.h5", print, lambda: False, expires=0.6):
        first = until(folder)
        wait_until(lambda: until(folder) > first + 0.6)


def test_a_builder_whose_clock_is_a_day_ahead_is_waited_for_by_this_ones(folder: RemoteFolder) -> None:
    note = {"holder": "process 1 on gone", "expires": time.time() + 86_400, "token": "of another"}
    folder.put_small(f"x.h5{BUILDING}", json.dumps(note).encode())
    said: list[str] = []
    assert build(folder, said, expires=0.3)
    assert said == ["process 1 on gone"]


def test_one_of_those_that_wait_for_a_builder_takes_its_place(folder: RemoteFolder) -> None:
    """As the jobs of an array: all of them find at the same time that it is gone."""
    note = f"x.h5{BUILDING}"
    gone = {"holder": "process 1 on gone", "expires": time.time() + 86_400, "token": "of another"}
    folder.put_small(note, json.dumps(gone).encode())
    assert [module._claim(folder, note, token, 300, gone) for token in ("first", "second")] == [True, False]
