"""What ranks and parts read of their data, counted in each of them."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from decant.cache import Store
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import image_folder, listed_reader, load_data, text, text_pack
from decant.pipeline.data.samples import check_unchanged
from decant.pipeline.errors import DataError
from decant.pipeline.phases import teacher_pass
from decant.pipeline.phases.cache_logits import cache_part
from decant.pipeline.phases.cache_ranks import cache_with_ranks
from decant.pipeline.phases.plan import Plan
from decant.pipeline.ranks.job import join
from tests.helpers.small import CPU

COUNT = 120
SIZE = 64  # of images, five of which are a block of a pack
_MOST_SECONDS = 60.0
"""Until a rank begins."""
SETTINGS = (
    "data.name=imagefolder",
    "teacher.network=linear",
    "teacher.epochs=1",
)


def write(folder: Path) -> Path:
    """Images, texts, and where one's own samples come from."""
    for part, count in (("train", COUNT), ("test", 4)):
        for index in range(count):
            path = folder / "images" / part / "ab"[index % 2] / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = np.random.default_rng(abs(index - 1000 * (part == "test"))).integers(
                0, 256, (SIZE, SIZE, 3)
            )
            Image.fromarray(drawn.astype(np.uint8)).save(path)
    rows = [f"word {'other ' * (index % 7)}{index},{'ab'[index % 2]}" for index in range(COUNT)]
    (folder / "texts").mkdir()
    (folder / "texts" / "train.csv").write_text("\n".join(["text,label", *rows]))
    return folder


class Counted:
    """How many samples this process has read of each kind."""

    def __init__(self) -> None:
        self.read = {"images": 0, "texts": 0, "own": 0}
        decode = listed_reader.decode

        def counting(*given: Any) -> Any:
            self.read["images"] += 1
            return decode(*given)

        image_folder.decode = listed_reader.decode = counting  # type: ignore[assignment]
        text.load_tokenizer = lambda *given: Words(self)  # type: ignore[assignment]
        text_pack._LIBRARIES = ()


class Words:
    """A tokenizer whose tokens are the lengths of words."""

    pad_token_id = 0
    backend_tokenizer = SimpleNamespace(to_str=lambda: "words")

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def __len__(self) -> int:
        return 50

    def __call__(self, some: Sequence[str], truncation: bool, max_length: int) -> dict[str, list[list[int]]]:
        self._counted.read["texts"] += len(some)
        return {"input_ids": [[len(word) for word in text.split()][:max_length] for text in some]}


class Own:
    """Float inputs; each label is a class, two of them none."""

    def __init__(self, counted: Counted) -> None:
        self._counted = counted

    def __len__(self) -> int:
        return COUNT

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        self._counted.read["own"] += 1
        value = np.random.default_rng(index).random(5000).astype(np.float32)  # three are a block
        return value, None if index in (7, 70) else index % 3


class OwnOfRank(Own):
    """Each rank has other labels, or other inputs."""

    def __init__(self, rank: int, other: str) -> None:
        super().__init__(Counted())
        self._of_labels, self._of_inputs = (rank if other == each else 0 for each in ("labels", "inputs"))

    def __getitem__(self, index: int) -> tuple[Any, int | None]:
        time.sleep(0.005)  # or a rank may have read all of them before the other begins
        value, _ = super().__getitem__(index)
        return value + self._of_inputs, (index + self._of_labels) % 3


_own: list[Own] = []


def own(root: str, split: str) -> Own:
    """A dataset of the user's."""
    return _own[0]


def read(folder: Path, store: str) -> None:
    """Reads all three; writes into FOLDER/read-STORE-RANK.json how many samples, and what came of it."""
    os.environ["DECANT_STORE"] = str(folder / store)
    job, counted = join(), Counted()
    _own[:] = [Own(counted)]
    found = {}
    for kind, settings in {
        "images": DataSettings(name="imagefolder", root=str(folder / "images")),
        "texts": DataSettings(name="text", root=str(folder / "texts"), tokenizer="any", max_length=500),
        "own": DataSettings(name="tests.ranks.reading:own"),
    }.items():
        data = load_data(settings, ViewsSettings(), "train")
        content = data.raw(np.arange(COUNT))
        arrays = [*content.values()] if isinstance(content, dict) else [content]
        sums = [int(array.astype(np.float64).sum()) for array in (*arrays, data.labels)]
        found[kind] = [counted.read[kind], data.digest(), sums]
    rank = 0 if job is None else job.rank
    (folder / f"read-{store}-{rank}.json").write_text(json.dumps(found))
    if job is not None:
        job.gather("end", "", "its end")  # rank 0 has the store, which others may still need


def begin(folder: Path, store: str) -> None:
    """Reads the first of the images while most can't be decoded yet, and then all; writes into FOLDER/begun-STORE-RANK
    the sum of all.
    """
    os.environ["DECANT_STORE"] = str(folder / store)
    job, decode, may_go_on = join(), listed_reader.decode, threading.Event()

    def halting(path: Path, *given: Any) -> Any:
        if int(path.stem) >= COUNT // 2 and not list((folder / store).glob("packs/*.pack")):
            assert may_go_on.wait(_MOST_SECONDS)
        return decode(path, *given)

    image_folder.decode = listed_reader.decode = halting
    settings = DataSettings(name="imagefolder", root=str(folder / "images"), pack="always")
    data = load_data(settings, ViewsSettings(), "train", decode="packs ahead")
    data.raw(np.arange(20))
    may_go_on.set()
    content = data.raw(np.arange(COUNT))
    check_unchanged(data, checksums=True)
    rank = 0 if job is None else job.rank
    (folder / f"begun-{store}-{rank}").write_text(str(content.astype(np.float64).sum()))
    if job is not None:
        job.gather("end", "", "its end")


def read_other(folder: Path, other: str) -> None:
    """Reads a dataset of which ranks have other labels, or inputs; writes into FOLDER/OTHER-RANK what is said, or the
    digest.
    """
    os.environ["DECANT_STORE"] = str(folder / other)
    job = join()
    assert job is not None
    _own[:] = [OwnOfRank(job.rank, other)]
    try:
        said = load_data(DataSettings(name="tests.ranks.reading:own"), ViewsSettings(), "train").digest()
    except DataError as error:
        said = str(error)
    (folder / f"{other}-{job.rank}").write_text(said)
    job.gather("end", "", "its end")


def plan(folder: Path, store: str, **how: Any) -> Plan:
    """Of a cache of the images, in batches that do not end where blocks of a pack do."""
    os.environ["DECANT_STORE"] = str(folder / store)
    settings = (*SETTINGS, f"data.root={folder / 'images'}", "cache.batch_size=8")
    return Plan.of(load_recipe("digits", settings), folder / "runs", Store(folder / store), **how)


def cache(folder: Path, store: str, part: tuple[int, int] | None) -> None:
    """Computes a part, or what this rank computes, of the cache; writes how many images were decoded for it."""
    job, counted = join(), Counted()
    teacher_pass.default_workers = lambda lazy: 0  # they would count for themselves
    planned = plan(folder, store, decode="as needed")
    if part is not None:
        cache_part(planned, CPU, part)
    elif job is not None:
        cache_with_ranks(job, planned, CPU)
    number = part[0] if part is not None else 0 if job is None else job.rank
    (folder / f"decoded-{store}-{number}").write_text(str(counted.read["images"]))
    if job is not None:
        job.gather("end", "", "its end")  # the store of these ranks ends with rank 0


def whole(folder: Path, store: str) -> None:
    """Reads the pack as students do; writes how many images were decoded for it."""
    os.environ["DECANT_STORE"], counted = str(folder / store), Counted()
    settings = DataSettings(name="imagefolder", root=str(folder / "images"), pack="always")
    data = load_data(settings, ViewsSettings(), "train")
    assert isinstance(data, image_folder.PackedData)
    assert data.raw(np.arange(COUNT)).shape == (COUNT, 3, SIZE, SIZE)
    (folder / f"whole-{store}").write_text(str(counted.read["images"]))
