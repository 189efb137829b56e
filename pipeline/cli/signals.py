"""Ctrl-C, SIGTERM and SIGHUP end a command in the same way: finished work is kept, and unfinished work is cleaned up.

Batch systems send SIGTERM before they kill, and a terminal that is closed sends SIGHUP. A second Ctrl-C or SIGTERM ends
the process at once; that is safe, as a kill at any moment is.
"""

from __future__ import annotations

import signal
from types import FrameType

_ENDING = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_received: list[signal.Signals] = []


class Ended(KeyboardInterrupt):
    """A signal that ends the command, raised wherever its main thread is."""


def end_on_signals() -> None:
    """Has the three signals raise `Ended`; one that is ignored, as nohup has SIGHUP, stays so."""
    _received.clear()
    for number in _ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _end)


def received() -> signal.Signals | None:
    """The signal that ended the command; None where none did."""
    return _received[0] if _received else None


def _end(number: int, _: FrameType | None) -> None:
    for other in _ENDING:
        # A terminal that is closed, or a batch system, sends SIGHUP beside another: that is no second request.
        hangs_up = other == getattr(signal, "SIGHUP", None)
        signal.signal(other, signal.SIG_IGN if hangs_up else signal.SIG_DFL)
    _received.append(signal.Signals(number))
    raise Ended
