"""JSON that a run leaves: `result.json`, `export.json` and the like, each written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from decant.cache.io.files import write_atomically
from decant.pipeline.errors import DamagedError


def write_json(path: Path, content: Any) -> None:
    """Indented JSON, for people too; a name that is no text, as a file's may be, in escapes. Raises OSError, and
    TypeError for what is no JSON; `path` is then as it was.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_json(Path(folder.name, "result.json"), {"seed": 0})
    >>> read_json(Path(folder.name, "result.json"))
    {'seed': 0}
    >>> folder.cleanup()
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2).encode()
    write_atomically(path, text + b"\n")


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises DamagedError where it is no JSON any more."""
    try:
        return json.loads(path.read_text("utf-8"))
    except ValueError as error:  # not JSON, or not even text
        raise DamagedError(
            f"{path}: damaged ({error}); delete it, and what it spoke of is made again"
        ) from None
