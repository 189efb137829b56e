"""Phase one over image files that nobody has decoded before: decoded while the teacher computes, with the bytes of a
phase that finds a pack.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from decant.cache import Store
from decant.pipeline.data import image_folder, listed_reader
from decant.pipeline.errors import DataError
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.datasets import Decode
from decant.pipeline.phases.evaluate import evaluate_runs
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher import make_teacher
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished
from tests.helpers.small import CPU, recipe

COUNT, SIZE = 90, 64  # five are a block of a pack


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, and a teacher of it."""
    folder = tmp_path_factory.mktemp("files")
    write_images(folder)
    os.environ["DECANT_STORE"] = str(folder / "store")
    make_teacher(plan(folder, "store"), CPU)
    return folder


def write_images(folder: Path) -> None:
    for part, count in (("train", COUNT), ("test", 4)):
        for index in range(count):
            path = folder / "images" / part / "ab"[index % 2] / f"{index:03d}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            drawn = np.random.default_rng(index + 1000 * (part == "test")).integers(0, 256, (8, 8, 3))
            Image.fromarray(drawn.astype(np.uint8)).resize((70, 66)).save(path)


def plan(folder: Path, store: str, pack: str = "always", decode: Decode = "ahead", *more: str) -> Plan:
    os.environ["DECANT_STORE"] = str(folder / store)
    settings = (
        "data.name=imagefolder",
        f"data.root={folder / 'images'}",
        f"data.pack={pack}",
        f"views.size={SIZE}",
        "teacher.network={name='linear'}",
        "teacher.epochs=1",
        "teacher.at_chance=accept",
        "cache.batch_size=8",
        *more,
    )
    return Plan.of(recipe(*settings), folder / "runs", Store(folder / store), decode=decode)


def files(folder: Path, store: str, suffix: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((folder / store).rglob(f"*{suffix}"))]


@pytest.fixture(autouse=True)
def store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECANT_STORE", "")  # put back afterwards


def test_cache_and_pack_have_the_bytes_of_a_phase_that_decodes_first(taught: Path) -> None:
    ways: dict[str, tuple[str, Decode]] = {
        "first": ("always", "at once"),
        "ahead": ("always", "ahead"),
        "without": ("never", "ahead"),
    }
    for name, (pack, decode) in ways.items():
        made = cache_logits(plan(taught, name, pack, decode), CPU, print)
        assert made.rows == COUNT
    first = files(taught, "first", ".h5")
    assert len(first) == 1
    assert files(taught, "ahead", ".h5") == files(taught, "without", ".h5") == first
    assert files(taught, "ahead", ".pack") == files(taught, "first", ".pack")
    assert files(taught, "without", ".pack") == []
    assert not files(taught, "ahead", ".partial")


def test_several_views_are_of_images_that_are_decoded_once(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded, image = list[int](), image_folder.FileData.image

    def counted(data: image_folder.FileData, index: int) -> NDArray[Any]:
        decoded.append(index)
        return image(data, index)

    monkeypatch.setattr(image_folder.FileData, "image", counted)
    views = ("views.count=3", 'views.augment=[{op="flip"}]')
    make_teacher(plan(taught, "views", "never", "packs ahead", *views), CPU)
    caches = []
    for name, pack in (("views", "always"), ("views in memory", "never")):
        decoded.clear()
        caches.append(
            cache_logits(plan(taught, name, pack, "ahead", *views), CPU, print).cache.path.read_bytes()
        )
        assert sorted(decoded) == list(range(COUNT)), name
    assert caches[0] == caches[1]


@pytest.mark.parametrize("pack", ["always", "never"])
def test_a_file_that_is_no_image_ends_the_phase_by_its_name(
    pack: str, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = listed_reader.decode

    def damaged(path: Path, *given: Any) -> NDArray[Any]:
        if path.name == "063.jpg":
            raise DataError(f"{path}: not a readable image (truncated)")
        return decode(path, *given)

    monkeypatch.setattr(listed_reader, "decode", damaged)
    with pytest.raises(DataError, match=r"063\.jpg: not a readable image"):
        cache_logits(plan(taught, f"damaged-{pack}", pack), CPU, print)
    assert not files(taught, f"damaged-{pack}", ".pack") + files(taught, f"damaged-{pack}", ".h5")


@pytest.mark.parametrize("pack", ["always", "never"])
def test_networks_are_measured_again_without_the_training_images(
    pack: str, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The test part is decoded while the first network reads it; what becomes a pack is one afterwards."""
    decoded, image = list[str](), listed_reader.ListedReader.image

    def counted(reader: listed_reader.ListedReader, path: Path, *given: int) -> NDArray[Any]:
        decoded.append("/".join(path.parts[-3:]))
        return image(reader, path, *given)

    first = list(evaluate_runs(plan(taught, f"measured-{pack}", pack, "at once"), CPU))
    monkeypatch.setattr(listed_reader.ListedReader, "image", counted)
    again = list(evaluate_runs(plan(taught, f"again-{pack}", pack, "test part ahead"), CPU))
    assert [result.metrics for result in again] == [result.metrics for result in first]
    assert len(first) > 0
    assert set(decoded) == {f"test/{'ab'[index % 2]}/{index:03d}.jpg" for index in range(4)} | {
        "train/a/000.jpg"
    }
    packs = files(taught, f"again-{pack}", ".pack")
    assert packs == [found for found in files(taught, f"measured-{pack}", ".pack") if found in packs]
    assert len(packs) == (pack == "always")


@pytest.mark.parametrize("pack", ["always", "never"])
def test_an_image_of_the_test_part_that_cannot_be_read_ends_a_measurement(
    pack: str, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decode = listed_reader.decode

    def damaged(path: Path, *given: Any) -> NDArray[Any]:
        if path.parts[-3:] == ("test", "b", "003.jpg"):
            raise DataError(f"{path}: not a readable image (truncated)")
        return decode(path, *given)

    monkeypatch.setattr(listed_reader, "decode", damaged)
    with pytest.raises(DataError, match=r"test/b/003\.jpg: not a readable image"):
        list(evaluate_runs(plan(taught, f"unmeasured-{pack}", pack, "test part ahead"), CPU))
    assert not files(taught, f"unmeasured-{pack}", ".pack")


def test_rows_of_files_that_changed_meanwhile_are_not_kept(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planned, image = plan(taught, "changed"), image_folder.FileData.image

    def changing(data: image_folder.FileData, index: int) -> NDArray[Any]:
        found = image(data, index)
        if index == 70:
            os.utime(data.paths[index], (0, 0))
        return found

    monkeypatch.setattr(image_folder.FileData, "image", changing)
    with pytest.raises(DataError, match="files changed while they were decoded"):
        cache_logits(planned, CPU, print)
    for suffix in (".h5", ".pack", ".partial"):
        assert not files(taught, "changed", suffix), suffix


KILLED = """
import os, signal, sys
from pathlib import Path
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.training import teacher_rows
from tests.helpers.small import CPU
from tests.phases.test_image_files import plan

teacher_rows._LONGEST_SECONDS = 0.0  # so that rows of one batch are there when the next is computed
folder, real = Path(sys.argv[1]), os.pwrite
for calls in map(int, sys.argv[2:]):
    child = os.fork()
    if child:
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        continue
    left = [None] * calls

    def step(*given):
        left.pop()
        if not left:
            real(given[0], memoryview(given[1])[: len(given[1]) // 2], given[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*given)

    os.pwrite = step
    cache_logits(plan(folder, "killed"), CPU, print)
    os._exit(1)
print(cache_logits(plan(folder, "killed"), CPU, print).rows)
"""


def test_a_killed_phase_goes_on_with_the_images_and_the_rows_that_it_has(taught: Path) -> None:
    cache_logits(plan(taught, "not killed", "always", "at once"), CPU, print)
    rows = finished(fork_python(KILLED, taught, 3, 15, 30, 31, OMP_NUM_THREADS="1"))
    assert int(rows) < COUNT, "some were there"
    for suffix in (".h5", ".pack"):
        assert files(taught, "killed", suffix) == files(taught, "not killed", suffix)
    assert not files(taught, "killed", ".partial")
