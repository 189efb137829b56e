"""Packs of an image folder: the decoded images, made once, where there is room, and as the files are now."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from decant.cache import StorageError
from decant.cache.io import blockfile
from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import image_folder, pack_room
from decant.pipeline.data.between_parts import check_between_parts, count_common
from decant.pipeline.data.samples import ListedFiles
from decant.pipeline.errors import DataError
from decant.pipeline.training.loading import OrderedKeys, loader
from decant.pipeline.views import ViewedData
from tests.helpers.commands import fork_python
from tests.helpers.folders import everything, keep, pixels, read, write_folder
from tests.helpers.processes import PATIENCE

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
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert np.array_equal(np.concatenate(pool.map(data.raw, order)), expected[order.ravel()])


@pytest.mark.parametrize("common", [0, 1, 20])
def test_files_that_are_in_both_parts_are_said_also_of_images_in_a_pack(
    tmp_path: Path, common: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Among others of the same size, by other names, in another class."""
    files = sorted(write_jpegs(tmp_path).rglob("*.jpg"))
    for index, path in enumerate(files[::5]):
        copied = tmp_path / "test" / "ab"[index % 2] / f"test{index}.jpg"
        copied.parent.mkdir(parents=True, exist_ok=True)
        content = bytearray(path.read_bytes())
        content[-3] ^= index >= common  # before the end of the image
        copied.write_bytes(content)
    data, views = DataSettings(name="imagefolder", root=str(tmp_path), pack="always"), ViewsSettings(size=32)
    train, test = (image_folder.image_folder(data, views, split) for split in ("train", "test"))
    check_between_parts(train, test)
    said = f"{common} of 30 images of the test part are in the training part too, byte for byte"
    assert (said in capsys.readouterr().err) == bool(common)
    assert pickle.loads(pickle.dumps(train)).files is None, "a worker need not have the list"


def test_of_many_files_some_are_looked_at_and_few_of_the_same_size(tmp_path: Path) -> None:
    paths = [tmp_path / str(index) for index in range(300)]
    for index, path in enumerate(paths):
        path.write_bytes(b"%10d" % index)
    train, same = (ListedFiles(some, np.full(len(some), 10)) for some in (paths, paths[:1]))
    assert count_common(train, same) == (1, 1)
    assert count_common(same, train) == (1, 100)
    assert count_common(train, ListedFiles([tmp_path / "none"], np.array([10]))) == (0, 1)


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
    monkeypatch.setattr(pack_room, "_memory", lambda: room["the memory"])
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
from decant.pipeline.data import image_folder, pack_room
from decant.pipeline.data.between_parts import check_between_parts
from decant.pipeline.data.between_parts import count_common
from decant.pipeline.data.samples import ListedFiles
from tests.helpers.folders import read
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
        child = fork_python(READER, root)
        out, err = child.communicate(timeout=PATIENCE)
    finally:
        store.chmod(0o755)
    assert child.returncode == 0, err
    assert out == ("PackedData\n" if made == "the pack" else "ArrayData\n")
    if made != "the pack":
        assert err.splitlines()[-1].startswith(f"{store / 'packs'}: ")
        assert "Permission denied" in err or "cannot be written" in err
        assert err.endswith("the images are decoded without a pack\n")
        assert err.count("\n") == 2, "one line says what is left out of the folder"


def test_the_choice_of_a_pack_is_no_part_of_a_recipes_questions() -> None:
    chosen, usual = (DataSettings(name="imagefolder", pack=pack) for pack in ("never", "auto"))
    said = [settings.model_dump(exclude_none=True) for settings in (chosen, usual)]
    assert said == [{"name": "imagefolder", "root": "data"}] * 2
