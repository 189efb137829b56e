"""Small runs of every kind, and what a page of each is of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from decant.cache import Store
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.report.page import Section
from decant.pipeline.report.subject import Subject, of_recipe
from decant.pipeline.training.epoch_log import METRICS
from tests.helpers import texts
from tests.helpers.small import CPU


class Samples(list[tuple[NDArray[Any], Any]]):
    """(input, label) with names of the classes; two are called alike, as are two of ImageNet's."""

    classes = ("red", "crane", "crane")


def images(root: str, split: str) -> Samples:
    """8 × 8 pixels of noise, of a colour that says the class; 36 to train on, 18 to test on."""
    random = np.random.default_rng(len(split))
    labels = np.arange(36 if split == "train" else 18) % 3
    pixels = random.integers(0, 150, (len(labels), 3, 8, 8))
    pixels[np.arange(len(labels)), labels] += 60
    return Samples(zip(pixels.astype(np.uint8), labels.tolist(), strict=True))


OWN = (
    f"data.name={__name__}:images",
    "teacher.network={name='mlp', hidden=8, layers=1}",
    "student.network=linear",
)


SHORT = ("teacher.epochs=2", "student.epochs=2", "student.seeds=1")


VIEWS = ("views.count=2", 'views.augment=[{op="pad-crop", padding=1}]')


def made(folder: Path, *words: str, name: str = "digits") -> Subject:
    """Every phase of a recipe, and what a page of it is of."""
    recipe, store = load_recipe(name, [*SHORT, *words]), Store(folder / "caches")
    plan = Plan.of(recipe, folder / "runs", store)
    for each in plan.by_teacher if recipe.settings.cache.from_ is None else ():
        make_teacher(each, CPU)
        cache_logits(each, CPU, print)
    list(train_students(plan, CPU))
    return of_recipe(recipe, folder / "runs", store, CPU)


def noted(folder: Path, lines: Sequence[Any], torn: str = "") -> Any:
    """Something whose folder holds these lines of metrics."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / METRICS).write_text("".join(json.dumps(line) + "\n" for line in lines) + torn, "utf-8")
    return type("Run", (), {"folder": folder})()


def records(section: Section, chart: str) -> list[dict[str, Any]]:
    """What a chart draws."""
    spec = section.charts[chart].to_dict()
    found = spec.get("data") or spec["layer"][-1]["data"]
    return list(found["values"])


def forget(subject: Subject) -> None:
    """Leaves nobody who knows what the teacher's pass took."""
    shutil.rmtree(subject.base / "passes", ignore_errors=True)


def write_images(root: Path, *names: str) -> Path:
    """An image folder with these files in both parts."""
    for part in ("train", "test"):
        for place, name in enumerate(names):
            path = root / part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (80 * (place % 3), 40, 7 * place)).save(path, "PNG")
    return root


FILES = ("cat/b.png", "cat/a.png", "dog/1.png", "cat/more/c.png", "dog/=2.png")


def folder_of(root: Path, *words: str) -> Recipe:
    """A small recipe of an image folder."""
    here = ("data.name=imagefolder", f"data.root={str(root)!r}", "data.pack=never")
    return load_recipe("digits", [*SHORT, *here, "teacher.network=linear", "student.network=linear", *words])


def regression(folder: Path) -> Subject:
    return made(folder, name="regression")


def of_texts(folder: Path) -> Subject:
    pytest.importorskip("transformers", reason="texts need an extra: pip install 'decant-kd[text]'")
    texts.write(folder, train=40, test=20)
    (folder / "tokenizer").mkdir()
    texts.train_tokenizer(folder / "tokenizer")
    small = "{name='bert', hidden=16, layers=1, heads=2, intermediate=32}"
    data = (
        f"data.root={str(folder)!r}",
        f"data.tokenizer={str(folder / 'tokenizer')!r}",
        "data.max_length=16",
    )
    still = ("teacher.warmup_epochs=0", "student.warmup_epochs=0")
    return made(folder, *data, *still, f"teacher.network={small}", f"student.network={small}", name="text")


def ensemble(folder: Path) -> Subject:
    paths = [str(made(folder, *OWN, f"teacher.seed={seed}").cache.path) for seed in (0, 1)]
    return made(folder, *OWN, f"cache.from={paths!r}")


def separate(folder: Path) -> Subject:
    two = (
        "knowledge.network=linear",
        "knowledge.epochs=2",
        "knowledge.warmup_epochs=0",
        "teacher.warmup_epochs=0",
    )
    return made(
        folder, *OWN, *two, "student.warmup_epochs=0", "views.count=1", "views.augment=[]", name="general"
    )


def mixup(folder: Path) -> Subject:
    return made(folder, *OWN, "views.count=2", 'views.augment=[{op="mixup"}]')


def transfer(folder: Path) -> Subject:
    return made(folder, *OWN, "data.transfer.share=0.5")


def unlabelled_transfer(folder: Path) -> Subject:
    return made(folder, *OWN, "data.transfer.share=0.5", "data.transfer.labels=false")


def image_folder(folder: Path) -> Subject:
    recipe = folder_of(write_images(folder / "images", *FILES))
    return made(folder, *recipe.options[1::2], name="digits")


def all_views(folder: Path) -> Subject:
    return made(folder, *OWN, "views.count=all", 'views.augment=[{op="pad-crop", padding=1}, {op="flip"}]')
