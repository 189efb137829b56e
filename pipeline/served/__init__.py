"""Teachers behind a server: the requests, the answers of each kind of server, and the checks of these answers."""

from __future__ import annotations

from decant.pipeline.served.teacher import ServedTeacher

__all__ = ["ServedTeacher"]
