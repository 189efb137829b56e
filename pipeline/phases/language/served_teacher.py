"""The teacher behind a server that a recipe names: how it is asked, and what it said that it is, noted in its folder.

A note has what tells the model from others, as the server says it, and neither its address nor a key: so students find
the cache while no server runs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from decant.pipeline.config.settings import Settings
from decant.pipeline.errors import DataError
from decant.pipeline.runs.json_files import read_as, write_json
from decant.pipeline.served import ServedTeacher

NOTE = "served.json"
_NOTED = TypeAdapter(dict[str, dict[str, Any]])


def served_teacher(settings: Settings) -> ServedTeacher | None:
    """How the teacher of a recipe is asked; None of a teacher that is loaded here."""
    server = settings.teacher.server
    return None if server is None else ServedTeacher(**server.model_dump())


def require_key(teacher: ServedTeacher) -> None:
    """Raises DataError, naming the setting, where the key that its server wants is not there."""
    try:
        teacher.key()
    except DataError as error:
        raise DataError(f"teacher.server.{error}") from None


def read_note(folder: Path) -> dict[str, Any] | None:
    """What the server said that its model is, for a manifest; None where it was not asked yet. Raises DamagedError."""
    path = folder / NOTE
    if not path.exists():
        return None
    found = read_as(path, _NOTED, "it is not what cache-logits writes: delete it and run that again")
    return found.get("teacher")


def write_note(folder: Path, teacher: Mapping[str, Any]) -> None:
    """Notes it."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NOTE, {"teacher": dict(teacher)})


def teacher_digest(teacher: Mapping[str, Any]) -> str | None:
    """What results name the teacher of a cache by, of the `teacher` of its identity: the SHA-256 of its weights, or,
    behind a server, of what that says that it is. None where neither is known.

    >>> teacher_digest({"network": {"name": "m"}, "weights_sha256": "ab"}), teacher_digest({"network": {"name": "m"}})
    ('ab', None)
    """
    weights = teacher.get("weights_sha256")
    if isinstance(weights, str):
        return weights
    if "served" not in teacher:
        return None
    said = {name: teacher[name] for name in ("network", "served")}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
