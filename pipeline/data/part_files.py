"""The files of a part: `root/train.ENDING`, `root/train-….ENDING`, or all of `root/train/`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from decant.pipeline.config.settings import DataSettings
from decant.pipeline.data.found_images import is_litter
from decant.pipeline.data.part_names import part_names, say_unused
from decant.pipeline.data.samples import Split
from decant.pipeline.errors import DataError


def find_files(settings: DataSettings, split: Split, ending: str) -> list[Path]:
    """The files of a part in the order of their names; of several that could be the test part the first, which is said.
    Raises DataError where there is none.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("train-1.tar", "train-0.tar", "val.tar", "training.tar"):
    ...     Path(folder.name, name).touch()
    >>> settings = DataSettings(name="webdataset", root=folder.name)
    >>> [path.name for path in find_files(settings, "train", ".tar")]
    ['train-0.tar', 'train-1.tar']
    >>> [path.name for path in find_files(settings, "test", ".tar")]
    ['val.tar']
    >>> folder.cleanup()
    """
    root, names = Path(settings.root), part_names(settings, split)
    if not root.is_dir():
        raise DataError(f"data.root: no such folder: {root}")
    there = {name: found for name in names if (found := _files_of(root, name, ending))}
    if there:
        say_unused(root, list(there))
        return next(iter(there.values()))
    name = names[0]
    raise DataError(
        f"{root}: has no {name}{ending}, no {name}-…{ending} and no {name}/ with such files"
        f"{f'; nor any of {_others(names)}' if len(names) > 1 else ''}"
    )


def _files_of(root: Path, name: str, ending: str) -> list[Path]:
    beside = [
        path
        for path in root.iterdir()
        if path.name.endswith(ending) and path.name.removesuffix(ending).startswith((f"{name}-", f"{name}_"))
    ]
    alone = root / f"{name}{ending}"
    inside = [path for path in (root / name).glob(f"*{ending}") if path.is_file()]
    found = [alone] if alone.is_file() else beside or inside
    return sorted(path for path in found if not is_litter(path.name))


def _others(names: Sequence[str]) -> str:
    return ", ".join(names[1:])
