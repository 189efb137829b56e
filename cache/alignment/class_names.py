"""Whether a dataset numbers its classes as the cache does."""

from __future__ import annotations

from decant.cache.errors import warn
from decant.cache.source import LogitSource


def doubt_class_names(source: LogitSource, given: object) -> None:
    """Says that the classes of the dataset have the same names as those of the cache, in another order."""
    recorded = source.manifest.identity["data"].get("classes")
    known = [str(name) for name in recorded] if isinstance(recorded, list) else []
    names = [str(name) for name in given] if isinstance(given, list | tuple) else []
    if names != known and sorted(names) == sorted(known):
        first = next(number for number, name in enumerate(names) if name != known[number])
        warn(
            f"{source.path}: the classes of the dataset are those of the cache in another order: class {first} "
            f"is {names[first]}, and its logits are of {known[first]}; number the labels as the cache does"
        )
