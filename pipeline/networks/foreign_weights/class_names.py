"""The names of the classes that a file of weights holds, or that lie beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from decant.cache.io.opening import read_text
from decant.pipeline.networks.foreign_weights.reading import read_checkpoint
from decant.pipeline.support.checked_json import MOST_BYTES

_KEYS = (
    "classes",
    "class_names",
    "categories",
    "names",
    "labels",
    "idx_to_class",
    "id2label",
    "class_to_idx",
    "label2id",
)
"""What training scripts call them, in the order in which they are looked for."""
_BESIDE = ("result.json", "config.json")
"""Of a finished run, and of a model of the transformers library."""
_DEPTH = 3  # of tables in tables that are looked into: `hyper_parameters.class_names`, `meta.dataset.classes`


def names_in_file(path: Path, outputs: int) -> list[str] | None:
    """The names of `outputs` classes, in the order of the outputs, as the checkpoint at `path` has them under a usual
    key, or a JSON file beside it; None where neither has so many. Raises WeightsError where `path` cannot be read.

    >>> import tempfile, torch
    >>> file = Path(tempfile.mkdtemp()) / "net.pth"
    >>> torch.save({"model": {}, "class_to_idx": {"dog": 1, "cat": 0}}, file)
    >>> names_in_file(file, 2)
    ['cat', 'dog']
    """
    inside = _find(read_checkpoint(path), outputs)
    if inside is not None:
        return inside
    folder = path if path.is_dir() else path.parent
    for name in _BESIDE:
        beside = _find(_read_json(folder / name), outputs)
        if beside is not None:
            return beside
    return None


def _find(content: object, outputs: int, depth: int = _DEPTH) -> list[str] | None:
    if not isinstance(content, Mapping) or not depth:
        return None
    for key in _KEYS:
        names = _as_names(content.get(key))
        if names is not None and len(names) == outputs:
            return names
    for key, inner in content.items():
        if isinstance(key, str) and isinstance(inner, Mapping):
            names = _find(inner, outputs, depth - 1)
            if names is not None:
                return names
    return None


def _as_names(value: object) -> list[str] | None:
    """Names by number: of a list, of {number: name} or of {name: number}."""
    if isinstance(value, list | tuple):
        return [str(name) for name in value] if all(isinstance(name, str) for name in value) else None
    if not isinstance(value, Mapping) or not value:
        return None
    by_number = {}
    for key, item in value.items():
        number, name = (key, item) if isinstance(item, str) else (item, key)
        if not isinstance(name, str) or not str(number).isdecimal() or isinstance(number, bool):
            return None
        by_number[int(str(number))] = name
    if sorted(by_number) != list(range(len(value))):
        return None
    return [by_number[number] for number in range(len(value))]


def _read_json(path: Path) -> object:
    try:
        return json.loads(read_text(path, most=MOST_BYTES))
    except (OSError, ValueError, RecursionError):
        return None
