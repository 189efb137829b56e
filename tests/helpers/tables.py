"""The same small images with their labels in the files of several libraries."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from PIL import Image

SIZES = {"train": 17, "test": 6}
NAMES = ("ant", "bee", "cat")


def images(part: str) -> np.ndarray:
    """(N, 3, 6, 5) uint8."""
    return np.random.default_rng(len(part)).integers(0, 256, (SIZES[part], 3, 6, 5), dtype=np.uint8)


def labels(part: str) -> list[int]:
    return [index % 3 for index in range(SIZES[part])]


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file, "png")
    return file.getvalue()


def write_npy(folder: Path) -> None:
    folder.mkdir(parents=True)
    for part in SIZES:
        np.save(folder / f"{part}_images.npy", images(part))
        np.save(folder / f"{part}_labels.npy", np.array(labels(part)))


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))


def write_shards(folder: Path) -> None:
    """Two shards of the training part, one of the test part."""
    folder.mkdir(parents=True)
    for part, count in SIZES.items():
        members = [
            (f"{index:04}.{ending}", content)
            for index in range(count)
            for ending, content in (
                ("png", png(images(part)[index])),
                ("cls", f"{labels(part)[index]}\n".encode()),
            )
        ]
        halves = (members[:18], members[18:]) if part == "train" else (members,)
        for shard, half in enumerate(halves):
            write_tar(folder / f"{part}-{shard:03}.tar", half)


def write_parquet(folder: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    folder.mkdir(parents=True)
    for part in SIZES:
        pixels = [{"bytes": png(image), "path": None} for image in images(part)]
        parquet.write_table(
            pyarrow.table({"image": pixels, "label": labels(part)}), folder / f"{part}.parquet"
        )


def write_hugging_face(folder: Path) -> None:
    import datasets

    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=list(NAMES)))
    parts = {
        part: datasets.Dataset.from_dict(
            {
                "image": [Image.fromarray(image.transpose(1, 2, 0)) for image in images(part)],
                "label": labels(part),
            },
            features=features,
        )
        for part in SIZES
    }
    datasets.DatasetDict(parts).save_to_disk(str(folder))


WRITE: dict[str, Callable[[Path], None]] = {
    "npy": write_npy,
    "webdataset": write_shards,
    "parquet": write_parquet,
    "hf": write_hugging_face,
}
"""By the name of the source that reads it."""
