"""Image folders: the same samples and pixels in memory, as needed, and from a pack; and when there is a pack."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from decant.cache import StorageError
from decant.cache.io import blockfile
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import image_folder, load
from decant.pipeline.data.samples import LabelledData, Split
from decant.pipeline.errors import DataError
from decant.pipeline.training.loading import OrderedKeys, loader
from decant.pipeline.views import ViewedData
from tests.helpers.processes import PATIENCE, python

FORMS = ("in memory", "as needed", "packed")


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the caches, with no packs yet."""
    monkeypatch.setenv("DECANT_STORE", str(tmp_path / "store"))
    return tmp_path / "store"


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How an image folder that is `read` without naming `pack` is kept."""
    keep(request.param, monkeypatch)
    return request.param


def keep(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_folder, "MAX_ARRAY_BYTES", 0 if form == "as needed" else 4 << 30)
    monkeypatch.setattr(image_folder, "WORTH_PACKING", 1 if form == "packed" else 1_000)


def read(root: Path, split: Split = "train", pack: Any = "auto", **views: Any) -> LabelledData:
    return load(DataSettings(name="imagefolder", root=str(root), pack=pack), ViewsSettings(**views), split)


def everything(data: LabelledData) -> NDArray[Any]:
    return data.raw(np.arange(len(data)))


def refusal(root: Path, split: Split = "train", **views: Any) -> str:
    with pytest.raises(DataError) as caught:
        everything(read(root, split, **views))
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


def pixels(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape).astype(np.uint8)


# Which files are samples


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
    "behind a new class": lambda folder: (folder / "ape").mkdir(),
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
    assert refusal(tmp_path, "test") == f"{tmp_path}: has no folder test or val"
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


# Packs


def packs(store: Path) -> list[Path]:
    return sorted(store.glob("packs/*.pack"))


def write_jpegs(root: Path, count: int = 150, size: int = 40) -> Path:
    """Two classes of JPEGs that no two are alike of."""
    for index in range(count):
        path = root / "train" / "ab"[index % 2] / f"{index:04d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(size, size + index % 3, 3)).rotate(index).save(path, quality=90)
    return root


def test_packed_jpegs_are_the_decoded_ones_in_any_order_and_any_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep("as needed", monkeypatch)
    expected = everything(read(write_jpegs(tmp_path), pack="never", size=32, resize=36))
    data = read(tmp_path, pack="always", size=32, resize=36)
    order = np.random.default_rng(0).permutation(150).reshape(3, 50)
    assert np.array_equal(data.raw(order[0]), expected[order[0]])
    viewed = ViewedData(data, ViewsSettings())
    batches = [inputs.numpy() for inputs, _ in loader(viewed, OrderedKeys(150, 32), workers=2)]
    assert np.array_equal(np.concatenate(batches), expected)
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        assert np.array_equal(np.concatenate(pool.map(data.raw, order)), expected[order.ravel()])


def test_a_pack_is_made_once_and_beside_the_caches(store: Path, tmp_path: Path) -> None:
    write_folder(tmp_path)
    read(tmp_path, pack="always")
    (made,) = packs(store)
    assert made.name.startswith("imagefolder-train-3x6x5-")
    before = made.stat()
    assert np.array_equal(everything(read(tmp_path, pack="always")), everything(read(tmp_path, pack="never")))
    assert (packs(store), made.stat().st_ino) == ([made], before.st_ino)


def test_the_parts_and_sizes_have_packs_of_their_own(store: Path, tmp_path: Path) -> None:
    write_folder(tmp_path)
    asked: list[dict[str, Any]] = [{}, {"size": 4}, {"size": 4, "resize": 5}, {"split": "test"}]
    for count, what in enumerate(asked, 1):
        assert np.array_equal(
            everything(read(tmp_path, pack="always", **what)),
            everything(read(tmp_path, pack="never", **what)),
        )
        assert len(packs(store)) == count
    read(tmp_path, pack="always", size=4, resize=4)
    assert len(packs(store)) == 4, "a resize to the size itself is none"


def test_another_decoder_has_another_pack(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read(write_folder(tmp_path), pack="always")
    monkeypatch.setattr(image_folder, "decoder", lambda: "Pillow 999")
    read(tmp_path, pack="always")
    assert len(packs(store)) == 2


@pytest.mark.parametrize("index", range(6))
def test_a_changed_image_of_the_same_size_and_age_has_another_pack(
    index: int, store: Path, tmp_path: Path
) -> None:
    before = everything(read(write_folder(tmp_path), pack="always"))
    data: Any = read(tmp_path, pack="never")
    path = sorted((tmp_path / "train").rglob("*.[pP][nN][gG]"))[index]
    found, content = path.stat(), path.read_bytes()
    Image.fromarray(255 - np.asarray(Image.open(path))).save(path, "PNG")
    path.write_bytes(path.read_bytes().ljust(len(content), b"\0")[: len(content)])
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (found.st_size, found.st_mtime_ns)
    after = read(tmp_path, pack="always")
    assert after.digest() == data.digest(), "the digest is of names, sizes and labels"
    assert np.array_equal(everything(after), everything(read(tmp_path, pack="never")))
    assert np.count_nonzero((everything(after) != before).any(axis=(1, 2, 3))) == 1
    assert len(packs(store)) == 2


def test_files_that_change_while_they_are_decoded_make_no_pack(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path)
    raw = image_folder.FileData.raw

    def meanwhile(files: image_folder.FileData, indices: NDArray[np.integer]) -> NDArray[Any]:
        os.utime(files.paths[3], (0, 0))
        return raw(files, indices)

    monkeypatch.setattr(image_folder.FileData, "raw", meanwhile)
    with pytest.raises(DataError, match="imagefolder: train: files changed while they were decoded"):
        read(tmp_path, pack="always")
    assert packs(store) == []


# … and when there is none


def test_few_images_are_not_worth_a_pack(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path)
    monkeypatch.setattr(image_folder, "WORTH_PACKING", 7)
    assert type(read(tmp_path)).__name__ == "ArrayData"
    monkeypatch.setattr(image_folder, "WORTH_PACKING", 6)
    assert type(read(tmp_path, pack="never")).__name__ == "ArrayData"
    assert not store.exists()
    assert type(read(tmp_path)).__name__ == "PackedData"


@pytest.mark.parametrize("short", ["the memory", "what is free in "])
def test_what_takes_more_than_half_is_not_packed_unless_always(
    short: str,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    keep("packed", monkeypatch)
    size = 4096 + 6 * 90 + 8
    room = {"the memory": 1 << 40, "what is free in ": 1 << 40} | {short: 2 * size - 1}
    usage = shutil._ntuple_diskusage(1 << 40, 0, room["what is free in "])  # type: ignore[attr-defined]
    monkeypatch.setattr(image_folder, "_memory", lambda: room["the memory"])
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    write_folder(tmp_path)
    assert type(read(tmp_path)).__name__ == "ArrayData"
    said = capsys.readouterr().err
    assert f": {size:,} bytes are more than half of {short}" in said
    assert said.endswith("the images are decoded without a pack\n")
    assert packs(store) == []
    data = read(tmp_path, pack="always")
    assert np.array_equal(everything(data), everything(read(tmp_path, pack="never")))
    assert data.lazy == (short == "the memory"), "what is read from the disk is worth workers"
    assert type(read(tmp_path)).__name__ == "PackedData", "what is there is used"


def interrupted(*names: object) -> None:
    raise KeyboardInterrupt


def test_what_an_unfinished_pack_holds_already_is_room_for_it(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep("packed", monkeypatch)
    write_folder(tmp_path)
    with monkeypatch.context() as killed:
        killed.setattr(os, "rename", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(tmp_path)
    size = 4096 + 6 * 90 + 8
    usage = shutil._ntuple_diskusage(1 << 40, 0, 2 * size - 1)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    assert type(read(tmp_path)).__name__ == "PackedData"


def test_a_full_disk_is_no_pack_or_an_error(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(fd: int, size: int, path: Path) -> None:
        raise StorageError(f"{path}: reserving {size:,} bytes: No space left on device")

    monkeypatch.setattr(blockfile, "reserve", refuse)
    keep("packed", monkeypatch)
    assert type(read(write_folder(tmp_path))).__name__ == "ArrayData"
    assert "No space left on device; the images are decoded without a pack" in capsys.readouterr().err
    with pytest.raises(StorageError, match="No space left on device"):
        read(tmp_path, pack="always")
    assert list(store.glob("packs/*.partial")) == []


READER = """
import os, sys
from decant.cache import StorageError
from decant.pipeline.data import image_folder
from tests.data.test_image_folder import everything, read
if os.getuid() == 0:
    os.setuid(65534)
image_folder.WORTH_PACKING = 1
print(type(read(sys.argv[1])).__name__)
"""


@pytest.mark.parametrize("made", ["nothing", "the packs folder", "the pack"])
def test_a_store_that_cannot_be_written_gives_the_packs_that_it_has(made: str, open_folder: Path) -> None:
    root, store = write_folder(open_folder), open_folder / "store"
    store.mkdir()
    os.environ["DECANT_STORE"] = str(store)  # put back by the fixture
    if made == "the pack":
        read(root, pack="always")
    elif made == "the packs folder":
        (store / "packs").mkdir(mode=0o555)
    store.chmod(0o555)
    try:
        child = python(READER, root)
        out, err = child.communicate(timeout=PATIENCE)
    finally:
        store.chmod(0o755)
    assert child.returncode == 0, err
    assert out == ("PackedData\n" if made == "the pack" else "ArrayData\n")
    if made != "the pack":
        assert err.startswith(f"{store / 'packs'}: ")
        assert "Permission denied" in err or "cannot be written" in err
        assert err.endswith("the images are decoded without a pack\n")
        assert err.count("\n") == 1


def test_the_choice_of_a_pack_is_no_part_of_a_recipes_questions() -> None:
    chosen, usual = (DataSettings(name="imagefolder", pack=pack) for pack in ("never", "auto"))
    said = [settings.model_dump(exclude_none=True) for settings in (chosen, usual)]
    assert said == [{"name": "imagefolder", "root": "data"}] * 2
