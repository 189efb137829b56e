"""Small folders of images, read in each form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import image_folder, load_data
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.errors import DataError

FORMS = ("in memory", "as needed", "packed")


def keep(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the next folder kept in this one of the FORMS."""
    monkeypatch.setattr(image_folder, "MAX_ARRAY_BYTES", 0 if form == "as needed" else 4 << 30)
    monkeypatch.setattr(image_folder, "WORTH_PACKING", 1 if form == "packed" else 1_000)


def read(root: Path, split: Split = "train", pack: Any = "auto", **views: Any) -> LabelledData:
    """A part of the image folder."""
    return load_data(
        DataSettings(name="imagefolder", root=str(root), pack=pack), ViewsSettings(**views), split
    )


def everything(data: LabelledData) -> NDArray[Any]:
    """The inputs of all samples."""
    return data.raw(np.arange(len(data)))


def refusal(root: Path, split: Split = "train", **views: Any) -> str:
    """Why the folder is no data."""
    with pytest.raises(DataError) as caught:
        everything(read(root, split, **views))
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


def pixels(*shape: int) -> NDArray[np.uint8]:
    """Random ones, a function of the shape."""
    return np.random.default_rng(sum(shape)).integers(0, 256, shape).astype(np.uint8)


def write_folder(
    root: Path, shape: tuple[int, int] = (6, 5), parts: tuple[str, ...] = ("train", "test")
) -> Path:
    """Two classes; the last images of train/cat lie in a folder of their own."""
    for part in parts:
        for name in ("cat/b.png", "cat/a.png", "dog/1.png", "dog/2.PNG", "cat/more/c.png", "cat/é日.png"):
            path = root / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = np.random.default_rng(sum(map(ord, part + name))).integers(0, 256, (*shape, 3))
            Image.fromarray(drawn.astype(np.uint8)).save(path, "PNG")
            (path.parent / "notes.txt").write_text("no image")
    return root
