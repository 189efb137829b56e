"""Teachers behind a server: what is asked of it, how each kind of server answers, and what is believed."""

from __future__ import annotations

from decant.pipeline.served.teacher import ServedTeacher

__all__ = ["ServedTeacher"]
