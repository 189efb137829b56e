"""Notes on caches in a recipe's run folder: which file is the cache of which settings, so that `decant cache path` need
not load data or teacher, and what the teacher's pass took.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from decant.cache.io.opening import read_file, require_folder
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.errors import NotMadeError
from decant.pipeline.runs.json_files import read_as, write_json
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.support.checked_json import MOST_BYTES, Amount, Whole

_FILE = "caches.json"
_PASSES = "passes"
"""One file for each key, so that two processes cannot overwrite each other's notes."""


@dataclass(frozen=True)
class Pass:
    """What the call that published a cache took, without earlier calls that were killed."""

    seconds: Amount
    rows: Whole
    """Rows that the teacher computed."""
    views_taken_over: Whole
    """Views that were copied from another cache."""
    machine: str
    """The device that the teacher ran on."""


_PASS = TypeAdapter(Pass)
_CACHES = TypeAdapter(dict[str, Annotated[str, Field(strict=True, pattern=r"^[^\x00]*$")]])


def remember_cache(recipe: Recipe, base: Path, path: Path) -> None:
    """Writes down that `path` is the cache of these settings."""
    with alone_with(base / _FILE):  # another process may add a note of its own just now
        known = _known(base)
        if known.get(_digest(recipe)) != str(path.absolute()):
            write_json(base / _FILE, {**known, _digest(recipe): str(path.absolute())})


def cache_path(recipe: Recipe, base: Path) -> Path:
    """The cache that was last built or found for these settings. Raises NotMadeError if there is none, or it was
    deleted.

    Neither data nor teacher are checked; a student's run does that.
    """
    known = _known(base)
    path = Path(known.get(_digest(recipe), ""))
    if not path.is_file():
        raise NotMadeError(f"no cache of these settings is known; run: {recipe.command('cache-logits')}")
    return path


def remember_pass(base: Path, key: str, taken: Pass) -> None:
    """Writes down what it took to build the cache with this key, in place of an earlier note."""
    require_folder(base / _PASSES)
    write_json(_pass_file(base, key), asdict(taken))


def pass_of(base: Path, key: str) -> Pass | None:
    """What it took to build the cache with this key; None if there is no readable note, as of a cache from another
    machine.
    """
    try:
        return _PASS.validate_json(
            read_file(_pass_file(base, key), follow=False, most=MOST_BYTES), strict=True
        )
    except (OSError, ValueError):
        return None


def _known(base: Path) -> dict[str, str]:
    """The paths of caches by the digest of their settings. Raises DamagedError."""
    path = base / _FILE
    return read_as(path, _CACHES, "delete it, and what it spoke of is found again") if path.exists() else {}


def _pass_file(base: Path, key: str) -> Path:
    return base / _PASSES / f"{key}.json"


def _digest(recipe: Recipe) -> str:
    sections = recipe.settings.model_dump(mode="json", include={"data", "views", "teacher", "cache"})
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()[:16]
