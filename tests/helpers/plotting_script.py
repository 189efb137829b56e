"""Imported where commands are forked: bundles the script of the plotting library, a second of work for every page."""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):
    from decant.pipeline.report import library

    with library.bundled_beside():
        library.script()
