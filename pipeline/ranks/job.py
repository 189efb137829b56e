"""The ranks of a job, joined through the launcher's store: shared values, counters, waiting for each other.

A store holds small values by name. Waiting looks at it again and again, and so hears signals, and the failure of
another rank, which a call that blocks would not.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.launch import Launch, launched
from decant.pipeline.ranks.watch import watch_store

if TYPE_CHECKING:
    from torch.distributed import Store, TCPStore

TIMEOUT = "DECANT_RANKS_TIMEOUT"
"""The environment variable of the seconds that ranks wait for one that gives no sign."""
_SECONDS = 600.0
_POLL_SECONDS = 0.02
_SHORTEST_POLL_SECONDS, _LONGEST_POLL_SECONDS = 0.001, 0.5
_CONNECTION_SECONDS, _KNOCK_SECONDS = 5.0, 0.1  # of a try to reach the store, and between two
_SIGN_SECONDS = 5.0
_LEAST_ANSWER_SECONDS = 10.0

_JOINING_SECONDS = 2.0
"""That a rank which has joined and failed gives others to join: these learn of it then."""

FAILED = "failed"
"""Why a job is over where an error ended it."""
_ALL_HERE = "all here"

_joined: dict[int, Job] = {}
"""The job, by the process that joined it: one that is forked has the connection open too, and must not use it."""


class OtherRankFailedError(RankError):
    """Another rank has failed and says why; this one leaves without a word."""


class Job:
    """The ranks of one job as one of them sees them.

    Rank 0 makes a name for this start of the job, and all others take it up: where a launcher starts ranks again, its
    store still holds what the earlier ones left there.
    """

    def __init__(self, launch: Launch, store: Store, session: str) -> None:
        """store: a `torch.distributed.Store`, of which this job uses what begins with `session`."""
        self.launch, self.rank, self.size = launch, launch.rank, launch.size
        self.store, self.session = store, session
        self._numbers: dict[str, int] = {}

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0."""
        return self.rank == 0

    def set(self, name: str, value: str) -> None:
        """Gives a value a name that every rank can ask for. Raises RankError."""
        with _named_loss():
            self.store.set(f"{self.session}/{name}", value)

    def has(self, name: str) -> bool:
        """Whether a name has a value. Raises RankError."""
        with _named_loss():
            return bool(self.store.check([f"{self.session}/{name}"]))

    def get(self, name: str, awaited: str, of: int = 0) -> str:
        """The value of a name; waits for it. `awaited` says in messages what that is, and `of` is the rank that gives
        it.

        Raises RankError where that rank gives no sign for too long or the launcher is gone, OtherRankFailedError where
        another rank has failed.
        """
        for _ in self.polls(awaited, of):
            if self.has(name):
                break
        return self.get_now(name)

    def get_now(self, name: str) -> str:
        """The value of a name, or nothing where it has none. Raises RankError."""
        with _named_loss():
            known = self.has(name)
            return bytes(self.store.get(f"{self.session}/{name}")).decode() if known else ""

    def count(self, name: str, more: int = 1) -> int:
        """Adds to a counter of the job, which begins with 0; returns what it is then. Raises RankError."""
        with _named_loss():
            return int(self.store.add(f"{self.session}/{name}", more))

    def number(self, name: str) -> int:
        """How often this rank has asked for a number of that name before: the same in all ranks that do the same."""
        self._numbers[name] = self._numbers.get(name, -1) + 1
        return self._numbers[name]

    def share(self, name: str, value: str | None, awaited: str) -> str:
        """The value that rank 0 gives. Raises what `get` raises."""
        if value is not None and self.is_first:
            self.set(name, value)
            return value
        return self.get(name, awaited)

    def gather(self, name: str, value: str, awaited: str) -> list[str]:
        """What every rank gives, by rank; for rank 0 alone, the others get an empty list at once. Raises what `get`
        raises.
        """
        self.set(f"{name}/{self.rank}", value)
        if not self.is_first:
            return []
        return [self.get(f"{name}/{rank}", awaited, rank) for rank in range(self.size)]

    def is_first_to_end(self, why: str) -> bool:
        """Tells the other ranks that the job is over, and why, as "failed"; whether this rank is the first to do so."""
        if self.count(f"over/{why}") > 1:
            return False  # so that the second cannot be the first to add to the counter below, and both be silent
        until = time.monotonic() + _JOINING_SECONDS
        while not self.has(_ALL_HERE):
            if time.monotonic() > until:  # ranks that have not joined look there
                with _named_loss():
                    return int(self.store.add(over(self.launch, why), 1)) == 1
            time.sleep(_POLL_SECONDS)
        return True

    def has_failed(self) -> bool:
        """Whether a rank has said that the job has failed."""
        return self.has(f"over/{FAILED}")

    def polls(self, awaited: str, of: int = 0) -> Iterator[None]:
        """Yields again and again while this rank waits for something of another, each time after a pause of at most a
        fifth of what it has waited. Takes and raises what `get` does.
        """
        pause, started, last = _SHORTEST_POLL_SECONDS, time.monotonic(), self.get_now(f"sign/{of}")
        while True:
            yield
            if self.has_failed():
                raise OtherRankFailedError("another rank has failed")
            if (now := self.get_now(f"sign/{of}")) != last:
                last, started = now, time.monotonic()
            if time.monotonic() - started > timeout():
                raise RankError(
                    f"rank {of} of {self.size} has given no sign for {timeout():,.0f} s ({TIMEOUT} sets the time), "
                    f"while rank {self.rank} on {socket.gethostname()} waits for {awaited}"
                )
            time.sleep(pause)
            pause = min(_LONGEST_POLL_SECONDS, 1.2 * pause)

    def give_signs(self) -> None:
        """Has a thread tell the others that this process lives, whatever it does otherwise."""

        def run() -> None:
            with contextlib.suppress(RuntimeError, RankError):
                while True:
                    self.count(f"sign/{self.rank}")
                    time.sleep(min(_SIGN_SECONDS, timeout() / 5))

        threading.Thread(target=run, name="signs", daemon=True).start()


def join() -> Job | None:
    """Joins the other ranks of this job and waits for all; None where this process is no rank. Joins once a process.

    Raises RankError where the launcher's store cannot be reached, or a rank does not come.

    >>> print(join())
    None
    """
    launch = launched()
    if launch is None:
        return None
    if os.getpid() not in _joined:
        store = connect(launch, timeout())
        watch_store(launch, lambda: connect(launch, timeout()), _answer_seconds())
        found = _call_roll(launch, store) if launch.rank == 0 else _answer_roll(launch, store)
        found.give_signs()
        _joined[os.getpid()] = found
    return _joined[os.getpid()]


def joined() -> Job | None:
    """The job that this process has joined; None where it has not, or is no rank."""
    return _joined.get(os.getpid())


def timeout() -> float:
    """Seconds that ranks wait for one that gives no sign."""
    try:
        return float(os.environ.get(TIMEOUT, "")) or _SECONDS
    except ValueError:
        return _SECONDS


def _answer_seconds() -> float:
    """Seconds that the store may take for an answer before a rank takes it for lost."""
    return max(_LEAST_ANSWER_SECONDS, timeout() / 10)


def connect(launch: Launch, seconds: float) -> TCPStore:
    """The store of the job, a `torch.distributed.TCPStore`. Raises RankError where it cannot be reached."""
    from torch.distributed import TCPStore

    hosts = launch.rank == 0 and not launch.has_store
    try:
        if not hosts:
            _await_store(launch, seconds)
        return TCPStore(
            launch.address,
            launch.port,
            None,
            hosts,
            timeout=timedelta(seconds=seconds),
            wait_for_workers=False,
            multi_tenant=True,
        )
    except (RuntimeError, OSError) as error:
        raise RankError(
            f"rank {launch.rank} on {socket.gethostname()}: the job's store at {launch.address}:{launch.port} cannot "
            f"be reached ({_first_line(error)}); is the address one that every machine reaches, and does rank 0 run?"
        ) from error


def _await_store(launch: Launch, seconds: float) -> None:
    """Returns once somebody listens where the store is to be: torch itself waits without hearing signals, which a batch
    system sends some seconds before it kills. Raises OSError.
    """
    until = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((launch.address, launch.port), _CONNECTION_SECONDS).close()
            return
        except OSError:
            if time.monotonic() > until:
                raise
        time.sleep(_KNOCK_SECONDS)


def _call_roll(launch: Launch, store: Store) -> Job:
    """Rank 0: answers every rank that comes with the name of this start of the job, until all have taken it up. What
    ranks of an earlier start have left in the store is answered too, and nobody hears it.
    """
    job, started = Job(launch, store, secrets.token_hex(8)), time.monotonic()
    missing = list(range(1, launch.size))
    while missing := [rank for rank in missing if not job.has(f"here/{rank}")]:
        with _named_loss():
            if store.check([over(launch, FAILED)]):
                raise OtherRankFailedError("another rank has failed")
            for rank in missing:
                if store.check([f"comes/{rank}"]):
                    store.set(f"job/{bytes(store.get(f'comes/{rank}')).decode()}", job.session)
        if time.monotonic() - started > timeout():
            raise RankError(
                f"ranks {', '.join(map(str, missing))} of {launch.size} have not come within {timeout():,.0f} s "
                f"({TIMEOUT} sets the time); a command that one rank of a script starts must not inherit RANK"
            )
        time.sleep(_POLL_SECONDS)
    job.set(_ALL_HERE, "yes")
    return job


def over(launch: Launch, why: str) -> str:
    """The name in the store that says that a job is over before all of its ranks have joined.

    What comes later has a name of that start of the job alone: of several launchers only the one whose rank has failed
    counts a restart, so that ranks of another machine start again with the same `attempt`.
    """
    return f"over/{launch.attempt}/{why}"


def _answer_roll(launch: Launch, store: Store) -> Job:
    mine, started = secrets.token_hex(8), time.monotonic()
    with _named_loss():
        store.set(f"comes/{launch.rank}", mine)
        while not store.check([f"job/{mine}"]):
            if store.check([over(launch, FAILED)]):
                raise OtherRankFailedError("another rank has failed")
            if time.monotonic() - started > timeout():
                raise RankError(
                    f"rank {launch.rank}: rank 0 has not come within {timeout():,.0f} s ({TIMEOUT} sets it)"
                )
            time.sleep(_POLL_SECONDS)
        job = Job(launch, store, bytes(store.get(f"job/{mine}")).decode())
    job.set(f"here/{launch.rank}", socket.gethostname())
    return job


@contextlib.contextmanager
def _named_loss() -> Iterator[None]:
    """Raises RankError where the store is gone, which is a RuntimeError of torch's."""
    try:
        yield
    except RankError:
        raise
    except RuntimeError as error:
        raise RankError(
            f"the job's store is gone ({_first_line(error)}): its launcher, or the machine that runs it, has ended; "
            "run the same command again, it goes on from what is saved"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")
