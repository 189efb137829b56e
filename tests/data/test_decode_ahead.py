"""Images that are decoded in threads while they are read: the same pixels and the same pack as if all were decoded
first, whatever happens meanwhile.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.cache import StorageError
from decant.cache.io.blockfile import BlockFile
from decant.cache.io.locks import in_use
from decant.pipeline.data.decode_ahead import DecodeAhead
from decant.pipeline.data.image_pack import Layout, Pack, partial_path
from decant.pipeline.data.pack_ahead import FilledAhead, HeldAhead, find_or_fill_ahead
from decant.pipeline.data.pack_filling import find_or_build
from decant.pipeline.data.thread_count import ThreadCount
from decant.pipeline.errors import DataError
from decant.pipeline.ranks.cores import available_cores
from tests.data.test_image_pack import IMAGES, LAYOUT, Decoder, build, flip, let_all_begin, nothing
from tests.helpers.commands import fork_python
from tests.helpers.processes import PATIENCE, finished, python, wait_until

ORDERS = {
    "in order": np.arange(400),
    "shuffled": np.random.default_rng(0).permutation(400),
    "some, more than once": np.repeat(np.arange(0, 400, 40), 2),
}


def ahead(path: Path, decode: Any = None, confirm: Any = nothing, *, required: bool = False) -> FilledAhead:
    found = find_or_fill_ahead(path, LAYOUT, decode or Decoder(), confirm, "decoding", required)
    assert isinstance(found, FilledAhead)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "packs" / "images.pack"


@pytest.mark.parametrize("order", ORDERS)
def test_the_images_and_the_pack_are_those_of_a_pack_that_was_built_first(order: str, path: Path) -> None:
    decode, indices = Decoder(), ORDERS[order]
    images = ahead(path, decode)
    for some in np.array_split(indices, 5):
        assert np.array_equal(images.images(some), IMAGES[some])
    images.check_unchanged(checksums=True)
    assert decode.decoded == 400, "each once"
    assert path.read_bytes() == build(path.with_name("first.pack")).path.read_bytes()
    assert not partial_path(path).exists()
    assert np.array_equal(images.images(indices), IMAGES[indices]), "from the pack"
    assert isinstance(find_or_fill_ahead(path, LAYOUT, decode, nothing, "decoding"), Pack)


def test_a_block_that_another_process_finds_damaged_in_the_end_is_decoded_again(path: Path) -> None:
    """And nobody holds the file that is published."""
    decode, damaged = Decoder(), [3]

    def confirm() -> None:
        if damaged:
            images._filling._file.write_entry(damaged.pop(), 0)

    images = ahead(path, decode, confirm)
    assert np.array_equal(images.images(np.arange(400)), IMAGES)
    images.check_unchanged(checksums=True)
    assert decode.decoded == 400 + 21
    assert path.read_bytes() == build(path.with_name("first.pack")).path.read_bytes()
    with open(path, "rb") as file:
        assert not in_use(file.fileno())


@pytest.mark.parametrize("where", ["pack", "memory"])
def test_a_reader_begins_before_all_is_decoded(where: str, path: Path) -> None:
    may_go_on = threading.Event()

    def decode(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if indices[0] >= 105:
            assert may_go_on.wait(PATIENCE)
        return IMAGES[indices]

    images = ahead(path, decode) if where == "pack" else HeldAhead(LAYOUT, decode)
    first = np.arange(105)
    assert np.array_equal(images.images(first), IMAGES[:105])
    assert not path.exists()
    may_go_on.set()
    assert np.array_equal(images.images(np.arange(400)), IMAGES)


def test_images_of_one_block_are_a_pack_too(path: Path) -> None:
    layout = Layout("key", 15, LAYOUT.image_shape)
    images = find_or_fill_ahead(path, layout, Decoder(), nothing, "decoding")
    assert np.array_equal(images.images(np.arange(15)), IMAGES[:15])
    images.check_unchanged(checksums=True)
    assert path.stat().st_size == layout.size


def test_who_asks_twice_gets_what_is_being_filled(path: Path) -> None:
    """Threads of one process are not held off each other by locks."""
    halt = threading.Event()
    images = ahead(path, lambda indices: IMAGES[indices] if halt.wait(PATIENCE) else IMAGES[:0])
    assert ahead(path) is images
    halt.set()
    assert np.array_equal(images.images(np.arange(400)), IMAGES)


def test_one_image_alone_starts_nothing(path: Path) -> None:
    """As it is read for the shape, by commands that then need no other."""
    decode = Decoder()
    images = ahead(path, decode)
    assert np.array_equal(images.images(np.array([0])), IMAGES[:1])
    images.check_unchanged(checksums=True)
    assert (decode.decoded, images.has_ended) == (21, False)


def test_images_that_were_all_read_one_by_one_are_a_pack_too(path: Path) -> None:
    confirmed = list[int]()
    images = ahead(path, confirm=lambda: confirmed.append(0))
    for index in range(400):
        assert np.array_equal(images.images(np.array([index])), IMAGES[index : index + 1])
    images.check_unchanged(checksums=True)
    assert (path.exists(), confirmed) == (True, [0])


def test_no_file_stays_open_when_nobody_reads_any_more(path: Path) -> None:
    images = ahead(path)
    images.images(np.arange(400))
    images.check_unchanged(checksums=True)
    descriptors = (images._filling._file.fd, images._filling._claims)
    del images
    gc.collect()
    for descriptor in descriptors:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)


KILLED = """
import os, signal, sys
import numpy as np
from pathlib import Path
from tests.data.test_decode_ahead import ahead

path, name, calls = Path(sys.argv[1]), sys.argv[2], [None] * int(sys.argv[3])
real = getattr(os, name)

def step(*arguments, **options):
    calls.pop()
    if not calls:
        if name == "pwrite":
            real(arguments[0], memoryview(arguments[1])[: len(arguments[1]) // 2], arguments[2])
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments, **options)

images = ahead(path)
setattr(os, name, step)
for first in range(0, 400, 50):
    images.images(np.arange(first, first + 50))
images.check_unchanged(checksums=True)
"""


@pytest.mark.parametrize(("step", "call"), [("pwrite", 1), ("pwrite", 13), ("pwrite", 24), ("rename", 1)])
def test_a_killed_reader_goes_on_where_it_was(step: str, call: int, path: Path) -> None:
    child = fork_python(KILLED, path, step, call)
    out = child.communicate(timeout=PATIENCE)
    assert child.returncode == -signal.SIGKILL, out
    assert partial_path(path).exists()
    decode = Decoder()
    images = ahead(path, decode)
    assert np.array_equal(images.images(np.arange(400)), IMAGES)
    images.check_unchanged(checksums=True)
    assert path.read_bytes() == build(path.with_name("never-killed.pack")).path.read_bytes()
    assert decode.decoded <= 400 - (call // 2 - 2) * 21, "what was written is not decoded again"


def test_blocks_of_an_unfinished_file_that_are_damaged_are_decoded_anew(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        find_or_build(path, LAYOUT, Decoder(), interrupted, "decoding")
    for index in (25, 399):
        flip(partial_path(path), LAYOUT.offset(index))
    decode = Decoder()
    images = ahead(path, decode)
    assert np.array_equal(images.images(np.arange(100)), IMAGES[:100])
    images.check_unchanged(checksums=True)
    assert decode.decoded == 21 + 1
    assert np.array_equal(Pack(path, LAYOUT).images(np.arange(400)), IMAGES)


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["pack", "memory"])
def test_an_image_that_cannot_be_decoded_is_named_before_it_is_read(where: str, path: Path) -> None:
    def decode(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if 300 in indices:
            raise DataError("image 300: not a readable image")
        return IMAGES[indices]

    images: Any = ahead(path, decode) if where == "pack" else HeldAhead(LAYOUT, decode)
    with pytest.raises(DataError, match="image 300"):
        wait_until(lambda: images.images(np.arange(50)) is None)
    with pytest.raises(DataError, match="image 300"):
        images.check_unchanged(checksums=True)
    assert not path.exists()
    assert not partial_path(path).exists(), "mended images have another key"


def test_files_that_changed_while_they_were_decoded_are_said_at_the_end(path: Path) -> None:
    def changed() -> None:
        raise DataError("files changed")

    images = ahead(path, confirm=changed)
    images.images(np.arange(400))
    with pytest.raises(DataError, match="files changed"):
        images.check_unchanged(checksums=True)
    assert not path.exists()
    assert not partial_path(path).exists()


def test_a_file_that_is_removed_meanwhile_is_read_to_its_end_and_no_pack(path: Path) -> None:
    """As by another process that finds an image damaged."""
    halt, confirmed = threading.Event(), list[int]()

    def decode(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if indices[0] >= 42:
            halt.wait(PATIENCE)
        return IMAGES[indices]

    images = ahead(path, decode, lambda: confirmed.append(0))
    images.images(np.arange(42))
    partial_path(path).unlink()
    halt.set()
    assert np.array_equal(images.images(np.arange(400)), IMAGES)
    images.check_unchanged(checksums=True)
    assert (path.exists(), confirmed) == (False, [0])


@pytest.mark.parametrize("at", [3, 23])
def test_a_disk_that_fails_midway_is_said_once_and_the_images_are_read_without_a_pack(
    at: int, path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    left, write = list(range(at)), BlockFile.write

    def failing(file: BlockFile, *given: Any) -> None:
        if not left:
            raise StorageError(f"{file.path}: writing: No space left on device")
        left.pop()
        write(file, *given)

    monkeypatch.setattr(BlockFile, "write", failing)
    images = ahead(path)
    for some in np.array_split(ORDERS["shuffled"], 9):
        assert np.array_equal(images.images(some), IMAGES[some])
    images.check_unchanged(checksums=True)
    said = capsys.readouterr().err
    assert said.endswith("No space left on device; the images are decoded without a pack\n")
    assert said.count("\n") == 1
    left.append(0)
    required = ahead(path, required=True)
    with pytest.raises(StorageError, match="No space left"):
        wait_until(lambda: required.images(np.arange(100)) is None)


BESIDE = """
import sys
import numpy as np
from pathlib import Path
from tests.data.test_image_pack import Held
from tests.data.test_decode_ahead import ahead

decode, path = Held(), Path(sys.argv[1])
images = ahead(path, decode)
assert images.images(np.arange(200)).shape == (200, 3, 32, 32)
images.check_unchanged(checksums=True)
print(decode.decoded)
"""


def test_two_processes_decode_ahead_together(path: Path) -> None:
    children = [fork_python(BESIDE, path) for _ in range(2)]
    let_all_begin(children)
    shares = [int(finished(child)) for child in children]
    assert sum(shares) == 400, f"no image is decoded twice: {shares}"
    assert min(shares) > 0
    assert path.read_bytes() == build(path.with_name("alone.pack")).path.read_bytes()


WAITING = """
import threading, time, torch
from decant.pipeline.data.decode_ahead import DecodeAhead

numbers, rounds, halt = torch.arange(float(1 << 17)), 8, threading.Event()

def spent():
    (numbers + 1).sum()
    started = time.process_time()
    for _ in range(rounds):
        found = (numbers / 3).sum()
        time.sleep(0.02)
    return time.process_time() - started, float(found)

before, same = spent()
ahead = DecodeAhead(4, lambda block: halt.wait(60), threads=2)
ahead.want([0])
while not ahead._making:  # the threads have their teams then
    time.sleep(0.01)
meanwhile, also_same = spent()
halt.set()
ahead.finish(lambda blocks: None)
assert same == also_same
print(before, meanwhile, spent()[0])
"""


@pytest.mark.skipif(available_cores() < 2, reason="needs two cores")
def test_threads_of_pytorch_sleep_when_they_wait_while_files_are_decoded() -> None:
    """Processor time, in the same process before, meanwhile and afterwards."""
    before, meanwhile, afterwards = map(
        float, finished(python(WAITING, OMP_NUM_THREADS=str(available_cores()))).split()
    )
    if before < 0.008:
        pytest.skip(f"this OpenMP's threads sleep anyway: {before * 1000:.1f} ms of eight waits")
    assert meanwhile < before / 4
    assert afterwards > meanwhile * 2, "as quick as before once all is decoded"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("where", ["pack", "memory"])
def test_a_process_that_is_forked_meanwhile_reads_the_same(where: str, path: Path) -> None:
    """As workers of a DataLoader are; the threads are not theirs."""
    halt, halted, parent = threading.Event(), list[int](), os.getpid()

    def decode(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        if os.getpid() == parent and indices[0] >= 42:
            halted.append(0)
            halt.wait(PATIENCE)
        return IMAGES[indices]

    images: Any = ahead(path, decode) if where == "pack" else HeldAhead(LAYOUT, decode)
    images.images(np.arange(42))
    wait_until(lambda: halted)
    child = os.fork()
    if not child:
        try:
            same = np.array_equal(images.images(np.arange(399, -1, -1)), IMAGES[::-1])
        finally:
            os._exit(0 if same else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    halt.set()
    assert np.array_equal(images.images(np.arange(400)), IMAGES)
    images.check_unchanged(checksums=True)


def test_pickled_they_are_their_path(path: Path) -> None:
    images = ahead(path, pickled_decoder)
    images.images(np.arange(100))
    again = pickle.loads(pickle.dumps(images))
    assert np.array_equal(again.images(np.arange(400)), IMAGES)
    held = pickle.loads(pickle.dumps(HeldAhead(Layout("", 400, (3, 32, 32)), pickled_decoder)))
    assert np.array_equal(held.images(np.arange(400)), IMAGES)


def pickled_decoder(indices: NDArray[np.integer]) -> NDArray[np.uint8]:
    return IMAGES[indices]


class Blocks:
    """Blocks that threads make, noted in the order in which they are begun; block 1 waits for `may_go_on`."""

    def __init__(self, refused: tuple[int, ...] = (), threads: int = 1) -> None:
        """refused: those that another process is about to make, and then has not."""
        self.begun, self.closed, self.refused = list[int](), list[list[int]](), list(refused)
        self.broken = False
        self.may_go_on = threading.Event()
        self.ahead = DecodeAhead(
            6, self.make, lambda: self.closed.append(list(self.ahead.done)), threads=threads
        )

    def make(self, block: int) -> bool:
        self.begun.append(block)
        if block == 1:
            assert self.may_go_on.wait(PATIENCE)
            if self.broken:
                raise DataError("block 1")
        if block in self.refused:
            self.refused.remove(block)
            return False
        return True

    def wait(self) -> None:
        """Until threads are at block 1."""
        wait_until(lambda: 1 in self.begun)


def test_blocks_that_are_wanted_are_made_first_and_what_others_leave_last() -> None:
    blocks = Blocks(refused=(3, 2))
    blocks.may_go_on.set()
    shown = list[int]()
    blocks.ahead.want([5, 3])
    blocks.ahead.finish(shown.append)
    assert blocks.begun == [5, 3, 0, 1, 2, 3, 4, 2]
    assert blocks.closed == [[1] * 6], "once, when all are made"
    assert sum(shown) == 6


def test_blocks_that_are_made_in_the_last_moment_are_shown_too() -> None:
    class Ending:
        ident = 1

        def join(self, seconds: float) -> None:
            pass

        def is_alive(self) -> bool:
            blocks.ahead.done[:] = bytes([1] * 6)
            return False

    blocks, shown = Blocks(), list[int]()
    blocks.ahead._thread = cast("threading.Thread", Ending())
    blocks.ahead.finish(shown.append)
    assert shown == [6]


def test_stopped_threads_make_no_other_block_and_close_nothing() -> None:
    blocks = Blocks()
    blocks.ahead.want(())
    blocks.wait()
    threading.Timer(0.02, blocks.may_go_on.set).start()
    blocks.ahead.stop()
    assert (blocks.begun, blocks.closed) == ([0, 1], [])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_before_has_no_threads() -> None:
    """Or each worker of a DataLoader would make all blocks."""
    blocks = Blocks()
    child = os.fork()
    if not child:
        try:
            blocks.ahead.want([5])
            blocks.ahead.require([5])
            only_that = blocks.begun == [5] and threading.active_count() == 1
        finally:
            os._exit(0 if only_that else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert blocks.begun == []


def test_a_block_that_a_thread_makes_is_waited_for_and_not_made_again() -> None:
    blocks = Blocks()
    blocks.ahead.want(())
    blocks.wait()
    reader = threading.Thread(target=blocks.ahead.require, args=([0, 1],))
    reader.start()
    reader.join(0.02)
    assert reader.is_alive()
    blocks.may_go_on.set()
    reader.join(PATIENCE)
    blocks.ahead.finish(lambda made: None)
    assert blocks.begun == [*range(6)]


def test_an_error_ends_all_threads_and_is_met_by_who_needs_the_block() -> None:
    blocks = Blocks(threads=2)
    blocks.broken = True
    blocks.may_go_on.set()
    blocks.ahead.want(())
    blocks.ahead.finish(lambda made: None)
    assert isinstance(blocks.ahead.error, DataError)
    assert blocks.closed == []
    with pytest.raises(DataError, match="block 1"):
        blocks.ahead.require([1])
    blocks.broken = False
    blocks.ahead.require([1])
    assert blocks.ahead.done[1]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (lambda threads: 10.0 * threads, 16),  # large images, slow disks
        (lambda threads: 400.0 / threads, 4),  # small images, whose threads wait for the interpreter's lock
        (lambda threads: 10.0 * min(threads, 8), 8),
    ],
    ids=["each is of use", "each is in the way", "eight are of use"],
)
def test_there_are_as_many_threads_as_are_of_use(rate: Callable[[int], float], expected: int) -> None:
    """Most of the time: whether more are of use now is tried again, less and less often."""
    random, threads, made, counts = np.random.default_rng(0), ThreadCount(16), 0.0, list[int]()
    for step in range(400):
        threads.see(int(made), step / 4)
        made += rate(threads.count) / 4 * random.uniform(0.98, 1.02)
        counts.append(threads.count)
    assert counts[0] == 4
    assert counts[20:].count(expected) > 0.9 * len(counts[20:])


@pytest.mark.parametrize("most", [1, 2, 3, 4])
def test_a_few_cores_have_a_thread_each(most: int) -> None:
    threads = ThreadCount(most)
    for second in range(10):
        threads.see(100 * second, second)
        assert threads.count == most


def test_more_threads_are_tried_again_once_a_busy_machine_has_room_but_never_beyond_the_most() -> None:
    threads, made, counts = ThreadCount(6), 0, list[int]()
    for step in range(200):
        threads.see(made, step / 2)
        made += 10 * min(threads.count, 4 if step < 40 else 6)
        counts.append(threads.count)
    assert counts[30:40].count(4) > 5
    assert counts[-50:] == [6] * 50
    threads.limit(2)
    for step in range(200, 230):
        threads.see(100 * step, step / 2)
        assert threads.count == 2


def test_a_rate_is_of_half_a_second_and_of_four_blocks_a_thread() -> None:
    for made, seconds, count in ((999, 0.4, 4), (15, 9, 4), (16, 0.5, 8)):
        threads = ThreadCount(16)
        threads.see(0, 0)
        threads.see(made, seconds)
        assert threads.count == count, (made, seconds)


def test_threads_are_started_and_ended_while_blocks_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    lock, making, seen, counts = threading.Lock(), list[int](), list[tuple[int, int]](), [4, 8, 2]
    are_few = threading.Event()

    def see(self: ThreadCount, made: int, now: float) -> None:
        self.count = counts.pop(0) if len(counts) > 1 else counts[0]
        if self.count == 2:
            are_few.set()

    def make(block: int) -> bool:
        with lock:
            making.append(block)
            seen.append((block, len(making)))
        if block >= 50:
            assert are_few.wait(PATIENCE)
        time.sleep(0.005)
        with lock:
            making.remove(block)
        return True

    monkeypatch.setattr(ThreadCount, "see", see)
    ahead = DecodeAhead(100, make, threads=16)
    ahead.want([0])
    ahead.finish(lambda blocks: None)
    assert ahead.error is None
    assert sorted(block for block, _ in seen) == list(range(100)), "each once"
    assert max(together for _, together in seen) > 4
    assert max(together for _, together in seen[-20:]) <= 2


def test_a_block_that_a_thread_leaves_which_is_ended_is_made_by_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As another process was about to make it, and all the others have found none left."""
    few, refused, closed = threading.Event(), [5], list[list[int]]()

    def see(self: ThreadCount, made: int, now: float) -> None:
        if made == 5:
            self.count = 1
            few.set()

    def make(block: int) -> bool:
        if block == 0:
            wait_until(lambda: not refused)  # so that another thread has block 5
        if block == 5 and refused:
            refused.pop()
            assert few.wait(PATIENCE)
            return False
        return True

    monkeypatch.setattr(ThreadCount, "see", see)
    ahead = DecodeAhead(6, make, lambda: closed.append(list(ahead.done)), threads=4)
    ahead.want(())
    ahead.finish(lambda blocks: None)
    assert closed == [[1] * 6]


def test_threads_that_cannot_be_started_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    start, limit, failed = threading.Thread.start, [4], threading.Event()

    def starting(self: threading.Thread) -> None:
        if not limit[0]:
            failed.set()
            raise RuntimeError("can't start new thread")
        limit[0] -= 1
        start(self)

    def make(block: int) -> bool:
        return failed.wait(PATIENCE)

    monkeypatch.setattr(threading.Thread, "start", starting)
    some, none = DecodeAhead(9, make, threads=4), DecodeAhead(9, make, threads=4)
    for ahead, limit[0] in ((some, 4), (none, 1)):  # with that of the one that starts the others
        ahead.want(())
        ahead.finish(lambda blocks: None)
    assert (list(some.done), some.error) == ([1] * 9, None)
    assert (list(none.done), str(none.error)) == ([0] * 9, "can't start new thread")
