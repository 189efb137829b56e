"""Kills whole commands at random moments and steps, and starts them again: `python -m tests.helpers.killing_commands
KIND=KILLS … FOLDER SEED`.

A command runs in a forked process, so that a kill costs no import of torch. It is killed again and again in one folder,
until it ends; then everything that it made is compared with what a command left that was never killed: the same files,
with the same content. No draft, no process and no shared memory may be left. Run in a process of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import io
import itertools
import json
import os
import random
import re
import shutil
import signal
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # a forked process cannot use its parent's threads

import numpy as np
from PIL import Image

from tests.helpers.killing import die_at

SHARED_MEMORY = Path("/dev/shm")
PACK_HEADER = 4096
PATIENCE = 60.0
"""Seconds until processes that a killed one has left must be gone."""
_CHILDREN_COME_HERE, _OWN_MOUNTS, _PRIVATE = 36, 0x20000, 0x40000 | 0x4000  # of prctl, unshare and mount
_OF_THE_C_LIBRARY = re.compile("sem[.][A-Za-z0-9]{6}")
"""A semaphore of 32 bytes on its way to its name; killed just then, a process leaves it, and nobody can tell whose."""
_SMALL = (
    *("teacher.network.width=4", "teacher.epochs=2", "teacher.batch_size=256"),
    *("student.network.hidden=8", "student.epochs=2", "student.batch_size=256", "student.seeds=1"),
)
_IMAGES = """
[data]
name = "imagefolder"
root = "images"
pack = "{pack}"
[teacher]
network = "linear"
epochs = {epochs}
batch_size = 16
[student]
network = "linear"
epochs = 1
"""


@dataclass(frozen=True)
class Command:
    """A command to be killed, and those that make what it needs."""

    words: tuple[str, ...]
    before: tuple[tuple[str, ...], ...] = ()
    recipe: str | None = None
    images: int = 0
    """Of each class and part."""


_CHOSEN = (
    *("data.validation=0.2", "student.epochs=4", "student.evaluate_every=1", "student.patience=3"),
    *('student.keep="best"', 'student.average="ema"', "teacher.epochs=2"),
)
"""Epochs that are chosen by a validation part, of weights that are averaged."""


def _digits(phase: str, *more: str) -> tuple[str, ...]:
    return (phase, *(word for value in (*_SMALL, *more) for word in ("--set", value)), "--store", "store")


_STUDENTS = tuple(map(_digits, ("teacher", "cache-logits", "student")))
_RUN = "runs/digits/student-mlp-kd-*/seed-0"
KINDS = {
    "teacher": Command(_digits("teacher")),
    "student": Command(_digits("student"), _STUDENTS[:2]),
    "chosen": Command(
        _digits("student", *_CHOSEN), (_digits("teacher", *_CHOSEN), _digits("cache-logits", *_CHOSEN))
    ),
    "report": Command(_digits("report"), _STUDENTS),
    "export": Command(("export", _RUN, "--samples", "20", "--calibration", "20"), _STUDENTS),
    "pack": Command(
        ("teacher", "--recipe", "mine.toml"), recipe=_IMAGES.format(pack="always", epochs=1), images=150
    ),
    "workers": Command(
        ("teacher", "--recipe", "mine.toml"), recipe=_IMAGES.format(pack="never", epochs=3), images=30
    ),
}
"""`pack` builds a pack of images first; `workers` has processes of its own that decode images."""


def prepare(command: Command, folder: Path) -> None:
    """Makes what the command needs, in an empty folder."""
    folder.mkdir(parents=True)
    if command.recipe is not None:
        (folder / "mine.toml").write_text(command.recipe)
        drawn = np.random.default_rng(0)
        for part, name, number in itertools.product(("train", "test"), "ab", range(command.images)):
            path = folder / "images" / part / name / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(drawn.integers(0, 256, (16, 16, 3)).astype(np.uint8)).save(path)
    for words in command.before:
        assert wait(start(words, folder)) == 0, words


def start(words: tuple[str, ...], folder: Path, at_first: Callable[[], None] = lambda: None) -> int:
    """`decant WORDS` in a process of its own, which calls `at_first` before anything else; its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        os.environ["DECANT_STORE"] = "store"
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(os.open(folder.parent / "stderr", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
        ticks = itertools.count()
        time.perf_counter = lambda: (
            next(ticks) / 1024
        )  # what is measured is then the same each time, to the last bit
        at_first()
        found = [
            str(next(iter(folder.glob(word))).relative_to(folder)) if "*" in word else word for word in words
        ]
        run(found)
        code = 0
    finally:
        os._exit(code)


def run(words: list[str]) -> None:
    """The command, in this process; image files are decoded as they are needed, in workers."""
    from decant.pipeline.cli.main import decant
    from decant.pipeline.data import image_folder
    from decant.pipeline.training import loading

    image_folder.MAX_ARRAY_BYTES = 0
    workers = loading.default_workers
    loading.default_workers = lambda lazy: min(2, workers(lazy))
    with contextlib.redirect_stdout(io.StringIO()):
        decant.main(words, standalone_mode=False)


def wait(child: int, seconds: float | None = None) -> int | None:
    """The exit code of a process, negative where a signal ended it; kills it after so many seconds."""
    if seconds is not None:
        time.sleep(seconds)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def everything_in(folder: Path) -> dict[str, object]:
    """What lies in a folder: each file by its name, with what it says. Of locks and counts the names alone; packs
    without their key, which is of the times of the images.
    """
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        name = re.sub("-[0-9a-f]{16}[.]pack", "-KEY.pack", str(path.relative_to(folder)))
        if path.is_dir() or path.suffix in (".lock", ".uses"):
            found[name] = path.suffix
        elif path.suffix == ".pt2":
            with zipfile.ZipFile(path) as archive:
                found[name] = {member: archive.read(member) for member in archive.namelist()}
        elif path.suffix == ".pack":
            found[name] = path.read_bytes()[PACK_HEADER:]
        elif path.name == "export.json":
            said = json.loads(path.read_text())
            for entry in said["formats"].values():
                del entry["sha256"], entry["bytes"]  # of archives that hold when they were made
            found[name] = said
        else:
            found[name] = path.read_bytes()
    return found


def differences(expected: dict[str, object], found: dict[str, object]) -> list[str]:
    """The files in which two folders differ."""
    return [
        f"{name}: {'left out' if name not in found else 'left behind' if name not in expected else 'differs'}"
        for name in sorted({*expected, *found})
        if expected.get(name) != found.get(name)
    ]


def wait_for_processes() -> None:
    """Returns when no process is left that a killed one began; they have become children of this process."""
    until = time.monotonic() + PATIENCE
    with contextlib.suppress(ChildProcessError):
        while True:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                assert time.monotonic() < until, "processes are left behind"
                time.sleep(0.02)


def own_surroundings() -> bool:
    """Has the orphans of children become children of this process, and where the system allows it gives it shared
    memory of its own; whether it did.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_CHILDREN_COME_HERE, 1, 0, 0, 0)
    if libc.unshare(_OWN_MOUNTS) or libc.mount(b"none", b"/", None, _PRIVATE, None):
        return False
    return libc.mount(b"none", bytes(SHARED_MEMORY), b"tmpfs", 0, None) == 0


def kill_until_done(kind: str, root: Path, kills: int, seed: int) -> int:
    """Kills until there were `kills`; returns how many commands were finished all the same. Raises AssertionError where
    one of them did not leave what one leaves that was never killed.
    """
    alone = own_surroundings()
    command, chance = KINDS[kind], random.Random(seed)
    root, work = root.absolute(), root.absolute() / "work"
    prepare(command, root / "base")
    shutil.copytree(root / "base", work)
    started = time.monotonic()
    assert wait(start(command.words, work)) == 0, (root / "stderr").read_text()[-2000:]
    usual, expected = time.monotonic() - started, everything_in(work)
    done = finished = 0
    while done < kills:
        shutil.rmtree(work)
        shutil.copytree(root / "base", work)
        here = 0
        while True:
            last = here >= KILLS_OF_A_FOLDER or done >= kills
            if last:
                code = wait(start(command.words, work))
            elif chance.random() < 0.5:
                code = wait(start(command.words, work), chance.uniform(0, usual))
            else:
                step, halfway = chance.randrange(1, STEPS_OF_A_COMMAND), chance.random() < 0.5
                code = wait(start(command.words, work, partial(die_at, step, halfway)))
            if code != -signal.SIGKILL:
                break
            done, here = done + 1, here + 1
            print(f"{kind}: {done} kills, {finished} commands finished", file=sys.stderr, flush=True)
        assert code == 0, (code, (root / "stderr").read_text()[-2000:])
        wait_for_processes()
        assert not differences(expected, everything_in(work)), differences(expected, everything_in(work))
        shared = [path.name for path in SHARED_MEMORY.iterdir() if not _OF_THE_C_LIBRARY.fullmatch(path.name)]
        assert not alone or not shared, shared
        finished += 1
    return finished


KILLS_OF_A_FOLDER = 5
"""Then the command may finish."""
STEPS_OF_A_COMMAND = 40
"""Among so many first calls of the system that change files, one is chosen; a command with fewer is not killed."""


TRAINING = (
    *("decant.cache.dataset", "decant.pipeline.phases.student", "decant.pipeline.phases.teacher"),
    *("decant.pipeline.phases.cache_logits", "rich.progress", "sklearn.datasets"),
)
IMPORTED = (
    *(
        *TRAINING,
        "decant.pipeline.report.output",
        "decant.pipeline.report.page",
        "decant.pipeline.deploy.export",
    ),
    *("altair", "jinja2", "onnx", "onnxruntime", "onnxscript", "vl_convert"),
)
"""What commands import, once for every fork."""


if __name__ == "__main__":
    for name in IMPORTED:
        importlib.import_module(name)
    *chosen, folder, seed = sys.argv[1:]
    for kind, _, kills in (each.partition("=") for each in chosen):
        finished = kill_until_done(kind, Path(folder) / kind, int(kills), int(seed))
        print(f"{kind}: {kills} kills, {finished} commands finished, all equal", flush=True)
