"""What is remembered of caches beside a recipe's runs: which file a recipe's cache is, so that a script learns it
without loading data or teacher, and what the teacher's pass took.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import TypeAdapter

from decant.pipeline.config.recipe import Recipe
from decant.pipeline.errors import NotMadeError
from decant.pipeline.runs.json_files import read_json, write_json

_FILE = "caches.json"
_PASSES = "passes"
"""A file for each key, so that nobody who writes one can lose another's."""


@dataclass(frozen=True)
class Pass:
    """What making a cache took: the call that published it, and not one before it that was killed."""

    seconds: float
    rows: int
    """Rows that the teacher computed."""
    views_taken_over: int
    """Views that another cache had already."""
    machine: str
    """What the teacher ran on."""


_PASS = TypeAdapter(Pass)


def remember_cache(recipe: Recipe, base: Path, path: Path) -> None:
    """Notes that `path` is the cache of these settings."""
    known = read_json(base / _FILE) if (base / _FILE).exists() else {}
    write_json(base / _FILE, {**known, _digest(recipe): str(path.absolute())})


def cache_path(recipe: Recipe, base: Path) -> Path:
    """The cache that was last made or found for these settings. Raises NotMadeError where there is none, or
    no more.

    The data and the teacher are not looked at: a student run checks those.
    """
    known = read_json(base / _FILE) if (base / _FILE).exists() else {}
    path = Path(known.get(_digest(recipe), ""))
    if not path.is_file():
        raise NotMadeError(f"no cache of these settings is known; run: {recipe.command('cache-logits')}")
    return path


def remember_pass(base: Path, key: str, taken: Pass) -> None:
    """Notes what making the cache of a key took; the last time, if it was made more than once."""
    write_json(_pass_file(base, key), asdict(taken))


def pass_of(base: Path, key: str) -> Pass | None:
    """What making the cache of a key took; None where that is not known: it was made elsewhere, or before this was
    noted, or the note is damaged.
    """
    try:
        return _PASS.validate_json(_pass_file(base, key).read_bytes(), strict=True)
    except (OSError, ValueError):
        return None


def _pass_file(base: Path, key: str) -> Path:
    return base / _PASSES / f"{key}.json"


def _digest(recipe: Recipe) -> str:
    sections = recipe.settings.model_dump(mode="json", include={"data", "views", "teacher", "cache"})
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()[:16]
