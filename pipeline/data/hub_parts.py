"""The parts of a dataset of Hugging Face's hub, or of a folder that the library `datasets` reads, by its name: no code
of it is run, and no network is waited for that is not there.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from decant.pipeline.errors import DataError
from decant.pipeline.support.hub import is_path, unreachable
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import in_words, optional

NAME = "hf"


def is_hugging_face(name: str) -> bool:
    """Whether a recipe's `data.name` is `hf` or `hf:NAME`."""
    return name == NAME or name.startswith(f"{NAME}:")


def load_parts(name_of_data: str, setting: str = "data.name") -> Mapping[str, Any]:
    """The parts of a dataset of the hub, `hf:NAME` or `hf:NAME:CONFIG`, or of a folder that `datasets` reads; no code
    of it is run. setting: what messages call the name. Raises DataError.
    """
    optional("datasets", "datasets", DataError)
    from datasets import load_dataset

    name, *config = name_of_data.removeprefix(f"{NAME}:").split(":")
    if not name or len(config) > 1:
        raise DataError(f"{setting} {name_of_data!r}: expected hf:NAME or hf:NAME:CONFIG")
    if name == "pandas":
        raise DataError(
            f"{setting} {name_of_data!r}: reads pickles, which may hold code; write Parquet files, for {setting} = "
            '"parquet"'
        )
    if any(Path(name, file).is_file() for file in ("state.json", "dataset_dict.json")):
        kind = f'{setting} = "hf", data.root' if setting == "data.name" else setting
        raise DataError(f'{setting} {name_of_data!r}: was written by save_to_disk; set {kind} = "{name}"')
    if is_path(name) and not Path(name).exists():
        raise DataError(f"{setting} {name_of_data!r}: there is no such folder")
    # Versions before 4 run a script of the dataset's, or ask on the terminal whether to.
    can_run = "trust_remote_code" in inspect.signature(load_dataset).parameters
    with _without_waiting(name, name_of_data), _quiet(), named(name_of_data):
        parts: Mapping[str, Any] = load_dataset(
            name, *config, **({"trust_remote_code": False} if can_run else {})
        )
    return parts


@contextlib.contextmanager
def _without_waiting(name: str, where: str) -> Iterator[None]:
    """Where the hub cannot be reached, lets the library take what it fetched before, at once. Raises DataError where
    that is nothing.
    """
    from datasets import config

    was_offline = config.HF_HUB_OFFLINE
    reason = "HF_HUB_OFFLINE is set" if was_offline else None
    if not was_offline and not Path(name).exists():
        reason = unreachable()
    config.HF_HUB_OFFLINE = reason is not None
    try:
        yield
    except DataError as error:
        if reason is None or not isinstance(error.__cause__, ConnectionError):
            raise
        raise DataError(
            f"{where}: there is no such folder here, and if it is a dataset of the hub: that cannot be reached "
            f"({reason}), and nothing of that name was fetched before"
        ) from error
    finally:
        config.HF_HUB_OFFLINE = was_offline


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's progress bars where nobody sees them."""
    import datasets

    hide = not sys.stderr.isatty() and not datasets.are_progress_bars_disabled()
    if hide:
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            datasets.enable_progress_bars()


@contextlib.contextmanager
def named(where: str) -> Iterator[None]:
    """Any error of the library as one of data."""
    try:
        yield
    except RAISED as error:
        inner = error.__cause__ if type(error).__name__ == "DatasetGenerationError" else None
        raise DataError(f"{where}: cannot be loaded ({in_words(inner or error)})") from error
