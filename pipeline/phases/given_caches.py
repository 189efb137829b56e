"""Files of `cache.from`: how they are stored, which a recipe cannot change, and whose logits they are."""

from __future__ import annotations

from pathlib import Path

from decant.cache import LogitCache, Manifest, require_equal
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.errors import RecipeError
from decant.pipeline.support.notices import say_once


def say_other_encoding(settings: CacheSettings, cache: LogitCache) -> None:
    """Says once where a file is stored otherwise than `cache.encoding` asks: it is taken as it is."""
    if settings.encoding is None:
        return
    asked = settings.encoding.model_dump(mode="json", exclude_none=True)
    stored = {"kind": "dense", "draws": 0, "views": cache.num_views, **cache.manifest.identity["encoding"]}
    others = [
        f"{name} = {value}" for name, value in asked.items() if name in stored and stored[name] != value
    ]
    if others:
        say_once(
            f"warning: {cache.path}: cache.encoding asks for {', '.join(others)}, and this file of cache.from has "
            f"{cache.manifest.encoding.name}: it is taken as it is; leave one of both out"
        )


def require_teacher(cache: LogitCache, manifest: Manifest) -> Path:
    """The path of a file whose teacher is that of a recipe, with its `manifest`. Raises MismatchError."""
    require_equal(
        manifest.identity,
        cache.manifest.identity,
        subject=f"{cache.path}: is not of this recipe's teacher",
        hint="Name the recipe that it was made with, or leave cache.from out.",
        sections=("teacher",),
    )
    return cache.path


def only(caches: list[LogitCache]) -> LogitCache:
    """The one file. Raises RecipeError where there are several."""
    if len(caches) != 1:
        raise RecipeError(
            "cache.from: names several files, and --against-teacher compares one with the teacher of the recipe; name "
            "that one alone"
        )
    return caches[0]
