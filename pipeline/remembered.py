"""Which file a recipe's cache is, remembered beside its runs, so that a script learns it without loading data
or teacher.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pipeline.errors import NotMadeError
from pipeline.files import read_json, write_json
from pipeline.recipe import Recipe

_FILE = "caches.json"


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


def _digest(recipe: Recipe) -> str:
    sections = recipe.settings.model_dump(mode="json", include={"data", "views", "teacher", "cache"})
    return hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()[:16]
