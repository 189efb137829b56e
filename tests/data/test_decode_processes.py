"""Processes that decode images for a reader: what threads make, whatever happens to files and processes, and nothing is
left of them.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import shutil
import signal
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from PIL import Image

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import decode_process, decode_processes, pack_ahead
from decant.pipeline.data.decode_processes import DecodeProcesses
from decant.pipeline.data.image_folder import FileData, listed_images
from decant.pipeline.data.image_pack import Layout, partial_path
from decant.pipeline.data.pack_ahead import HeldAhead, Listed, find_or_fill_ahead
from decant.pipeline.data.pack_filling import find_or_build
from decant.pipeline.data.thread_count import ThreadCount
from decant.pipeline.errors import DataError
from tests.helpers.commands import fork_python
from tests.helpers.processes import PATIENCE, line, wait_until

pytestmark = pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs Linux")

COUNT, SIDE, CORES = 240, 40, 4  # 20 blocks, 13 images in each but the last
VIEWS = ViewsSettings(size=SIDE)
PLACES = ["pack", "memory"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    write_photos(folder)
    return folder


def write_photos(folder: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (COUNT, 60, 50, 3)).astype(np.uint8)
    for index in range(COUNT):
        path = folder / "train" / "ab"[index % 2] / f"{index:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[index]).save(path)


def listed(folder: Path) -> FileData:
    return listed_images(DataSettings(name="imagefolder", root=str(folder)), VIEWS, "train")


def ahead(files: FileData, path: Path | None, *, processes: bool = True) -> Any:
    """Images in a pack, or in memory; with `processes` no thread makes a block before these have begun, or cannot."""
    offered = Listed(files.reader, files.listed) if processes else None
    if path is None:
        made: Any = HeldAhead(Layout("", len(files), files.input_shape), files.raw, offered)
    else:
        layout = Layout("key", len(files), files.input_shape)
        made = find_or_fill_ahead(path, layout, files.raw, lambda: None, "decoding", listed=offered)
    if processes:
        inner, make = made._ahead, made._ahead._make
        inner._threads.rate = 0.001

        def when_begun(block: int) -> bool:
            wait_until(lambda: inner._processes.count or inner._processes._is_over)
            return bool(make(block))

        inner._make = when_begun
    return made


@pytest.fixture(autouse=True)
def four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_four_cores(monkeypatch)


def pretend_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("decant.pipeline.data.decode_ahead.available_cores", lambda: CORES)
    monkeypatch.setattr(pack_ahead, "available_cores", lambda: CORES)


@pytest.fixture
def by_processes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Blocks that processes have made."""
    made, make = list[int](), decode_processes.DecodeProcess.make

    def noted(self: Any, blocks: Any) -> Any:
        answers = make(self, blocks)
        made.extend(block for block, answer in zip(blocks, answers, strict=True) if answer)
        return answers

    monkeypatch.setattr(decode_processes.DecodeProcess, "make", noted)
    return made


def children() -> list[int]:
    """Processes of this one, and of these."""
    found, known = list[int](), {os.getpid()}
    for status in sorted(Path("/proc").glob("[0-9]*/stat"), key=lambda path: int(path.parent.name)):
        try:
            pid, parent = int(status.parent.name), int(status.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent in known:
            known.add(pid)
            found.append(pid)
    return found


@pytest.mark.parametrize("where", PLACES)
def test_the_images_and_the_pack_are_those_of_threads_and_what_is_doubtful_is_said_once(
    where: str,
    photos: Path,
    tmp_path: Path,
    by_processes: list[int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(decode_processes, "_ENDING_SECONDS", PATIENCE)  # they end by themselves
    files, path, before = copied(photos, tmp_path), tmp_path / "a.pack", children()
    expected = files.raw(np.arange(COUNT))
    for image in files.paths[100:]:  # which no thread has begun with
        os.utime(image)
    images = ahead(files, path if where == "pack" else None)
    images._ahead.want([0])
    images.check_unchanged(checksums=True)
    images._ahead.finish(lambda blocks: None)
    for some in np.array_split(np.random.default_rng(0).permutation(COUNT), 4):
        assert np.array_equal(images.images(some), expected[some])
    assert len(set(by_processes)) >= 10, "of 19 blocks"
    assert capsys.readouterr().err.count("was written to since its folder was listed") == 1
    if where == "pack":
        layout = Layout("key", COUNT, files.input_shape)
        alone = find_or_build(tmp_path / "b.pack", layout, files.raw, lambda: None, "decoding")
        assert path.read_bytes() == alone.path.read_bytes()
    wait_until(lambda: set(children()) <= set(before))


HARMS = {
    "cut short": lambda content: content[:600],
    "of a huge size": lambda content: content.replace(
        struct.pack(">HH", 60, 50), struct.pack(">HH", 65_500, 65_500)
    ),
    "no image": lambda content: b"<html>",
    "of other bytes": lambda content: content + b"0",
    "removed": None,
}


@pytest.mark.parametrize(("harm", "where"), [("cut short", "pack"), ("of other bytes", "memory")])
def test_what_is_wrong_with_a_file_is_said_as_threads_say_it(
    harm: str, where: str, photos: Path, tmp_path: Path
) -> None:
    files = copied(photos, tmp_path)
    damage(files, 200, harm)
    said = []
    for processes in (False, True):
        images = ahead(files, tmp_path / "a.pack" if where == "pack" else None, processes=processes)
        images._ahead.want([0])
        images._ahead.finish(lambda blocks: None)
        with pytest.raises(DataError) as caught:
            images.check_unchanged(checksums=True)
        said.append(str(caught.value))
        assert not partial_path(tmp_path / "a.pack").exists()
    assert said[0] == said[1]
    assert said[0].startswith(str(files.paths[200]))


def test_a_process_makes_no_block_of_a_file_with_which_anything_is_wrong(
    photos: Path, tmp_path: Path
) -> None:
    files = copied(photos, tmp_path)
    layout = Layout("", COUNT, files.input_shape)
    for place, harm in enumerate(HARMS):
        damage(files, layout.per_block * place, harm)
    memory = os.memfd_create("images")
    os.ftruncate(memory, layout.pixel_bytes)
    make = decode_process.Destination(layout, files.reader, (memory,)).open()
    answers = [
        decode_process._made(make, block, files.listed(*layout.bounds(block)))
        for block in range(len(HARMS) + 1)
    ]
    os.close(memory)
    assert answers == [None] * len(HARMS) + [True]


def damage(files: FileData, index: int, harm: str) -> None:
    """Before the folder is listed, or after it."""
    path, change = files.paths[index], HARMS[harm]
    if change is None:
        path.unlink()
        return
    path.write_bytes(change(path.read_bytes()))
    if harm != "of other bytes":
        files.stamps[index] = (path.stat().st_size, path.stat().st_mtime_ns)


def copied(photos: Path, folder: Path) -> FileData:
    shutil.copytree(photos, folder / "photos", copy_function=shutil.copy)
    return listed(folder / "photos")


@pytest.mark.parametrize(
    ("where", "how", "are_all"),
    [("pack", signal.SIGSTOP, True), ("memory", signal.SIGKILL, True), ("pack", signal.SIGKILL, False)],
)
def test_threads_go_on_where_processes_are_killed_or_stopped(
    where: str, how: signal.Signals, are_all: bool, photos: Path, tmp_path: Path
) -> None:
    """Where one alone is killed, that is seen at once: no other process has its end of the connection."""
    patience = 0.5 if how == signal.SIGSTOP else 60.0
    files, before = listed(photos), children()
    images = ahead(files, tmp_path / "a.pack" if where == "pack" else None)
    killed, asked, one_by_one = list[int](), list[Any](), threading.Lock()

    def killing(self: Any, blocks: Any) -> Any:
        with one_by_one:
            if not asked:
                started = [pid for pid in children() if pid not in before]
                killed.extend(started if are_all else started[-1:])
                for pid in killed:
                    os.kill(pid, how)
            asked.append(self)
        return made_by(self, blocks)

    made_by = decode_processes.DecodeProcess.make
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(decode_processes.DecodeProcess, "make", killing)
        patched.setattr(decode_processes, "_PATIENCE_SECONDS", patience)
        patched.setattr(decode_processes, "_ENDING_SECONDS", 0.5)
        begun = time.monotonic()
        images._ahead.want([0])
        images._ahead.finish(lambda blocks: None)
    assert len(killed) == (CORES + 1 if are_all else 1)
    assert not are_all or len(asked) == len(set(asked)), "none is asked again that has ended"
    assert how == signal.SIGSTOP or time.monotonic() - begun < patience
    assert np.array_equal(images.images(np.arange(COUNT)), files.raw(np.arange(COUNT)))
    images.check_unchanged(checksums=True)
    wait_until(lambda: set(children()) <= set(before))


KILLED = """
import contextlib, os, sys, time, warnings
from pathlib import Path
import pytest
from tests.data import test_decode_processes as tests

warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
tests.pretend_four_cores(pytest.MonkeyPatch())
files, place = tests.listed(Path(sys.argv[1])), Path(sys.argv[2])
images = tests.ahead(files, None if place.name == "memory" else place)
real, first = type(images._ahead)._make_by, [True]

def slow(self, process, blocks):
    real(self, process, blocks)
    with contextlib.suppress(IndexError):
        first.pop()
        copy = os.fork()  # with all connections, as a worker of a DataLoader has them
        if not copy:
            time.sleep(600)
        print(copy, *tests.children(), flush=True)
    sys.stdin.readline()

type(images._ahead)._make_by = slow
images._ahead.want([0])
images._ahead.finish(lambda blocks: None)
"""


@pytest.mark.parametrize("where", ["pack", pytest.param("memory", marks=pytest.mark.slow)])
def test_nothing_is_left_of_a_reader_that_is_killed(where: str, photos: Path, tmp_path: Path) -> None:
    path = tmp_path / ("a.pack" if where == "pack" else "memory")
    child = fork_python(KILLED, photos, path)
    copy, *others = [int(pid) for pid in line(child).split()]
    processes = [pid for pid in others if pid != copy]
    assert len(processes) == CORES + 1
    assert all(os.getsid(pid) != os.getsid(child.pid) for pid in processes), "Ctrl-C is not for them"
    opened = []
    for file in [file for pid in processes for file in Path(f"/proc/{pid}/fd").iterdir()]:
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            opened.append(os.readlink(file))
    assert not [name for name in opened if name.startswith("/dev/shm")], "which would outlast them"
    if where == "memory":  # as when memory has run out: the process that would end the others is killed too
        os.kill(processes[0], signal.SIGKILL)
    child.send_signal(signal.SIGKILL)  # and not the copy
    child.wait()
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes))
    os.kill(copy, signal.SIGKILL)
    child.communicate()
    files = listed(photos)
    if where == "pack":
        assert partial_path(path).exists()
        images = ahead(files, path, processes=False)
        assert np.array_equal(images.images(np.arange(COUNT)), files.raw(np.arange(COUNT)))
        images.check_unchanged(checksums=True)
        assert path.exists()


def test_the_memory_of_images_is_free_when_nobody_reads_them(photos: Path) -> None:
    files = listed(photos)
    layout = Layout("", COUNT, files.input_shape)
    images = HeldAhead(layout, files.raw, Listed(files.reader, files.listed))
    assert any("memfd:" in name for name in open_files())
    images._ahead.want([0])
    images._ahead.finish(lambda blocks: None)
    del images
    gc.collect()
    assert not any("memfd:" in name for name in open_files())


def open_files() -> list[str]:
    found = list[str]()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # of the listing itself
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return found


@pytest.mark.parametrize("missing", ["the interpreter", "what it imports", "descriptors"])
def test_threads_go_on_where_processes_cannot_be_started(
    missing: str, photos: Path, by_processes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "the interpreter":
        monkeypatch.setattr(sys, "executable", "/no/such/python")
    elif missing == "what it imports":
        monkeypatch.setattr(decode_processes, "_START", "import no_such_module")
        monkeypatch.setattr(
            decode_processes, "_START_SECONDS", 1e6
        )  # which need not pass: their ends are seen
    else:
        monkeypatch.setattr(decode_processes.socket, "socketpair", no_more_descriptors)
    files = listed(photos)
    images = ahead(files, None)
    assert np.array_equal(images.images(np.arange(COUNT)), files.raw(np.arange(COUNT)))
    images._ahead.finish(lambda blocks: None)
    assert (images._ahead.error, by_processes) == (None, [])


def no_more_descriptors() -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class Process:
    """One that is ready from the second look on, and may be killed."""

    def __init__(self, *given: Any) -> None:
        self.looks, self.needs, self.has_ended = 0, 2, False

    @property
    def is_ready(self) -> bool:
        return self.looks >= self.needs and not self.has_ended

    def look(self) -> None:
        self.looks += 1


@pytest.mark.parametrize(
    ("rate", "expected"), [(400, [0, 4, 4, 4, 4]), (104, [0, 4, 4, 0, 0])], ids=["quicker", "not quicker"]
)
def test_processes_make_blocks_if_they_make_more_than_threads(rate: int, expected: list[int]) -> None:
    processes, threads, made, counts = processes_without_start(10_000), ThreadCount(CORES), 0, list[int]()
    for second in range(len(expected) + 2):
        is_decided = processes.see(made, second, threads)
        threads.see(made, second)
        made += rate if processes.count else 100
        if second > 1:
            counts.append(processes.count)
        assert is_decided == (second > 1 and not processes._is_over)
    assert counts == expected


def test_processes_begin_when_all_have_started_that_were_not_killed() -> None:
    processes, threads = processes_without_start(10_000), ThreadCount(CORES)
    threads.rate = 100.0
    assert processes.see(0, 0, threads)
    slow, killed = cast("list[Process]", processes._all[:2])
    slow.needs, killed.has_ended = 4, True
    counts = []
    for second in (1, 2, 3):
        assert processes.see(0, second, threads)
        counts.append(processes.count)
    assert counts == [0, 0, CORES]
    assert processes.see(200, 3.1, threads)
    assert processes.count, "a tenth of a second tells little of how many they make"
    for made, second in ((1_000, 4), (1_001, 33)):
        assert processes.see(made, second, threads)
    assert processes.count, "they are compared once"


def test_processes_that_do_not_start_for_long_are_given_up() -> None:
    processes, threads = processes_without_start(10_000), ThreadCount(CORES)
    threads.rate = 100.0
    assert processes.see(0, 0, threads)
    cast("Process", processes._all[0]).needs = 1_000
    assert processes.see(0, 29, threads)
    assert not processes.see(0, 31, threads)
    assert processes.count == 0


def test_a_process_is_sent_some_images_and_a_whole_block_at_least() -> None:
    sides = {200: 16, 8: 1}
    found = {
        side: DecodeProcesses(
            decode_processes.Destination(Layout("", 9, (3, side, side)), cast("Any", None), ()),
            lambda first, end: [],
        ).at_once
        for side in sides
    }
    assert found == sides


def test_threads_alone_make_what_is_little() -> None:
    processes, threads = processes_without_start(250), ThreadCount(CORES)
    threads.rate = 100.0
    assert not processes.see(0, 0, threads)
    assert processes._server is None
    few, threads = processes_without_start(10_000), ThreadCount(3)
    threads.rate = 100.0
    assert not few.see(0, 0, threads), "of cores"


def test_a_frozen_program_is_not_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its `sys.executable` is no interpreter, but the program itself."""
    processes, threads = processes_without_start(10_000), ThreadCount(CORES)
    threads.rate = 100.0
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert not processes.see(0, 0, threads)
    assert processes._server is None


def test_threads_go_on_when_all_processes_have_ended() -> None:
    processes, threads = processes_without_start(10_000), ThreadCount(CORES)
    threads.rate = 100.0
    for second in range(3):
        assert processes.see(0, second, threads)
    assert processes.count == CORES
    for process in processes._all:
        process.has_ended = True
    assert not processes.see(0, 3, threads)
    assert processes.count == 0


def processes_without_start(num_blocks: int) -> DecodeProcesses:
    layout = Layout("", num_blocks, (3, 200, 200))
    destination = decode_processes.Destination(layout, cast("Any", None), ())
    processes = DecodeProcesses(destination, lambda first, end: [])

    def start(count: int) -> None:
        processes._server = cast("Any", object())
        processes._all = [cast("Any", Process()) for _ in range(count)]

    cast("Any", processes)._start = start
    return processes
