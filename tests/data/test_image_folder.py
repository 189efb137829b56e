"""Image folders: the same samples and pixels in memory, as needed, and from a pack; and when there is a pack."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from decant.pipeline.errors import DataError
from tests.helpers.folders import FORMS, everything, keep, pixels, read, refusal, write_folder


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How an image folder that is `read` without naming `pack` is kept."""
    keep(request.param, monkeypatch)
    return request.param


def test_a_folder_is_its_images_by_class_in_the_order_of_their_names(tmp_path: Path) -> None:
    data = read(write_folder(tmp_path))
    names = ["cat/a.png", "cat/b.png", "cat/more/c.png", "cat/é日.png", "dog/1.png", "dog/2.PNG"]
    expected = [np.asarray(Image.open(tmp_path / "train" / name)).transpose(2, 0, 1) for name in names]
    assert np.array_equal(everything(data), np.stack(expected))
    assert data.labels.tolist() == [0, 0, 0, 0, 1, 1]
    assert data.classes == ("cat", "dog")
    assert data.input_shape == (3, 6, 5)


def test_the_test_part_lies_in_test_or_val(tmp_path: Path) -> None:
    write_folder(tmp_path, parts=("train", "val"))
    val = everything(read(tmp_path, "test"))
    assert not np.array_equal(val, everything(read(tmp_path)))
    shutil.copytree(tmp_path / "train", tmp_path / "test")
    assert np.array_equal(everything(read(tmp_path, "test")), everything(read(tmp_path))), "test/ goes first"


CHANGES: dict[str, Callable[[Path], object]] = {
    "renamed": lambda folder: (folder / "cat/a.png").rename(folder / "cat/aa.png"),
    "added": lambda folder: shutil.copy(folder / "cat/a.png", folder / "cat/z.png"),
    "removed": lambda folder: (folder / "cat/a.png").unlink(),
    "grown": lambda folder: os.truncate(folder / "cat/a.png", 10_000),
    "behind a new class": lambda folder: shutil.copytree(folder / "dog", folder / "ape"),
    "relabelled": lambda folder: (folder / "cat/a.png").rename(folder / "dog/a.png"),
    "swapped": lambda folder: [
        (folder / "dog").rename(folder / "z"),
        (folder / "cat").rename(folder / "dog"),
    ],
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_digest_notices_a_file_that_is(change: str, tmp_path: Path) -> None:
    before = read(write_folder(tmp_path)).digest()
    assert read(tmp_path).digest() == before
    CHANGES[change](tmp_path / "train")
    assert read(tmp_path).digest() != before


def test_the_digest_is_the_same_wherever_the_folder_lies(tmp_path: Path) -> None:
    here, there = (read(write_folder(tmp_path / name)) for name in ("here", "there"))
    assert here.digest() == there.digest()


def test_the_data_are_the_same_however_they_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path)
    found = []
    for form in FORMS:
        keep(form, monkeypatch)
        found.append(read(tmp_path, size=4))
    assert [type(data).__name__ for data in found] == ["ArrayData", "FileData", "PackedData"]
    assert [data.lazy for data in found] == [False, True, False]
    for data in found[1:]:
        assert np.array_equal(everything(data), everything(found[0]))
        assert np.array_equal(data.labels, found[0].labels)
        assert (data.digest(), data.classes, data.input_shape, len(data)) == (
            found[0].digest(),
            found[0].classes,
            found[0].input_shape,
            len(found[0]),
        )


def test_an_unreadable_image_is_named(form: str, tmp_path: Path) -> None:
    broken = write_folder(tmp_path) / "train" / "dog" / "1.png"
    broken.write_bytes(b"not an image")
    assert refusal(tmp_path).startswith(f"{broken}: not a readable image")


def test_images_of_several_sizes_need_views_size(form: str, tmp_path: Path) -> None:
    odd = write_folder(tmp_path) / "train" / "dog" / "2.PNG"
    Image.fromarray(pixels(9, 9, 3)).save(odd, "PNG")
    said = refusal(tmp_path)
    assert said.startswith(f"{odd}: uint8 (3, 9, 9), where the first is uint8 (3, 6, 5)")
    assert "views.size" in said
    assert read(tmp_path, size=4).input_shape == (3, 4, 4)
    if form == "as needed":
        alone = read(tmp_path)
        with pytest.raises(DataError):
            alone.raw(np.array([5]))


def test_folders_without_images_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == f"data.root: no such folder: {tmp_path / 'none'}"
    assert refusal(tmp_path) == f"{tmp_path}: has no folder train"
    assert refusal(tmp_path, "test") == f"{tmp_path}: has no folder test or val or valid or validation"
    (tmp_path / "train" / "cat").mkdir(parents=True)
    assert refusal(tmp_path).startswith(f"{tmp_path / 'train'}: no images in class folders")
    Image.fromarray(pixels(4, 4, 3)).save(tmp_path / "train" / "loose.png")
    assert "no images in class folders" in refusal(tmp_path)


def test_what_tools_leave_behind_is_no_class_and_no_image(tmp_path: Path) -> None:
    before = read(write_folder(tmp_path))
    for left in (".ipynb_checkpoints/a.png", "cat/.ipynb_checkpoints/a.png", "cat/._a.png"):
        path = tmp_path / "train" / left
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"left behind")
    after = read(tmp_path)
    assert (after.classes, after.digest()) == (before.classes, before.digest())


@pytest.mark.skipif(sys.platform == "darwin", reason="macOS takes no such name")
def test_a_name_that_is_no_text_is_a_name(tmp_path: Path) -> None:
    folder = write_folder(tmp_path) / "train" / "cat"
    before = read(tmp_path).digest()
    shutil.copy(folder / "a.png", os.fsencode(folder) + b"/\xff.png")
    after = read(tmp_path)
    assert len(after) == 7
    assert after.digest() != before
