"""Arrays of NumPy, `npy`: `root/train_images.npy` with `root/train_labels.npy`, and the like."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.array_files import read_table
from decant.pipeline.data.external import from_dataset
from decant.pipeline.data.part_names import listed, part_names, say_unused
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.errors import DataError

_INPUTS = ("{}_images", "{}_inputs", "{}_x", "x_{}", "X_{}", "{}/images", "{}/inputs", "{}/x")
_LABELS = ("{}_labels", "{}_targets", "{}_y", "y_{}", "Y_{}", "{}/labels", "{}/targets", "{}/y")


def array_folder(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """Inputs (N, C, H, W) uint8, or (N, F) floats, and labels (N,) or (N, T), each in a .npy file of the part; they are
    mapped, and never unpickled. Images (N, H, W, C) or (N, H, W) need `data.axes = "HWC"`.

    Raises DataError where one of them is missing, could be several files, or has another length than the other.
    """
    root, names = Path(settings.root), part_names(settings, split)
    if not root.is_dir():
        raise DataError(f"data.root: no such folder: {root}")
    there = [name for name in names if _found(root, name, _INPUTS)]
    say_unused(root, there)
    part = there[0] if there else names[0]
    inputs, labels = (
        _read(root, part, what, stems) for what, stems in (("inputs", _INPUTS), ("labels", _LABELS))
    )
    if len(inputs) != len(labels):
        raise DataError(f"{root}: {part}: {len(inputs):,} inputs, and {len(labels):,} labels")
    return from_dataset(_Arrays(inputs, labels), (), settings, views, split)


class _Arrays:
    def __init__(self, inputs: NDArray[Any], labels: NDArray[Any]) -> None:
        self._inputs, self.targets = inputs, np.asarray(labels)

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: int) -> tuple[NDArray[Any], Any]:
        return np.asarray(self._inputs[index]), self.targets[index]


def _found(root: Path, part: str, stems: tuple[str, ...]) -> list[Path]:
    # Where names differ in case alone, a file is one, and not two.
    paths = {path for stem in stems if (path := root / f"{stem.format(part)}.npy").is_file()}
    return sorted({path.resolve(): path for path in paths}.values())


def _read(root: Path, part: str, what: str, stems: tuple[str, ...]) -> NDArray[Any]:
    found = _found(root, part, stems)
    if len(found) != 1:
        usual = f"{stems[0].format(part)}.npy"
        could = (
            f"several files could be the {what}: {listed(path.name for path in found)}"
            if found
            else f"no {usual}"
        )
        raise DataError(
            f"{root}: {part}: {could} ({', '.join(stem.format(part) for stem in stems[1:5])} are taken too)"
        )
    array = read_table(str(found[0]))
    if not array.ndim:
        raise DataError(f"{found[0]}: is a single value, and {what} are (N, …)")
    return array
