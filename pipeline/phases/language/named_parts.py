"""The parts that the texts of a recipe have by name: splits of a dataset, or files and folders side by side."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from decant.pipeline.corpus.sources import ENDINGS, Source, StoredRows
from decant.pipeline.data.hub_parts import load_parts
from decant.pipeline.support.notices import say_once

TRAIN = "train"
_OF_HUB = "hf:"
_SHARD = re.compile(r"(.+?)[-_.]\d+(-of-\d+.*)?")


@dataclass(frozen=True)
class Named:
    """Parts by name; none where the texts are one corpus."""

    parts: Mapping[str, Source]
    is_dataset: bool = False
    """Whether they are splits of a dataset, which is never one corpus."""
    left_out: Sequence[str] = ()
    """Files and folders that have the name of a part, and are none of it."""


def named_parts(root: str, train: str | None = None, others: Collection[str | None] = ()) -> Named:
    """The parts of `data.root`: of a dataset of Hugging Face's hub, of what `save_to_disk` wrote of several splits, or
    of a folder that has texts called train, or `train` if it is given. A file that `train` or one of `others` names
    whole, as test_2 does test_2.jsonl, is a part, and no shard of one. Raises DataError for a dataset that cannot be
    loaded.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test.parquet"):
    ...     Path(folder.name, name).touch()
    >>> {name: type(files).__name__ for name, files in named_parts(folder.name).parts.items()}
    {'test': 'PosixPath', 'train': 'list'}
    >>> named_parts(folder.name, train="test_sft").parts
    {}
    >>> folder.cleanup()
    """
    folder = Path(root)
    if root.startswith(_OF_HUB) and not folder.exists():
        parts = load_parts(root, "data.root")
        return Named({name: StoredRows(rows, f"{root}: {name}") for name, rows in parts.items()}, True)
    if not folder.is_dir():
        return Named({})
    if (folder / "dataset_dict.json").is_file():
        return Named({path.parent.name: path.parent for path in sorted(folder.glob("*/state.json"))}, True)
    found, left_out = _of_folder(folder, {train, *others})
    if (train or TRAIN) in found:
        return Named(found, left_out=left_out)
    _say_parts_below(folder, train or TRAIN)
    return Named({})


def _of_folder(folder: Path, named: Collection[str | None] = ()) -> tuple[dict[str, Source], list[str]]:
    """The parts by name, and what of them is left out: NAME.jsonl is the part alone, before files NAME-….jsonl. Files
    of the names in `named` are no shards.
    """
    whole, shards = defaultdict[str, list[Path]](list), defaultdict[str, list[Path]](list)
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or path.suffix in ENDINGS):
            continue
        name = path.stem if path.suffix in ENDINGS else path.name
        shard = None if path.is_dir() or name in named else _SHARD.fullmatch(name)
        (shards[shard[1]] if shard else whole[name]).append(path)
    left_out = [path.name for name, paths in whole.items() for path in [*paths[1:], *shards.get(name, [])]]
    found: dict[str, Source] = {**shards, **{name: paths[0] for name, paths in whole.items()}}
    return dict(sorted(found.items())), left_out


def _say_parts_below(folder: Path, train: str) -> None:
    """Says where a folder in it has parts, as `data` of what was downloaded from the hub."""
    for inner in sorted(folder.iterdir()):
        if inner.is_dir() and not inner.name.startswith("."):
            try:
                found, _ = _of_folder(inner)
            except OSError:  # it may not be read
                continue
            if train in found and len(found) > 1:
                say_once(
                    f"{folder}: is one corpus, of which a share is measured on; {inner} has the parts "
                    f'{", ".join(found)}: data.root = "{inner}" uses them'
                )
