"""Who builds a cache of a store elsewhere: a small object with the builder's name and when it ends to count.

It is a courtesy, as locks between machines can be no more: it spares a second pass over the data. That two who build at
once end with one good file rests on how files are published.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator

from decant.cache.errors import CacheError
from decant.cache.io.locks import may_live
from decant.cache.io.system import process_space
from decant.cache.remote.folder import RemoteFolder

BUILDING = ".building"
"""Ends the name of that object."""
EXPIRES = 300.0
"""Seconds that a builder counts after it was last heard of."""
_CLOCKS_DIFFER = 86_400.0
"""Seconds that the clocks of two machines may be apart."""
_MOST_BYTES = 4096
_POLL_SECONDS = 5.0


@contextlib.contextmanager
def building(
    folder: RemoteFolder,
    name: str,
    waiting: Callable[[str], None],
    published: Callable[[], bool],
    expires: float = EXPIRES,
    poll: float = _POLL_SECONDS,
) -> Iterator[None]:
    """Says in the store that this process builds a cache, until the end. While another says so, calls `waiting` once
    with its name and waits, until the cache is `published`, or the other is done or was not heard of for `expires`
    seconds. The clock of this machine measures that: those of two machines may be hours apart.
    """
    if not folder.promises.notes:
        yield
        return
    note, told = f"{name}{BUILDING}", False
    token = secrets.token_hex(8)
    seen, since = _read(folder, note), time.monotonic()
    while not _claim(folder, note, token, expires, gone=seen if _is_silent(seen, since, expires) else None):
        now = _read(folder, note)
        if now != seen:
            seen, since = now, time.monotonic()
        holder = _holder(now)
        if holder is None:
            time.sleep(min(0.1, poll))
            continue
        if not told:
            waiting(holder)
            told = True
        if published():
            yield
            return
        time.sleep(poll)
    done = threading.Event()

    def go_on() -> None:
        while not done.wait(expires / 3):
            with contextlib.suppress(CacheError):
                folder.put_small(note, _note(token, expires), replace=True)

    thread = threading.Thread(target=go_on, daemon=True, name="decant-building")
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        with contextlib.suppress(CacheError, FileNotFoundError):
            if (_read(folder, note) or {}).get("token") == token:
                folder.remove(note)


def abandoned(folder: RemoteFolder, delete: bool) -> list[str]:
    """What builders left that were not heard of for too long; removes it where `delete` says so."""
    found = [
        name for name in folder.names() if name.endswith(BUILDING) and _holder(_read(folder, name)) is None
    ]
    for name in found if delete else ():
        folder.remove(name)
    return [folder.file_shown(name) for name in found]


def _claim(
    folder: RemoteFolder, note: str, token: str, expires: float, gone: dict[str, object] | None
) -> bool:
    """Whether this process may build: nobody else says that it does, or who says so is known to be gone, whose note is
    `gone`. Another that waits for the same one may have taken its place since that was read.
    """
    if folder.put_small(note, _note(token, expires)):
        return True
    found = _read(folder, note)
    if _holder(found) is not None and found != gone:
        return False
    folder.put_small(note, _note(token, expires), replace=True)  # of a process that was killed
    return (_read(folder, note) or {}).get("token") == token


def _is_silent(found: dict[str, object] | None, since: float, expires: float) -> bool:
    """Whether a note has stayed as it is for too long, which one of a builder that lives does for a third of `expires`:
    half of it where the builder is likely gone, as the note has ended by this clock too.
    """
    until = (found or {}).get("expires")
    ended = isinstance(until, int | float) and until < time.time()
    return time.monotonic() - since > (expires / 2 if ended else expires)


def _holder(found: dict[str, object] | None) -> str | None:
    """The process that says it builds; None where there is none, or it is certainly gone: its number is of this machine
    and no process has it, or it was not heard of for so long that no clock explains it.
    """
    holder, until, space = ((found or {}).get(name) for name in ("holder", "expires", "space"))
    if (
        not isinstance(holder, str)
        or not isinstance(until, int | float)
        or not abs(until - time.time()) < _CLOCKS_DIFFER + EXPIRES
        or (space and space == process_space() and not may_live(holder))
    ):
        return None
    return "".join(filter(str.isprintable, holder))[:200] or "another process"


def _read(folder: RemoteFolder, note: str) -> dict[str, object] | None:
    try:
        stat = folder.stat(note)
        if stat is None or not 0 < stat.size <= _MOST_BYTES:
            return None
        found = json.loads(folder.read(note, 0, stat.size))
        return found if isinstance(found, dict) else None
    except (FileNotFoundError, ValueError, RecursionError, CacheError):
        return None


def _note(token: str, expires: float) -> bytes:
    holder = f"process {os.getpid()} on {socket.gethostname()}"
    said = {
        "holder": holder,
        "expires": time.time() + expires,
        "token": token,
        "space": process_space(),
    }
    return json.dumps(said).encode()
