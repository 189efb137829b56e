"""Ctrl-C, SIGTERM and SIGHUP end a command in the same way: finished work is kept, and unfinished work is cleaned up.

Batch systems send SIGTERM before they kill, and a terminal that is closed sends SIGHUP. A second Ctrl-C or SIGTERM ends
the process at once; that is safe, as a kill at any moment is.

A destructor or a callback of a library in which a signal comes swallows what is raised there; the signal is then sent
again a moment later.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sys import UnraisableHookArgs

_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_received: list[int] = []
_before: list[Callable[[UnraisableHookArgs], object]] = []
"""The hook that was there, as that of a program which calls the command in its own process."""
_A_MOMENT, _LONGEST_PAUSE = 0.02, 1.0  # s


class Ended(KeyboardInterrupt):
    """A signal that ends the command, raised wherever its main thread is."""


def end_on_signals() -> None:
    """Has the three signals raise `Ended`; one that is ignored, as nohup has SIGHUP, stays so."""
    _received.clear()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)
    if sys.unraisablehook is not _raise_again:
        _before[:] = [sys.unraisablehook]
        sys.unraisablehook = _raise_again


def received() -> signal.Signals | None:
    """The signal that ended the command; None where none did."""
    return signal.Signals(_received[0]) if _received else None


def _end(number: int, _: FrameType | None) -> None:
    _received.append(number)  # first: one that `_send` sends after the next line would end the process
    for other in _ENDING:
        # A terminal that is closed, or a batch system, sends SIGHUP beside another: that is no second request.
        hangs_up = other == getattr(signal, "SIGHUP", None)
        signal.signal(other, signal.SIG_IGN if hangs_up else signal.SIG_DFL)
    raise Ended


def _raise_again(swallowed: UnraisableHookArgs) -> None:
    """Sends a signal again whose `Ended` nobody sees, so that the command ends; others are for the earlier hook."""
    if not isinstance(swallowed.exc_value, Ended) or not _received:
        (_before[0] if _before else sys.__unraisablehook__)(swallowed)
        return
    number, before, inside = _received[-1], len(_received), [True]
    signal.signal(number, _end)
    try:
        threading.Thread(target=_send, args=(number, before, inside), daemon=True).start()
    finally:
        # The last step, and no call: what were raised in the hook itself would be lost for good.
        inside[0] = False


def _send(number: int, before: int, inside: list[bool]) -> None:
    """Sends a signal once the hook is left, when `inside` is [False], until it is received after so many `before`: one
    that comes just before a call waits for something does not end that call.
    """
    process, pause = os.getpid(), _A_MOMENT
    while inside[0]:
        time.sleep(_A_MOMENT)
    while True:
        if _received[before:]:
            return
        os.kill(
            process, number
        )  # no call stands between, at which the main thread could receive what was sent before
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
