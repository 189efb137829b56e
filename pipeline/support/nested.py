"""Settings in sections within sections, by their path."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def by_path(content: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """What is in no section any more, by its path as recipes are overridden.

    >>> by_path({"student": {"epochs": 3, "network": {"name": "mlp"}}})
    {'student.epochs': 3, 'student.network.name': 'mlp'}
    """
    found: dict[str, Any] = {}
    for key, value in content.items():
        place = f"{path}.{key}" if path else str(key)
        found |= by_path(value, place) if isinstance(value, Mapping) else {place: value}
    return found
