"""The script of the plotting library that a page holds, bundled in a process of its own while the sections are made: a
second of work that keeps every thread of its process waiting.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from functools import cache

_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_BUNDLE = (
    f"import sys, vl_convert; sys.stdout.buffer.write(vl_convert.javascript_bundle({_SNIPPET!r}).encode())"
)

COMMAND = [sys.executable, "-P", "-c", _BUNDLE]
"""Writes the script to its output; -P, as a file of the current folder must not be imported."""

_begun = list[subprocess.Popen[bytes]]()


@contextlib.contextmanager
def bundled_beside() -> Iterator[None]:
    """Within it the script is bundled beside this process, which `script` then waits for; once a process."""
    if not script.cache_info().currsize and not _begun:
        with contextlib.suppress(OSError):
            pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            _begun.append(subprocess.Popen(COMMAND, **pipes))  # type: ignore[call-overload]
    try:
        yield
    finally:
        for process in _begun:
            process.kill()
            process.communicate()
        _begun.clear()


@cache
def script() -> str:
    """Vega, Vega-Lite and Vega-Embed in one script, which defines `vegaEmbed`."""
    while _begun:
        process = _begun.pop()
        made, _ = process.communicate()
        if not process.returncode and made:
            return made.decode()
    import vl_convert

    return str(vl_convert.javascript_bundle(_SNIPPET))
