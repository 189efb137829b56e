"""Folders of images as users bring them, through the real command: what Pillow and torchvision take is taken, what is
left out is said, what cannot be right is refused in one line.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decant.cache import differences
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import describe_data, found_images, identity, load_data
from decant.pipeline.data.image_folder import FileData
from decant.pipeline.errors import DataError
from decant.pipeline.phases.fingerprints import data_fingerprint
from decant.pipeline.phases.plan import Plan
from tests.field.conftest import draw, write_recipe
from tests.helpers.commands import decant, only, refused, succeed

LINEAR = '"linear"'


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Three classes, with four images each to train on and four to measure on."""
    return draw(tmp_path / "images", train=4, test=4)


def teach(folder: Path, images: Path, *words: str, **env: str) -> Any:
    """`decant teacher` on a folder of images."""
    recipe = write_recipe(folder, images, LINEAR, "epochs = 1")
    return decant("teacher", "--recipe", recipe, *words, cwd=folder, **env)


def one_line(done: Any) -> str:
    """The one line of a refusal, beside what was said before it."""
    said = refused(done).splitlines()
    assert [line for line in said if line.startswith("decant: ")] == said[-1:], said
    return said[-1]


# Endings


def test_the_endings_that_browsers_and_phones_write_are_read(images: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(images.glob("*/oak/*.png"))):
        Image.open(path).save(path.with_suffix(".JFIF" if number % 2 else ".jpe"), "JPEG", quality=95)
        path.unlink()
    done = teach(tmp_path, images)
    assert "top-1" in succeed(done)
    assert done.stderr == ""


def test_files_that_are_left_out_are_counted_with_their_endings(images: Path, tmp_path: Path) -> None:
    for name in ("00", "01"):
        (images / f"train/oak/{name}.png").rename(images / f"train/oak/{name}.heic")
    (images / "train/elm/LICENCE").write_text("free")
    (images / "train/labels.csv").write_text("")
    (images / "train/elm/.png").write_text("")
    done = teach(tmp_path, images)
    succeed(done)
    assert done.stderr.splitlines() == [
        f"{images / 'train'}: left out 5 of 15 files: 2 .heic (oak/00.heic, …); 1 beside the class folders "
        "(labels.csv); 1 hidden (elm/.png); 1 without an ending (elm/LICENCE)"
    ]


def test_what_systems_leave_behind_is_not_spoken_of(images: Path, tmp_path: Path) -> None:
    before = describe(images).digest()
    for left in ("Thumbs.db", "oak/.DS_Store", "oak/._00.png", "__MACOSX/oak/._00.png", ".git/HEAD"):
        (images / "train" / left).parent.mkdir(parents=True, exist_ok=True)
        (images / "train" / left).write_text("")
    done = teach(tmp_path, images)
    succeed(done)
    assert done.stderr == ""
    assert describe(images).digest() == before


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_class_whose_files_are_all_left_out_is_refused(part: str, images: Path, tmp_path: Path) -> None:
    for path in images.glob(f"{part}/oak/*"):
        path.rename(path.with_suffix(".npy"))
    said = one_line(teach(tmp_path, images))
    assert f"{images / part}: has no image of class oak: its folder has 4 files, 4 .npy" in said


# Classes


def test_an_archive_unpacked_one_folder_too_deep_is_refused(images: Path, tmp_path: Path) -> None:
    for part in ("train", "val"):
        (images / part).rename(images / "inner")
        (images / part).mkdir()
        (images / "inner").rename(images / part / "images")
    said = one_line(teach(tmp_path, images))
    assert "has one class, images, so there is nothing to learn" in said
    assert f"{images / 'train/images'} has the folders ash, elm, oak" in said


def test_a_root_that_lies_one_folder_higher_is_named(images: Path, tmp_path: Path) -> None:
    said = one_line(teach(tmp_path, tmp_path))
    assert said == f"decant: {tmp_path}: has no folder train; {images} has it: set data.root to that"


def test_a_root_without_parts_says_what_it_has(images: Path, tmp_path: Path) -> None:
    (images / "train").rename(images / "Train")
    assert "has no folder train; it has Train, val" in one_line(teach(tmp_path, images))


def test_an_empty_class_to_train_on_is_refused(images: Path, tmp_path: Path) -> None:
    (images / "train/yew").mkdir()
    assert "has no image of class yew: its folder has no file" in one_line(teach(tmp_path, images))


def test_a_part_says_which_class_it_lacks(images: Path, tmp_path: Path) -> None:
    shutil.rmtree(images / "val/elm")
    said = one_line(teach(tmp_path, images))
    assert f"{images / 'val'} has no folder for elm, which {images / 'train'} has; an empty folder" in said
    (images / "val/elm").mkdir()
    done = teach(tmp_path, images)
    succeed(done)
    assert (
        done.stderr.strip() == f"warning: {images / 'val'}: has no image of elm, of which nothing is measured"
    )


@pytest.mark.parametrize("name", ["test", "valid", "validation"])
def test_the_test_part_has_any_of_its_usual_names(name: str, images: Path, tmp_path: Path) -> None:
    (images / "val").rename(images / name)
    done = teach(tmp_path, images)
    succeed(done)
    assert done.stderr == ""


def test_that_a_second_test_part_is_not_used_is_said_and_a_setting_chooses(
    images: Path, tmp_path: Path
) -> None:
    shutil.copytree(images / "val", images / "test")
    done = teach(tmp_path, images)
    succeed(done)
    assert done.stderr.strip() == (
        f'{images}: networks are measured on test; val is not used (data.test = "val" measures on that)'
    )
    on_test = only(tmp_path, "runs/mine/teacher-*/result.json").read_text()
    done = teach(tmp_path, images, "--set", "data.test=val")
    assert "found" in succeed(done), "the same teacher, measured again"
    assert done.stderr == ""
    assert only(tmp_path, "runs/mine/teacher-*/result.json").read_text() != on_test
    said = one_line(teach(tmp_path, images, "--set", "data.test=Val"))
    assert f"{images}: has no folder Val; it has test, train, val" in said
    said = one_line(teach(tmp_path, images, "--set", "data.test=train"))
    assert "data.test: 'train' is what networks are trained on" in said


@pytest.mark.parametrize(
    ("names", "order"),
    [(("1", "2", "10"), "1, 10, 2: the label of 10 is 1"), (("01", "02", "10"), ""), (("1", "2", "x"), "")],
)
def test_class_folders_of_numbers_in_the_order_of_text_are_said(
    names: tuple[str, ...], order: str, images: Path, tmp_path: Path
) -> None:
    for part in ("train", "val"):
        for old, new in zip(("ash", "elm", "oak"), names, strict=True):
            (images / part / old).rename(images / part / new)
    done = teach(tmp_path, images)
    succeed(done)
    said = f"{images}: the names of the classes are numbers in the order of text, as of torchvision: {order}; names"
    assert done.stderr.startswith(said) if order else done.stderr == ""
    assert len(done.stderr.splitlines()) == bool(order), "once, and not for each part"


# Broken files


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b""), "oak/00.png: not a readable image (an empty file)"),
        (lambda path: path.write_bytes(path.read_bytes()[:90]), "oak/00.png: not a readable image ("),
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "run git lfs pull"),
        (
            lambda path: (path.unlink(), path.symlink_to("gone.png")),
            "oak/00.png: a link that leads nowhere, to gone",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_named(damage: Any, says: str, images: Path, tmp_path: Path) -> None:
    damage(images / "train/oak/00.png")
    assert says in one_line(teach(tmp_path, images))


def test_empty_files_are_named_before_anything_is_decoded(images: Path) -> None:
    for path in list(images.glob("train/oak/*.png"))[:2]:
        path.write_bytes(b"")
    with pytest.raises(
        DataError, match=r"oak/0.\.png: not a readable image \(an empty file, as are 1 more\)"
    ):
        describe(images)


# Orientation


def test_a_photograph_stands_upright_in_training_packs_caches_and_predictions(tmp_path: Path) -> None:
    """Pixels that lie on their side, as a phone stores them, and the same ones that were turned before."""
    random, turned = np.random.default_rng(0), Image.Exif()
    turned[0x0112] = 6
    for part, count in (("train", 8), ("val", 4)):
        for label, name in enumerate(("down", "up")):
            for root in ("upright", "lying"):
                (tmp_path / root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 100, (8, 8, 3), dtype=np.uint8)
                pixels[:4] += np.uint8(140 * label)
                pixels[4:] += np.uint8(140 * (1 - label))
                image = Image.fromarray(pixels)
                image.save(tmp_path / "upright" / part / name / f"{number}.png")
                lying = image.transpose(Image.Transpose.ROTATE_90)
                lying.save(tmp_path / "lying" / part / name / f"{number}.png", exif=turned)
    said = []
    for pack in ("never", "always"):
        for root in ("upright", "lying"):
            data = load_data(
                DataSettings(name="imagefolder", root=str(tmp_path / root), pack=pack),
                ViewsSettings(),
                "train",
            )
            said.append(data.raw(np.arange(len(data))))
    assert all(np.array_equal(pixels, said[0]) for pixels in said)
    recipe = write_recipe(tmp_path, tmp_path / "lying", LINEAR, "epochs = 8")
    succeed(decant("teacher", "--recipe", recipe, cwd=tmp_path))
    run = only(tmp_path, "runs/mine/teacher-*")
    for root in ("upright", "lying"):
        for name in ("down", "up"):
            told = succeed(decant("predict", run, f"{root}/val/{name}", "--top", "1", cwd=tmp_path))
            assert len(told.splitlines()) == 4
            assert all(f": {name} " in line for line in told.splitlines()), told


def test_a_cache_of_another_decoder_is_not_taken(images: Path, tmp_path: Path, monkeypatch: Any) -> None:
    of_now = load_data(
        DataSettings(name="imagefolder", root=str(images), pack="always"), ViewsSettings(), "train"
    )
    first = {"data": data_fingerprint(of_now)}
    for form in (type(of_now), FileData):
        monkeypatch.setattr(form, "decoding", None)  # as what was made before orientations were followed
    of_before = {"data": data_fingerprint(of_now)}
    assert [str(difference) for difference in differences(first, of_before, ["data"])] == [
        "data.image_decoder: expected 2, found nothing"
    ]
    recipe = write_recipe(tmp_path, images, LINEAR, "epochs = 1")
    Plan.of(load_recipe(str(tmp_path / recipe)), tmp_path / "runs/mine").teacher_folder.mkdir(parents=True)
    monkeypatch.undo()
    done = decant("cache-logits", "--recipe", recipe, cwd=tmp_path)
    assert "is of images as an older version decoded them" in refused(done).splitlines()[0]
    digits = load_data(DataSettings(name="digits"), ViewsSettings(), "train")
    assert "image_decoder" not in identity(digits), "what is not decoded here keeps its key"


# Grey images, rectangles, paths, predictions


def test_a_folder_is_made_grey_for_a_network_of_one_channel(images: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "def grey(num_classes, input_shape):\n"
        "    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, num_classes))\n"
    )
    grey = ("--set", "teacher.network=mine:grey")
    assert "views.channels = 1 brings images to that" in one_line(teach(tmp_path, images, *grey))
    succeed(teach(tmp_path, images, *grey, "--set", "views.channels=1"))
    run = only(tmp_path, "runs/mine/teacher-*")
    assert json.loads((run / "result.json").read_text())["network"]["input_shape"] == [1, 8, 8]
    succeed(decant("predict", run, "images/val/oak", cwd=tmp_path))


def test_digits_are_made_rgb_for_a_network_of_three_channels() -> None:
    plain = load_data(DataSettings(name="digits"), ViewsSettings(), "test")
    rgb = load_data(DataSettings(name="digits"), ViewsSettings(channels=3), "test")
    assert rgb.input_shape == (3, 8, 8)
    assert np.array_equal(rgb.raw(np.arange(5)), np.repeat(plain.raw(np.arange(5)), 3, axis=1))


def test_a_rectangle_is_a_size(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", train=2, test=2)
    for path in images.glob("*/*/*.png"):
        Image.open(path).resize((12, 7)).save(path)
    succeed(teach(tmp_path, images, "--set", "views.size=[7, 12]"))
    assert load_data(
        DataSettings(name="imagefolder", root=str(images)), ViewsSettings(size=(4, 6)), "train"
    ).input_shape == (3, 4, 6)
    said = refused(teach(tmp_path, images, "--set", "views.size=[7, 12]", "--set", "views.resize=9"))
    assert "views.resize: is of a square `size`" in said


@pytest.mark.parametrize(
    ("root", "env"),
    [
        ("~/my images", "HOME"),
        ("$SCRATCH/my images", "SCRATCH"),
        ("${SCRATCH}/my images", "SCRATCH"),
        ("my images", "NOTHING"),
    ],
)
def test_home_and_variables_are_replaced_in_paths(root: str, env: str, images: Path, tmp_path: Path) -> None:
    images.rename(tmp_path / "my images")
    succeed(teach(tmp_path, images, "--set", f"data.root={root}", **{env: str(tmp_path)}))


def test_a_variable_that_is_not_set_is_named(images: Path, tmp_path: Path) -> None:
    said = one_line(teach(tmp_path, images, "--set", "data.root=$NOT_SET_HERE/images"))
    assert "data.root: $NOT_SET_HERE/images: the variable NOT_SET_HERE is not set" in said
    assert "--runs: $NOT_SET_HERE/runs: the variable" in one_line(
        teach(tmp_path, images, "--runs=$NOT_SET_HERE/runs")
    )
    (tmp_path / "$odd").mkdir()
    images.rename(tmp_path / "$odd/images")
    succeed(teach(tmp_path, images, "--set", "data.root=$odd/images"))


def test_a_relative_root_says_where_it_was_looked_for(images: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, Path("images"), LINEAR, "epochs = 1")
    (tmp_path / "sub").mkdir()
    said = one_line(decant("teacher", "--recipe", f"../{recipe}", cwd=tmp_path / "sub"))
    assert f"data.root: no such folder: images (looked for in {tmp_path / 'sub'}, the current folder)" in said


def test_a_folder_is_predicted_with_what_is_left_out(images: Path, tmp_path: Path) -> None:
    succeed(teach(tmp_path, images))
    run = only(tmp_path, "runs/mine/teacher-*")
    (images / "val/oak/notes.txt").write_text("")
    done = decant("predict", run, "images/val", cwd=tmp_path)
    assert len(succeed(done).splitlines()) == 12
    assert done.stderr.strip() == "images/val: left out 1 of 13 files: 1 .txt (oak/notes.txt)"
    (tmp_path / "empty").mkdir()
    assert "empty: a folder without images" in refused(decant("predict", run, "empty", cwd=tmp_path))


# Links


def describe(root: Path) -> Any:
    return describe_data(DataSettings(name="imagefolder", root=str(root)), ViewsSettings(), "train")


def test_links_are_followed_and_a_circle_is_not(images: Path) -> None:
    (images / "train/oak/more").symlink_to(images / "train/elm", target_is_directory=True)
    (images / "train/elm/circle").symlink_to(images / "train/elm", target_is_directory=True)
    found = found_images.images_below(images / "train/oak")
    assert len(found.images) == 8
    circle = images / "train/oak/more/circle"
    assert found.left_out == {"links to a folder that they lie in": [circle]}
