"""Locks between processes: held, shared, refused, waited for; let go of in every way to end; done without where there
are none.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from decant.cache import StorageError
from decant.cache.io import locks
from decant.cache.io.flock import try_flock
from decant.cache.io.locks import claim, exclusive, holder, in_use, join, shared, try_exclusive
from tests.helpers.commands import fork_python
from tests.helpers.processes import PATIENCE, finished, line

HOLDS: dict[str, Callable[[Path], AbstractContextManager[object]]] = {
    "exclusive": lambda lock: exclusive(lock, waiting=refuse),
    "try_exclusive": try_exclusive,
    "shared": shared,
}
OWN_NAME = f"process {os.getpid()} on {socket.gethostname()}"


class Refused(Exception):
    """Somebody else holds the lock."""


def refuse(held_by: str) -> None:
    raise Refused(held_by)


def is_free(lock: Path) -> bool:
    with try_exclusive(lock) as free:
        return free


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "file.lock"


@pytest.mark.parametrize("how", HOLDS)
def test_a_lock_is_held_until_the_end_whatever_the_end_is(how: str, lock: Path) -> None:
    with HOLDS[how](lock):
        assert not is_free(lock)
    assert is_free(lock)
    for error in (OSError("from inside"), KeyboardInterrupt(), GeneratorExit()):
        with pytest.raises(type(error)), HOLDS[how](lock):
            raise error
        assert is_free(lock), error


@pytest.mark.parametrize("how", HOLDS)
def test_workers_that_outlive_the_holder_do_not_keep_the_lock(how: str, lock: Path) -> None:
    script = """
import os, sys, time
from pathlib import Path
from tests.cache.test_locks import HOLDS, is_free
lock = Path(sys.argv[1])
with HOLDS[sys.argv[2]](lock):
    worker = os.fork()
    if worker == 0:
        time.sleep(600)
print(is_free(lock))
os.kill(worker, 9)
"""
    assert finished(fork_python(script, lock, how)) == "True\n"


@pytest.mark.parametrize("how", HOLDS)
def test_a_killed_process_holds_nothing(how: str, lock: Path) -> None:
    script = """
import sys, time
from pathlib import Path
from tests.cache.test_locks import HOLDS
with HOLDS[sys.argv[2]](Path(sys.argv[1])):
    print("holds", flush=True)
    time.sleep(600)
"""
    process = fork_python(script, lock, how)
    assert line(process) == "holds\n"
    assert not is_free(lock)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert is_free(lock)


def test_who_refuses_to_wait_learns_who_holds_it_and_disturbs_nobody(lock: Path) -> None:
    with exclusive(lock, waiting=refuse):
        for _ in range(2):
            with pytest.raises(Refused, match=f"^{OWN_NAME}$"), exclusive(lock, waiting=refuse):
                pass
        assert lock.read_text() == OWN_NAME
        assert not is_free(lock)


def test_who_waits_is_told_once_and_then_has_it(lock: Path) -> None:
    script = """
import sys
from pathlib import Path
from decant.cache.io.locks import exclusive
with exclusive(Path(sys.argv[1]), waiting=lambda holder: print(holder, flush=True)):
    print("has it", flush=True)
"""
    with exclusive(lock, waiting=refuse):
        process = fork_python(script, lock)
        assert line(process) == f"{OWN_NAME}\n"
    assert finished(process) == "has it\n"


def test_the_holder_is_named_as_long_as_it_holds(lock: Path) -> None:
    assert holder(lock) is None
    assert not lock.exists(), "looking makes no lock"
    lock.write_text(f"{OWN_NAME}, and more")  # of one whose name was longer
    with exclusive(lock, waiting=refuse):
        assert holder(lock) == OWN_NAME
    assert holder(lock) is None
    with shared(lock):
        assert holder(lock) is None, "who uses a file keeps nobody from using it"


def test_a_lock_of_a_process_that_has_ended_is_not_tried_to_see_who_holds_it(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Held for a moment, it would turn away somebody who begins just then."""
    tried = list[int]()
    monkeypatch.setattr(locks, "try_flock", lambda fd, how: tried.append(fd) or False)
    lock.write_text(f"process {2**22 + 1} on {socket.gethostname()}")  # the largest of Linux is 2^22
    assert (holder(lock), tried) == (None, [])
    for pid in (10**30, "none"):  # of which nobody knows
        lock.write_text(named := f"process {pid} on {socket.gethostname()}")
        assert holder(lock) == named


def test_who_is_waited_for_and_has_no_name_is_another_process(lock: Path) -> None:
    with exclusive(lock, waiting=refuse):
        for content, said in ((b"\x1b[2J\n", r"\[2J"), (b"\xff", "\ufffd"), (b"", "another process")):
            lock.write_bytes(content)
            with pytest.raises(Refused, match=f"^{said}$"), exclusive(lock, waiting=refuse):
                pass
    assert is_free(lock), "who refused to wait has let go of it"


def test_two_share_and_neither_lets_a_third_have_it_alone(lock: Path) -> None:
    with shared(lock):
        with shared(lock):
            assert not is_free(lock)
        assert not is_free(lock)
    assert is_free(lock)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_without_locks_nobody_is_held_off_and_nobody_can_tell(
    number: int, lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", missing)
    with exclusive(lock, waiting=refuse), exclusive(lock, waiting=refuse), shared(lock):
        assert holder(lock) is None
        assert not is_free(lock), "what may be in use is not removed"
    with open(lock) as file:
        assert (claim(file.fileno()), join(file.fileno()), in_use(file.fileno())) == (False, False, False)


def test_a_lock_that_cannot_be_opened(tmp_path: Path) -> None:
    lock = tmp_path / "no such folder" / "file.lock"
    with (
        pytest.raises(StorageError, match=r"file\.lock: opening the lock: No such file"),
        exclusive(lock, refuse),
    ):
        pass
    with shared(lock), try_exclusive(lock) as free:
        assert not free


def test_waiting_that_fails_names_the_lock(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([BlockingIOError(), OSError(errno.EIO, "Input/output error")])

    def answer(_: int, kind: int) -> None:
        if kind != fcntl.LOCK_UN:
            raise next(answers)

    monkeypatch.setattr(fcntl, "flock", answer)
    with (
        pytest.raises(StorageError, match=r"file\.lock: waiting for the lock: Input"),
        exclusive(lock, print),
    ):
        pass


def test_an_unfinished_file_is_claimed_by_one_and_joined_by_others(tmp_path: Path) -> None:
    path = tmp_path / "file.partial"
    path.touch()
    with open(path) as first, open(path) as rank, open(path) as other:
        assert claim(first.fileno())
        assert join(rank.fileno())
        first.close()
        assert in_use(other.fileno()), "a rank still writes it"
        assert not claim(other.fileno())
    with open(path) as other:
        assert not in_use(other.fileno())
        assert claim(other.fileno())


@pytest.mark.parametrize("how", ["exclusive", "shared"])
def test_a_lock_that_was_removed_while_it_was_waited_for_is_taken_anew(how: str, lock: Path) -> None:
    """Else who has waited holds a file that nobody else finds, and whoever comes next is not held off."""
    began, has, ends = threading.Event(), threading.Event(), threading.Event()

    def wait_for_it() -> None:
        began.set()
        with exclusive(lock, lambda holder: None) if how == "exclusive" else shared(lock):
            has.set()
            ends.wait(PATIENCE)

    waiting = threading.Thread(target=wait_for_it)
    with exclusive(lock, lambda holder: None):
        waiting.start()
        began.wait(PATIENCE)
        time.sleep(0.1)  # until it has opened the file
        lock.unlink()
    assert has.wait(PATIENCE)
    with try_exclusive(lock) as free:
        assert not free
    ends.set()
    waiting.join()


def test_a_lock_is_let_go_of_where_the_disk_does_not_tell_whether_it_is_the_one(
    lock: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(fd: int, path: Path) -> bool:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(locks, "is_named", fails)
        with pytest.raises(StorageError, match="opening the lock"), exclusive(lock, waiting=refuse):
            pass
    with exclusive(lock, waiting=refuse):
        pass


def test_a_lock_that_was_removed_just_now_is_not_free(lock: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def removed_first(fd: int, kind: int) -> bool | None:
        lock.unlink(missing_ok=True)
        return try_flock(fd, kind)

    monkeypatch.setattr(locks, "try_flock", removed_first)
    with try_exclusive(lock) as free:
        assert not free
