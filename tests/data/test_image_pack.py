"""The decoded pack: the very pixels or a refusal, whatever happened to the builder or the file."""

from __future__ import annotations

import contextlib
import hashlib
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.cache import StorageError
from decant.cache.io.locks import in_use, lock_path
from decant.pipeline.data.image_pack import Layout, Pack, partial_path
from decant.pipeline.data.pack_filling import find_or_build, find_or_fill
from decant.pipeline.errors import DamagedError, DataError
from tests.helpers.commands import fork_python
from tests.helpers.forked_commands import ForkedCommand
from tests.helpers.processes import PATIENCE, finished, line

SHAPE = (3, 32, 32)
IMAGES = np.random.default_rng(0).integers(0, 256, (400, *SHAPE)).astype(np.uint8)
LAYOUT = Layout("0123abcd", 400, SHAPE)  # 20 blocks, 21 images in each but the last


class Decoder:
    """Gives the images, and counts those that it is asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def __call__(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        self.asked.append(len(indices))  # by several threads
        return IMAGES[indices]

    @property
    def decoded(self) -> int:
        return sum(self.asked)


def nothing() -> None:
    """The files are as they were."""


def build(path: Path, decode: Callable[..., NDArray[np.uint8]] | None = None) -> Pack:
    return find_or_build(path, LAYOUT, decode or Decoder(), nothing, "decoding")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "packs" / "images.pack"


# What is read


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 1, 1), (3, 7, 5), (3, 200, 200)])
@pytest.mark.parametrize("count", [1, 2, 63])
def test_a_pack_is_the_images_in_any_order(shape: tuple[int, ...], count: int, path: Path) -> None:
    images = np.random.default_rng(count).integers(0, 256, (count, *shape)).astype(np.uint8)
    layout = Layout("key", count, shape)
    pack = find_or_build(path, layout, lambda indices: images[indices], nothing, "decoding")
    assert os.path.getsize(path) == layout.size
    order = np.random.default_rng(1).integers(0, count, 3 * count)
    assert np.array_equal(pack.images(order), images[order])
    assert np.array_equal(pack.images(np.arange(count)), images)


def test_the_bytes_of_a_pack_are_those_of_format_1(path: Path) -> None:
    digest = hashlib.sha256(build(path).path.read_bytes()).hexdigest()
    assert digest == "5490efc577761c15b1229aaa8ffa875dbaba5849e11d0dc1f00eb32bbd1fe41f"


def test_what_is_read_is_a_copy(path: Path) -> None:
    pack = build(path)
    pack.images(np.arange(400))[:] = 0
    assert np.array_equal(pack.images(np.arange(400)), IMAGES)


def test_a_finished_pack_is_found_and_only_probed(path: Path) -> None:
    build(path)
    os.utime(path, (0, 0))
    before, decode = path.stat(), Decoder()
    assert np.array_equal(build(path, decode).images(np.arange(400)), IMAGES)
    assert decode.decoded == 8
    assert (path.stat().st_ino, path.stat().st_mode & 0o222) == (before.st_ino, 0)
    assert path.stat().st_mtime > time.time() - 3600, "when it was last used"


def test_a_pickled_pack_is_its_path(path: Path) -> None:
    pack = build(path)
    pack.images(np.arange(400))
    content = pickle.dumps(pack)
    assert len(content) < 1000, f"{len(content):,} bytes"
    assert np.array_equal(pickle.loads(content).images(np.arange(400)), IMAGES)


def test_spawned_processes_read_the_same(path: Path) -> None:
    order = np.random.default_rng(2).permutation(400).reshape(8, 50)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        read = pool.map(build(path).images, order)
    assert np.array_equal(np.concatenate(read), IMAGES[order.ravel()])


# A builder that is killed

KILLED = """
import os, signal, sys, threading
from pathlib import Path
from tests.data.test_image_pack import Decoder, build

alone = threading.Lock()  # or other threads would write while this one writes half of its block
path, name, calls = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
real = getattr(os, name)

def step(*arguments, **options):
    global calls
    with alone:
        calls -= 1
        if calls == 0:
            if name == "pwrite":
                real(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2], arguments[2])
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

setattr(os, name, step)
build(path)
"""


@pytest.mark.parametrize(
    ("step", "call", "whole_blocks"),
    [
        ("ftruncate", 1, 0),
        ("pwrite", 1, 0),  # the header
        ("pwrite", 2, 0),
        ("pwrite", 24, None),
        ("fsync", 1, 20),
        ("rename", 1, 20),
    ],
)
def test_a_killed_build_goes_on_where_it_was(
    step: str, call: int, whole_blocks: int | None, path: Path
) -> None:
    child = fork_python(KILLED, path, step, call)
    child.communicate(timeout=PATIENCE)
    assert child.returncode == -signal.SIGKILL
    assert not path.exists()
    assert partial_path(path).exists()
    decode = Decoder()
    pack = build(path, decode)
    assert np.array_equal(pack.images(np.arange(400)), IMAGES)
    assert path.read_bytes() == build(path.with_name("never-killed.pack")).path.read_bytes()
    assert not partial_path(path).exists()
    if whole_blocks is None:
        assert 0 < decode.decoded < 400, "some blocks were written, some not"
    else:
        assert decode.decoded == (20 - whole_blocks) * 20, "20 blocks of 20 images on the average"


@pytest.mark.parametrize("place", ["pixels", "table", "header", "end"])
def test_an_unfinished_file_is_not_trusted(place: str, path: Path) -> None:
    def changed() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_or_build(path, LAYOUT, Decoder(), changed, "decoding")
    offset = {"pixels": LAYOUT.offset(25), "table": LAYOUT.entries_offset + 8, "header": 15, "end": None}[
        place
    ]
    flip(partial_path(path), offset)
    decode = Decoder()
    assert np.array_equal(build(path, decode).images(np.arange(400)), IMAGES)
    assert decode.decoded == (21 if place in ("pixels", "table") else 400)


def flip(path: Path, offset: int | None) -> None:
    """One bit changed; with None, the last byte cut off."""
    path.chmod(0o644)
    if offset is None:
        os.truncate(path, path.stat().st_size - 1)
    else:
        write_at(path, offset, bytes([path.read_bytes()[offset] ^ 16]))


def write_at(path: Path, offset: int, content: bytes) -> None:
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(content)


def test_an_unfinished_file_is_in_use_while_it_is_built(path: Path) -> None:
    seen = []

    def look() -> None:
        with open(partial_path(path), "rb") as file:
            seen.append(in_use(file.fileno()))

    find_or_build(path, LAYOUT, Decoder(), look, "decoding")
    assert seen == [True]


# Several processes that need one pack


class Held(Decoder):
    """Prints a line when it is first called, and decodes after it has read a line from its standard input."""

    def __init__(self) -> None:
        super().__init__()
        self._begun, self._told = [True], threading.Event()

    def __call__(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        with contextlib.suppress(IndexError):
            self._begun.pop()
            print("begun", flush=True)
            sys.stdin.readline()
            self._told.set()
        self._told.wait()
        return super().__call__(indices)


def let_all_begin(children: list[ForkedCommand]) -> None:
    """None is done before the others have begun."""
    assert [line(child) for child in children] == ["begun\n"] * len(children)
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()


FILLER = """
import sys
import numpy as np
from pathlib import Path
from decant.pipeline.data import pack_filling
from tests.data.test_image_pack import LAYOUT, Held, build, find_or_fill
from tests.helpers.processes import PATIENCE

pack_filling._LONGEST_WAIT_SECONDS = PATIENCE
decode, path, (first, end) = Held(), Path(sys.argv[1]), map(int, sys.argv[2].split("-"))
if end == 400:
    build(path, decode)
else:
    filling = find_or_fill(path, LAYOUT, decode)
    print("filling", flush=True)
    images = filling.images(np.arange(first, end))
    assert images.shape == (end - first, 3, 32, 32)
print(decode.decoded)
"""


def test_processes_that_need_a_pack_fill_it_together(path: Path) -> None:
    """Whether they need all of it or a share; no image is decoded twice."""
    children = [fork_python(FILLER, path, images) for images in ("0-400", "0-400", "0-84")]
    assert (
        line(children[2]) == "filling\n"
    )  # of a pack that is whole it would decode some images to compare them
    children[2].stdin.write("go\n")
    children[2].stdin.flush()
    let_all_begin(children[:2])
    *whole, share = [int(finished(child).split()[-1]) for child in children]
    assert sum(whole) + share == 400, (whole, share)
    assert min(whole) > 0
    assert path.read_bytes() == build(path.with_name("alone.pack")).path.read_bytes()
    assert not partial_path(path).exists()


def test_what_is_read_as_needed_is_decoded_alone_and_goes_into_the_pack(path: Path) -> None:
    decode, chosen = (
        Decoder(),
        np.array([50, 3, 399, 3, 20]),
    )  # of blocks 0, 2 and 19, whose last has an image
    filling = find_or_fill(path, LAYOUT, decode)
    assert np.array_equal(filling.images(chosen), IMAGES[chosen])
    assert np.array_equal(pickle.loads(pickle.dumps(filling)).images(chosen), IMAGES[chosen])
    assert decode.decoded == 21 + 21 + 1
    flip(partial_path(path), LAYOUT.offset(20))
    assert np.array_equal(filling.images(chosen), IMAGES[chosen]), "what is damaged is decoded anew"
    assert decode.decoded == 64
    rest = Decoder()
    pack = build(path, rest)
    assert (rest.decoded, pack.path) == (400 - 43, path)
    assert isinstance(find_or_fill(path, LAYOUT, rest), Pack)


def test_a_block_that_a_stopped_process_is_decoding_is_waited_for_or_decoded_here(path: Path) -> None:
    """By who needs all of the pack, or some images."""
    child = fork_python(FILLER, path, "0-21")
    assert (line(child), line(child)) == ("filling\n", "begun\n")
    decode = Decoder()
    assert np.array_equal(find_or_fill(path, LAYOUT, decode).images(np.arange(21)), IMAGES[:21])
    with ThreadPoolExecutor(1) as pool:
        built = pool.submit(build, path, decode)
        with pytest.raises(TimeoutError):
            built.result(0.3)
        child.kill()  # with which its claim ends
        child.communicate()
        assert np.array_equal(built.result(PATIENCE).images(np.arange(400)), IMAGES)
    assert decode.decoded == 21 + 400


# Files that are not as they were written


def one_bit_of_every_image(path: Path) -> None:
    for index in range(400):
        flip(path, LAYOUT.offset(index) + 7)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: flip(path, None),
    "too long": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "of another key": lambda path: flip(path, len(b"decoded-pack 1\n")),
    "of another format": lambda path: flip(path, 0),
    "never written in part": lambda path: write_at(path, LAYOUT.entries_offset + 8, bytes(8)),
    "all zeros": lambda path: path.write_bytes(bytes(LAYOUT.size)),
    "of other pixels": one_bit_of_every_image,
    "of other pixels with right checksums": lambda path: (
        path.unlink(),
        build(path, lambda indices: IMAGES[indices] ^ 1),
    ),
    "a link to nothing": lambda path: (path.unlink(), path.symlink_to("nothing")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_pack_that_is_unsound_is_made_anew(damage: str, path: Path) -> None:
    build(path).path.chmod(0o644)
    DAMAGES[damage](path)
    decode = Decoder()
    assert np.array_equal(build(path, decode).images(np.arange(400)), IMAGES)
    assert decode.decoded >= 400


@pytest.mark.parametrize("index", [1, 30, 398])
def test_pixels_that_changed_are_refused_when_they_are_read(index: int, path: Path) -> None:
    build(path)
    flip(path, LAYOUT.offset(index) + 5)
    pack = Pack(path, LAYOUT)
    first = index // 21 * 21
    others = np.setdiff1d(np.arange(400), np.arange(first, first + 21))
    assert np.array_equal(pack.images(others[:1]), IMAGES[others[:1]])
    with pytest.raises(DamagedError) as caught:
        pack.images(np.arange(400))
    said = f"{path}: images {first} to {min(first + 20, 399)} are not as they were written; delete it and run"
    assert str(caught.value).startswith(said)
    with pytest.raises(DamagedError):
        pack.images(np.array([first]))
    assert np.array_equal(pack.images(others), IMAGES[others])


# What is in the way


def test_without_room_nothing_is_left_behind(path: Path) -> None:
    with pytest.raises(StorageError, match=r"images\.pack\.partial: reserving|needs [\d,]+ bytes"):
        find_or_build(path, Layout("key", 1 << 34, (3, 512, 512)), fake, nothing, "decoding")
    assert [found.name for found in path.parent.iterdir()] == [lock_path(path).name]


def fake(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
    raise AssertionError("nothing is decoded before there is room")


def test_images_that_cannot_be_decoded_end_the_build(path: Path) -> None:
    def decode(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if 100 in indices:
            raise DataError("image 100: not a readable image")
        return IMAGES[indices]

    with pytest.raises(DataError, match="image 100"):
        build(path, decode)
    assert not path.exists()
    assert not partial_path(path).exists(), "mended images have another key"


def test_a_folder_that_changed_meanwhile_is_not_published(path: Path) -> None:
    def changed() -> None:
        raise DataError("files changed")

    with pytest.raises(DataError, match="files changed"):
        find_or_build(path, LAYOUT, Decoder(), changed, "decoding")
    assert not path.exists()
    assert not partial_path(path).exists()
