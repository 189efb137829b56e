"""Small files, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pipeline.errors import DamagedError


def write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Writes beside `path`, syncs, then takes its name: a reader sees the old content or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    try:
        with open(draft, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Indented JSON, for people too."""
    write_atomically(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises DamagedError where it is no JSON any more."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise DamagedError(
            f"{path}: damaged ({error}); delete it, and what it spoke of is made again"
        ) from None
