"""Every way to train on the wrong logits that people have met, tried for real: each is refused, naming what differs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file

from decant.cache import LogitCache, MismatchError, NewerFormatError, Store
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.errors import NotMadeError
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import WEIGHTS
from tests.helpers.caches import repair_checksums, reseal
from tests.helpers.small import CPU

RECIPE = """
[data]
name = "imagefolder"
root = "images"
[views]
count = 2
augment = [{ op = "pad-crop", padding = 1 }]
[teacher]
network = { name = "conv", width = 2 }
epochs = 1
lr = 0.01
[student]
network = "linear"
epochs = 1
"""


class Place:
    """A folder with images, a recipe, its teacher and its cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "r.toml").write_text(RECIPE.replace('"images"', f'"{folder / "images"}"'))
        random = np.random.default_rng(0)
        for part in ("train", "test"):
            for name in ("cat", "dog", "eel"):
                (folder / "images" / part / name).mkdir(parents=True)
                for index in range(4):
                    pixels = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / "images" / part / name / f"{index}.bmp")
        self.teacher, _ = make_teacher(Plan.of(self.recipe(), folder / "runs"), CPU)
        self.cache = self.build()

    @property
    def train(self) -> Path:
        return self.folder / "images/train"

    def recipe(self, *overrides: str) -> Recipe:
        return load_recipe(str(self.folder / "r.toml"), overrides)

    def build(self, *overrides: str) -> LogitCache:
        store = Store(self.folder / "store")
        return cache_logits(Plan.of(self.recipe(*overrides), self.folder / "runs", store), CPU, print).cache

    def study(self, *overrides: str) -> None:
        """Phase two with `overrides`."""
        store = Store(self.folder / "store")
        list(
            train_students(
                Plan.of(self.recipe(*overrides), self.folder / "runs", store), CPU, check_inputs="all"
            )
        )

    def study_given(self, *overrides: str) -> None:
        """Phase two with the cache given by its path, whatever its key."""
        self.study(f"cache.from={str(self.cache.path)!r}", *overrides)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A place to spoil."""
    return Place(tmp_path)


def another_teacher(place: Place) -> None:
    make_teacher(Plan.of(place.recipe("teacher.seed=1"), place.folder / "runs"), CPU)
    place.study("teacher.seed=1")


def a_teacher_one_weight_apart(place: Place) -> None:
    state = load_file(place.teacher.folder / WEIGHTS)
    name = next(name for name in state if name.endswith("weight"))
    state[name].view(-1)[0] += 1e-6
    save_file(state, place.folder / "apart.safetensors")
    apart = (f"teacher.weights={str(place.folder / 'apart.safetensors')!r}", "teacher.epochs=0")
    make_teacher(Plan.of(place.recipe(*apart), place.folder / "runs"), CPU)
    place.study(*apart)


def other_data(place: Place) -> None:
    place.study_given("data.name=digits", "views.size=8", "views.count=2")


def reordered_data(place: Place) -> None:
    (place.train / "cat/0.bmp").rename(place.train / "cat/9.bmp")
    place.study_given()


def grown_data(place: Place) -> None:
    shutil.copy(place.train / "cat/0.bmp", place.train / "cat/4.bmp")
    place.study_given()


def shrunk_data(place: Place) -> None:
    (place.train / "eel/3.bmp").unlink()
    place.study_given()


def relabelled_data(place: Place) -> None:
    (place.train / "dog/3.bmp").rename(place.train / "cat/4.bmp")
    place.study_given()


def another_class_order(place: Place) -> None:
    for part in ("train", "test"):
        (place.folder / "images" / part / "eel").rename(place.folder / "images" / part / "ape")
    place.study_given()


def other_pixels_in_a_file_of_the_same_size(place: Place) -> None:
    path = place.train / "dog/2.bmp"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1  # a pixel in the middle, which no crop loses
    path.write_bytes(content)
    place.study_given()


def a_newer_format(place: Place) -> None:
    content = bytearray(place.cache.path.read_bytes())
    at = content.index(b"format_version") + len("format_version")
    one = content.index((1).to_bytes(8, "little"), at)
    content[one] = 3
    header = int.from_bytes(content[-40:-32], "little")
    repair_checksums(content, header)
    reseal(content, header)
    place.cache.path.chmod(0o644)
    place.cache.path.write_bytes(content)
    place.study_given()


def with_settings(*overrides: str) -> Callable[[Place], None]:
    def study(place: Place) -> None:
        place.study_given(*overrides)

    return study


def computed(*overrides: str) -> Callable[[Place], None]:
    def study(place: Place) -> None:
        place.study(*overrides)

    return study


CASES: dict[str, tuple[Callable[[Place], None], type[Exception], str]] = {
    "another teacher": (
        another_teacher,
        NotMadeError,
        r"teacher\.weights_sha256: expected '\w+', found '\w+'",
    ),
    "a teacher one weight apart": (
        a_teacher_one_weight_apart,
        NotMadeError,
        r"teacher\.weights_sha256: expected",
    ),
    "other data": (other_data, MismatchError, r"data\.name: expected 'digits', found 'imagefolder'"),
    "reordered data": (reordered_data, MismatchError, r"data\.sha256: expected '\w+', found '\w+'"),
    "grown data": (grown_data, MismatchError, r"data\.length: expected 13, found 12"),
    "shrunk data": (shrunk_data, MismatchError, r"data\.length: expected 11, found 12"),
    "relabelled data": (relabelled_data, MismatchError, r"data\.sha256: expected '\w+', found '\w+'"),
    "another class order": (
        another_class_order,
        MismatchError,
        r"data\.classes\[0\]: expected 'ape', found 'cat'",
    ),
    "other pixels": (
        other_pixels_in_a_file_of_the_same_size,
        MismatchError,
        r"sample 6, view \d: the input is not",
    ),
    "another seed of views": (
        with_settings("views.seed=5"),
        MismatchError,
        r"views\.seed: expected 5, found 0",
    ),
    "another count of views": (
        with_settings("views.count=3"),
        MismatchError,
        r"views\.count: expected 3, found 2",
    ),
    "another augmentation": (
        with_settings('views.augment=[{op="pad-crop", padding=2}]'),
        MismatchError,
        r"views\.augment\[0\]\.padding: expected 2, found 1",
    ),
    "another size": (
        with_settings("views.size=16"),
        MismatchError,
        r"views\.shape\[1\]: expected 16, found 8",
    ),
    "another precision": (
        computed("cache.precision=bfloat16"),
        NotMadeError,
        r"encoding\.teacher_precision: expected 'bfloat16', found 'float32'",
    ),
    "another dtype": (
        computed("cache.dtype=float32"),
        NotMadeError,
        r"encoding\.dtype: expected 'float32', found",
    ),
    "a newer format": (
        a_newer_format,
        NewerFormatError,
        r"format_version: read up to 2, found 3",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_training_on_the_wrong_logits_is_refused(case: str, place: Place) -> None:
    misuse, error, message = CASES[case]
    with pytest.raises(error, match=message):
        misuse(place)
    assert not list(place.folder.glob("runs/**/student-*kd*/**/result.json")), (
        "a student was trained all the same"
    )


def test_the_right_cache_is_taken(place: Place) -> None:
    """So that none of the above is refused for another reason."""
    place.study_given()
    place.study()
    assert len(list(place.folder.glob("runs/student-*kd*/seed-0/result.json"))) == 1
