"""Work beside the main thread keeps its order, its bounds and its errors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.training.background import BackgroundWriter, Beside, at_once, prefetch
from tests.helpers.commands import fork_python
from tests.helpers.processes import PATIENCE, wait_until


@pytest.mark.parametrize("count", [0, 1, 2, 3, 50])
def test_items_come_in_their_order(count: int) -> None:
    assert list(prefetch(iter(range(count)), depth=3)) == list(range(count))
    assert list(prefetch(iter(range(count)), depth=4, run=3)) == list(range(count))


def items(made: list[int]) -> Iterator[int]:
    """A hundred, noted when they are made."""
    for item in range(100):
        made.append(item)
        yield item


def test_no_more_is_made_than_was_asked_for() -> None:
    made = list[int]()
    taken = prefetch(items(made), depth=2)
    assert next(taken) == 0
    wait_until(lambda: len(made) >= 3)
    time.sleep(0.1)  # in which more would be made
    assert made == [0, 1, 2]
    taken.close()
    time.sleep(0.1)
    assert len(made) <= 4, "nothing is made for who has gone"


def test_nothing_more_is_made_once_the_taker_has_gone() -> None:
    made, begun, gate = list[int](), threading.Event(), threading.Event()

    def held() -> Iterator[int]:
        for item in items(made):
            if item == 1:
                begun.set()
                gate.wait(PATIENCE)
            yield item

    taken: Any = prefetch(held(), depth=4)
    assert next(taken) == 0
    begun.wait(PATIENCE)
    left = taken.gi_frame.f_locals["left"]
    closing = threading.Thread(target=taken.close)
    closing.start()
    wait_until(lambda: left)
    gate.set()
    closing.join(PATIENCE)
    assert made == [0, 1], "and not the two that were asked for"


def test_items_are_made_in_runs() -> None:
    made = list[int]()
    taken = prefetch(items(made), depth=4, run=2)
    assert next(taken) == 0
    wait_until(lambda: len(made) >= 4)
    time.sleep(0.1)  # in which more would be made
    assert made == [0, 1, 2, 3], "one was taken, and the next run is of two"
    assert next(taken) == 1
    wait_until(lambda: len(made) == 6)
    taken.close()


def test_items_are_made_beside_the_caller() -> None:
    def items() -> Iterator[str]:
        yield threading.current_thread().name

    assert next(iter(prefetch(items()))).startswith("prefetch")


def test_an_error_comes_in_the_place_of_its_item() -> None:
    def items() -> Iterator[int]:
        yield 1
        yield 2
        raise ValueError("the third")

    taken = prefetch(items(), depth=3)
    assert [next(taken), next(taken)] == [1, 2]
    with pytest.raises(ValueError, match="the third"):
        next(taken)


def test_calls_beside_one_another_have_ended_where_the_block_is_left_and_none_of_their_errors_is_lost() -> (
    None
):
    ended, both = list[int](), threading.Barrier(2)

    def call(number: int) -> None:
        both.wait(PATIENCE)
        time.sleep(0.05 * number)
        ended.append(number)
        raise ValueError(f"the call {number}")

    def calls(*numbers: int, then: Exception | None = None) -> None:
        with Beside() as beside:
            for number in numbers:
                beside(call, number)
            if then is not None:
                raise then

    with pytest.raises(ValueError, match="the call 1"):
        calls(1, 0)
    assert sorted(ended) == [0, 1], "of two the first that was begun is named"
    with pytest.raises(KeyError, match="the block"):
        calls(2, 3, then=KeyError("the block"))
    assert sorted(ended) == [0, 1, 2, 3]


def test_calls_at_once_return_in_their_order_and_raise_the_first_error() -> None:
    ended, last_began = list[str](), threading.Event()

    def call(name: str) -> str:
        if name == "last":
            last_began.set()
        assert last_began.wait(PATIENCE), "they are made at once"
        ended.append(name)
        if name.startswith("bad"):
            raise ValueError(name)
        return f"{name} by {threading.current_thread().name}"

    def at_once_of(*names: str) -> list[str]:
        last_began.clear()
        return at_once([partial(call, name) for name in names])

    here, *others = at_once_of("one", "two", "last")
    assert here == f"one by {threading.current_thread().name}"
    assert others == ["two by at-once", "last by at-once"]
    ended.clear()
    with pytest.raises(ValueError, match=r"^bad 1$"):
        at_once_of("one", "bad 1", "bad 2", "last")
    assert sorted(ended) == ["bad 1", "bad 2", "last", "one"]


def test_calls_are_made_in_their_order_by_another_thread() -> None:
    made = list[tuple[int, str]]()
    with BackgroundWriter(depth=2) as write_later:
        for place in range(50):
            write_later(lambda place: made.append((place, threading.current_thread().name)), place)
    assert [place for place, _ in made] == list(range(50))
    assert {name.startswith("write-later") for _, name in made} == {True}


def test_the_caller_waits_when_too_much_waits() -> None:
    gate, made = threading.Event(), list[int]()

    def slow(place: int) -> None:
        gate.wait(PATIENCE)
        made.append(place)

    with BackgroundWriter(depth=2) as write_later:
        write_later(slow, 0)
        write_later(slow, 1)
        third = threading.Thread(target=write_later, args=(slow, 2))
        third.start()
        third.join(0.1)
        assert third.is_alive(), "two calls wait already"
        gate.set()
        third.join(PATIENCE)
    assert made == [0, 1, 2]


def fail() -> None:
    raise ValueError("no room")


def fail_and_go_on(more: int) -> None:
    with BackgroundWriter(depth=2) as write_later:
        write_later(fail)
        for _ in range(more):
            write_later(int)


@pytest.mark.parametrize("more", [0, 1, 10])
def test_an_error_is_raised_at_a_later_call_or_at_the_end(more: int) -> None:
    with pytest.raises(ValueError, match="no room"):
        fail_and_go_on(more)


def test_where_the_block_fails_its_error_is_the_one_and_what_waits_is_left() -> None:
    made = list[int]()

    def block() -> None:
        with BackgroundWriter(depth=5) as write_later:
            write_later(wait_until, lambda: write_later._left)
            write_later(made.append, 1)
            raise KeyError("the block")

    with pytest.raises(KeyError, match="the block"):
        block()
    assert made == []


def test_an_error_is_raised_at_the_next_call_and_hides_none_of_the_block() -> None:
    def block(then: Callable[[BackgroundWriter], object]) -> None:
        with BackgroundWriter(depth=50) as write_later:
            write_later(fail)
            wait_until(lambda: not write_later._done.empty())
            then(write_later)
            raise KeyError("the block")

    with pytest.raises(ValueError, match="no room"):
        block(lambda write_later: write_later(int))
    with pytest.raises(KeyError, match="the block"):
        block(lambda write_later: None)


INTERRUPTED = """
import signal, sys, time
from decant.pipeline.training.background import BackgroundWriter, prefetch

class Ended(KeyboardInterrupt):
    pass

def end(*_):
    raise Ended

def both():  # CPython 3.13 does not catch, in the frame itself, what a signal raises where a loop begins again
    until = time.process_time() + 1
    with BackgroundWriter() as write_later:
        for item in prefetch(iter(range(10**9))):
            write_later(int, item)
            if time.process_time() > until:  # Python drops what is raised in a callback of a weak reference
                break

signal.signal(signal.SIGALRM, end)
for time_left in range(1, 400):
    try:
        signal.setitimer(signal.ITIMER_REAL, time_left * 2e-5)
        both()
    except (Ended, RuntimeError):  # the second where a thread was just starting, from Python's own lock
        pass
print("all ended")
"""


def test_a_signal_at_any_moment_ends_both(tmp_path: Path) -> None:
    """With the executors of `concurrent.futures` one in some thousands waited for ever."""
    done = fork_python(INTERRUPTED, cwd=tmp_path)
    out, err = done.communicate(timeout=PATIENCE)
    assert out == "all ended\n", err
