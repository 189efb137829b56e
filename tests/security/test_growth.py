"""What is done for many files, lines or classes grows no faster than their number: calls are counted, not seconds."""

from __future__ import annotations

import cProfile
import json
import os
import pstats
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from decant.cache import Store, leftovers
from decant.pipeline.cli.cache.listing import _listed
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.image_folder import listed_images
from decant.pipeline.data.image_pack import IN_STORE, is_pack
from decant.pipeline.data.kept_classes import kept_columns
from decant.pipeline.data.labels import places_of
from decant.pipeline.report.subject import names_of
from decant.pipeline.report.told_apart import told_apart
from decant.pipeline.runs.result import find_results
from decant.pipeline.status.live_progress import epoch_progress
from decant.pipeline.training.epoch_log import METRICS, keep_epochs, read_epochs
from tests.helpers import small
from tests.helpers.caches import build, manifest


def store_of(folder: Path, count: int) -> Store:
    folder.mkdir()
    one = build(folder / f"a-{0:016x}.h5", manifest(3, 5, 1))
    os.utime(one, (0, 0))
    for number in range(1, count):
        os.link(one, folder / f"a-{number:016x}.h5")
    return Store(folder)


def caches(folder: Path, count: int) -> Callable[[], object]:
    """A listing, a search for other views, and what gc lists."""
    store = store_of(folder, count)

    def work() -> None:
        [_listed(path) for path in store.paths()]
        store.with_other_views(manifest(3, 5, 2))
        store.published(manifest(3, 5, 1))
        assert len(list(leftovers(store, 30, {IN_STORE: is_pack}))) == count

    return work


def images(folder: Path, count: int) -> Callable[[], object]:
    """The samples of a folder, and the key of its pack."""
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            (folder / part / name).mkdir(parents=True)
            Image.new("RGB", (2, 2)).save(folder / part / name / "0.png")
    for number in range(1, count):
        os.link(folder / "train/cat/0.png", folder / f"train/{('cat', 'dog')[number % 2]}/{number}.png")
    settings = DataSettings(name="imagefolder", root=str(folder))
    return lambda: listed_images(settings, ViewsSettings(), "train").pixels_key()


def epochs(folder: Path, count: int) -> Callable[[], object]:
    """What a status, a report and a resumed training read of a log."""
    folder.mkdir()
    line = {"loss": 0.5, "lr": 0.1, "seconds": 1.0, "test": {"top1": 0.5}}
    lines = (json.dumps({"epoch": number + 1, **line}) for number in range(count))
    (folder / METRICS).write_text("".join(f"{line}\n" for line in lines))
    (folder / "checkpoint.pt").touch()

    def work() -> None:
        assert len(read_epochs(folder)) == count
        epoch_progress(folder, count + 1)
        keep_epochs(folder, count)

    return work


def runs(folder: Path, count: int) -> Callable[[], object]:
    """Finished networks below a folder."""
    result = small.teach(folder, 'teacher.network="linear"', "teacher.epochs=1")
    for number in range(1, count):
        (folder / f"runs/{number}").mkdir()
        os.link(result.folder / "result.json", folder / f"runs/{number}/result.json")
        os.link(result.folder / "recipe.toml", folder / f"runs/{number}/recipe.toml")
    return lambda: list(find_results(folder / "runs", small.recipe().settings.data))


def classes(folder: Path, count: int) -> Callable[[], object]:
    """Names looked up among names; what runs in C is counted by the comparisons that it makes."""
    names = [Counted(f"class {number}") for number in range(count)]

    def work() -> None:
        Counted.compared = 0
        places_of(names)
        kept_columns(names, count, names, count, names)
        for _ in range(Counted.compared):
            nothing()

    return work


class Counted(str):
    """A name that counts how often it is compared."""

    compared = 0
    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        Counted.compared += 1
        return str.__eq__(self, other)

    __hash__ = str.__hash__


def nothing() -> None:
    """A call that is counted."""


def calls(work: Callable[[], object]) -> int:
    """How many functions `work` calls."""
    profile = cProfile.Profile()
    profile.runcall(work)
    return int(pstats.Stats(profile).total_calls)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("prepare", "count"), [(caches, 10), (images, 100), (epochs, 100), (runs, 10), (classes, 200)]
)
def test_twice_as_many_take_twice_as_many_steps(
    prepare: Callable[[Path, int], Callable[[], object]], count: int, tmp_path: Path
) -> None:
    steps = []
    for factor in (1, 2, 4):
        work = prepare(tmp_path / str(factor), factor * count)
        work()  # what is imported or compiled once
        steps.append(calls(work))
    first, second = np.diff(steps).tolist()
    assert second <= 2.2 * first, (
        f"{prepare.__name__}: {steps} calls for {count}, twice and four times as many"
    )


def test_a_chart_draws_no_name_of_any_length() -> None:
    """Vega takes the square of its length for it; names that differ behind what is drawn get a mark of their own."""
    kinds = ["A" * 100_000 + end for end in "xy"]
    folders = [(Path(f"student-{end}", "seed-0"), Path(f"student-{end}")) for end in "xy"]
    told = told_apart([f"linear, {kind}" for kind in kinds], folders)
    rows = [
        SimpleNamespace(name="linear", kind=kind, told_by=words)
        for kind, words in zip(kinds, told, strict=True)
    ]
    names = names_of(rows)  # type: ignore[arg-type]
    assert max(map(len, names)) < 400
    assert len(set(names)) == 2
