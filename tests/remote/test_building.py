"""Builders of one cache in a store elsewhere: a courtesy, and what holds without it."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import uuid
from typing import cast

import pytest

from decant.cache.io.system import process_space
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


class Clock:
    """This machine's clock, which goes on while somebody sleeps."""

    def __init__(self) -> None:
        self.now = time.time()
        self.time = self.monotonic = lambda: self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module, "time", found)
    return found


def left(
    folder: RemoteFolder, ends: float, holder: str = "process 1 on gone", space: str | None = None
) -> dict[str, object]:
    """A note of a builder that ends then by its clock, of a process of a space: None as earlier clones wrote it."""
    note = {"holder": holder, "expires": ends, "token": "of another"}
    if space is not None:
        note["space"] = space
    folder.put_small(f"x.h5{BUILDING}", json.dumps(note).encode(), replace=True)
    return note


@pytest.mark.parametrize("ahead", [0, 3600, -3600, 86_000], ids="{:+d} s".format)
def test_a_builder_that_is_silent_is_waited_for_by_this_clock(
    folder: RemoteFolder, clock: Clock, ahead: int
) -> None:
    left(folder, clock.now + ahead + 300)
    assert abandoned(folder, delete=True) == []
    said, started = list[str](), clock.now
    with building(folder, "x.h5", said.append, lambda: False):
        assert 150 <= clock.now - started < 310
    assert said == ["process 1 on gone"]


@pytest.mark.parametrize("ahead", [3600, -3600], ids="{:+d} s".format)
def test_a_builder_that_lives_is_not_displaced_whatever_its_clock_says(
    folder: RemoteFolder, clock: Clock, ahead: int
) -> None:
    started = last = clock.now
    left(folder, last + ahead + 300)

    def live() -> bool:
        """As its thread does, it writes its note anew after each third of the time."""
        nonlocal last
        if clock.now - last >= 100:
            last = clock.now
            left(folder, last + ahead + 300)
        if clock.now - started >= 1200:
            folder.remove(f"x.h5{BUILDING}")
        return False

    with building(folder, "x.h5", lambda holder: None, live):
        assert clock.now - started >= 1200


@pytest.mark.parametrize(
    ("space", "waits"), [(process_space(), False), ("of a container", True), ("", True), (None, True)]
)
def test_a_builder_of_this_machine_that_was_killed_is_not_waited_for(
    folder: RemoteFolder, clock: Clock, space: str | None, waits: bool
) -> None:
    """In a container of the same host name the number is of a process that is not seen from here."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    holder = f"process {ended.pid} on {socket.gethostname()}"
    left(folder, clock.now + 300, holder, space)
    assert (abandoned(folder, delete=False) == []) == waits
    said: list[str] = []
    with building(folder, "x.h5", said.append, lambda: False):
        assert said == ([holder] if waits else [])


def test_a_note_of_long_ago_holds_nobody_off(folder: RemoteFolder, clock: Clock) -> None:
    left(folder, clock.now - 2 * 86_400)
    assert abandoned(folder, delete=False) == [f"{folder.shown}/x.h5{BUILDING}"]
    said: list[str] = []
    with building(folder, "x.h5", said.append, lambda: False):
        assert said == []


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


def test_one_of_those_that_wait_for_a_builder_takes_its_place(folder: RemoteFolder) -> None:
    """As the jobs of an array: all of them find at the same time that it is gone."""
    note = f"x.h5{BUILDING}"
    gone = left(folder, time.time() + 86_000)
    assert [module._claim(folder, note, token, 300, gone) for token in ("first", "second")] == [True, False]
