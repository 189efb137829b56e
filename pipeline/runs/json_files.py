"""JSON that a run leaves: `result.json`, `export.json` and the like, each written whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from decant.cache.io.files import write_atomically
from decant.cache.io.opening import open_read
from decant.cache.io.redaction import without_secrets
from decant.pipeline.errors import DamagedError
from decant.pipeline.support.checked_json import MOST_BYTES, check, parse

T = TypeVar("T")


def write_json(path: Path, content: Any) -> None:
    """Indented JSON, for people too; a name that is no text, as a file's may be, in escapes, and secrets left out: run
    folders are made to be shared. Raises OSError, and
    TypeError for what is no JSON; `path` is then as it was.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_json(Path(folder.name, "result.json"), {"seed": 0})
    >>> read_json(Path(folder.name, "result.json"))
    {'seed': 0}
    >>> folder.cleanup()
    """
    content = without_secrets(content)
    try:
        text = escaped_json(json.dumps(content, indent=2, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        text = json.dumps(content, indent=2).encode()
    write_atomically(path, text + b"\n")


def escaped_json(text: str) -> str:
    """JSON in which every character that is not to be seen is an escape, such as a mark that reverses the order of
    letters: whoever looks at the file sees it, and whoever parses it gets the same.

    >>> print(escaped_json(json.dumps(["caf\u00e9", "\u202exe.gif"], ensure_ascii=False)))
    ["café", "\\u202exe.gif"]
    """
    if text.isprintable():
        return text
    return "".join(one if one == "\n" or one.isprintable() else json.dumps(one)[1:-1] for one in text)


def read_json(path: Path) -> Any:
    """What `write_json` wrote. Raises OSError, and DamagedError where it is no JSON any more, or holds what no run
    writes.
    """
    try:
        with open_read(path, follow=False) as file:
            content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
        return parse(content.decode())
    except ValueError as error:  # not JSON, or not even text
        raise DamagedError(
            f"{path}: damaged ({error}); delete it, and what it spoke of is made again"
        ) from None


def read_as(path: Path, adapter: TypeAdapter[T], remedy: str) -> T:
    """What `write_json` wrote, held against a type. Raises DamagedError, naming file and field, with what to do about
    it; OSError.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name, "seeds.json")
    >>> write_json(path, {"seed": 0})
    >>> read_as(path, TypeAdapter(dict[str, int]), "delete it")
    {'seed': 0}
    >>> folder.cleanup()
    """
    content = read_json(path)
    try:
        return check(adapter, content)
    except ValueError as error:
        raise DamagedError(f"{path}: {error}; {remedy}") from None
