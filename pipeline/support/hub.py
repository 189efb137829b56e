"""Names that are a folder here or a model or dataset on the hub of Hugging Face: which of both, and whether that can be
reached.

The libraries transformers and datasets try to reach the hub again and again, for most of a minute each time, also for
the name of a folder with a letter wrong.
"""

from __future__ import annotations

import difflib
import functools
import os
import re
from pathlib import Path

from decant.cache.io.redaction import redacted

_NAME = re.compile(r"[\w.-]{1,96}(/[\w.-]{1,96})?")
_SECONDS = 5.0
_FILES = ("config.json", "tokenizer_config.json", "tokenizer.json")


def find_model(name: str, error: type[Exception]) -> str:
    """What `from_pretrained` is given for the name of a model or of a tokenizer: the name itself, or, where the hub
    cannot be reached, the folder of what was fetched of it before.

    Raises `error` where there is no such folder or file here, and the name can be of nothing else, or the hub cannot be
    asked; the message names both readings.

    >>> find_model("/no/folder", OSError)
    Traceback (most recent call last):
        ...
    OSError: there is no such file or folder
    """
    if Path(name).exists():
        return name
    meant = _meant(name)
    if is_path(name):
        raise error(f"there is no such file or folder{meant}")
    reason = unreachable()
    if reason is None:
        return name
    fetched = _fetched(name)
    if fetched is None:
        raise error(
            f"there is no such folder here{meant}, and if it is a model of the hub: that cannot be reached ({reason}), "
            "and nothing of that name was fetched before"
        )
    return fetched


def is_path(name: str) -> bool:
    """Whether a name is of something on this disk, and of no model on the hub, where a folder here may have the name of
    a model's owner.
    """
    return name.startswith((".", "~")) or Path(name).suffix == ".gguf" or _NAME.fullmatch(name) is None


def _meant(name: str) -> str:
    """The folder beside it whose name is nearly the same, as the end of a message."""
    parent = Path(name).parent
    try:
        there = [entry.name for entry in os.scandir(parent) if entry.is_dir() or entry.name.endswith(".gguf")]
    except OSError:
        return ""
    near = difflib.get_close_matches(Path(name).name, there, 1)
    return f" (did you mean {parent / near[0]}?)" if near else ""


@functools.cache
def unreachable() -> str | None:
    """Why the hub cannot be reached; None where it can. Found out once."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=_SECONDS)
    except Exception as error:  # of whichever library it asks with
        return redacted(" ".join(f"{type(error).__name__}: {error}".split()))
    return None


def _fetched(name: str) -> str | None:
    """The folder of what was fetched of a model before; None where nothing was."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(name, file) for file in _FILES)
    return next((str(Path(path).parent) for path in found if isinstance(path, str)), None)
