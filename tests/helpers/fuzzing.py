"""Runs commands on changed copies of a work folder, each in a fork of one process that has imported everything.

`python -m tests.helpers.fuzzing FOLDER SEED COUNT` by hand; what is wrong is printed as a line of JSON.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import resource
import shlex
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.helpers.memory import resident
from tests.helpers.mutations import mutate

PROCESSOR = 5  # seconds of a command
_PATIENCE = 20  # seconds in which a command does nothing
_MEMORY = 3 << 30  # bytes beyond those of the process that forks
RECIPE = "small.toml"
_AT_ONCE = 100  # commands in a fork
COMMANDS = (  # each with how often it is taken
    (8, "status -r small.toml"),
    (6, "status --json -r STUDENT/recipe.toml"),
    (6, "evaluate -r small.toml"),
    (1, "report STUDENT"),
    (1, "report -r small.toml"),
    (4, "predict STUDENT images/test"),
    (2, "predict TEACHER images/test/b"),
    (1, "export STUDENT --formats pt2"),
    (3, "cache ls"),
    (3, "cache info CACHE"),
    (3, "cache verify CACHE"),
    (1, "cache verify -r small.toml"),
    (2, "cache diff CACHE CACHE"),
    (4, "cache path -r small.toml"),
    (3, "cache gc --unused-days 0 --delete"),
    (3, "student -r small.toml"),
    (3, "teacher -r small.toml"),
    (2, "cache-logits -r small.toml"),
)
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass(frozen=True)
class Outcome:
    """What a command on a changed folder came to."""

    seed: str
    changes: tuple[str, ...]
    command: str
    code: int
    problems: tuple[str, ...]
    seconds: float
    said: str


def make_master(folder: Path) -> None:
    """A work folder with a finished teacher, cache and student of a few pictures, and with a student half way."""
    import numpy as np
    from PIL import Image

    chance = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate("abc"):
            for number in range(count):
                pixels = chance.integers(0, 120, (8, 8, 3)) + 60 * (np.arange(3) == label)
                path = folder / "images" / part / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels.astype(np.uint8)).save(path)
    (folder / RECIPE).write_text(
        '[data]\nname = "imagefolder"\nroot = "images"\npack = "never"\n[views]\nsize = 8\n'
        '[teacher]\nnetwork = { name = "mlp", hidden = 8 }\nepochs = 2\nbatch_size = 6\n'
        '[student]\nnetwork = "linear"\nepochs = 2\nbatch_size = 6\n'
    )


class Bench:
    """The folder that commands run in, made anew for each of them."""

    def __init__(self, folder: Path) -> None:
        self.master, self.work, self.outside = folder / "master", folder / "work", folder / "outside"
        self.log = folder / "log"
        for path in (self.master, self.outside, self.log):
            path.mkdir(parents=True)
        (self.outside / "canary").write_text("canary")
        self.names = dict[str, str]()
        self.modules: set[str] | None = None
        make_master(self.master)
        found = set(sys.modules)
        for command in ("teacher", "cache-logits", "student"):
            found |= self._make(f"{command} -r {RECIPE}")
        found |= self._make(f"student -r {RECIPE} --set student.lr=0.05", stop=True)
        students = sorted(self.master.glob("runs/small/student-linear-kd-*/seed-0"))
        self.names = {
            "STUDENT": str(
                next(path for path in students if (path / "result.json").exists()).relative_to(self.master)
            ),
            "TEACHER": str(next(self.master.glob("runs/small/teacher-*")).relative_to(self.master)),
            "CACHE": str(next(self.master.glob("caches/*.h5")).relative_to(self.master)),
        }
        found |= self._make("export STUDENT --formats pt2") | self._make("report STUDENT")
        for name in ("report.html", "curves.png", "export/student.pt2"):  # which are large, and nobody reads
            (self.master / self.names["STUDENT"] / name).unlink(missing_ok=True)
        for _, command in COMMANDS:
            if not command.startswith(("export", "report", "cache gc")):
                found |= self._make(command)
        self.modules = found
        for name in sorted(found - set(sys.modules)):
            if not name.startswith("vl_convert"):  # it is large, and seldom used
                with contextlib.suppress(Exception):
                    __import__(name)
        gc.collect()
        gc.freeze()  # so that a fork copies no page of what lives for ever
        self.listing = self._listing()

    def run(self, seeds: Sequence[str]) -> Iterator[Outcome]:
        """One to three changes and a command for each seed, in forks that live until one goes wrong."""
        rest = list(seeds)
        while rest:
            notes = self.log / "outcomes"
            notes.unlink(missing_ok=True)
            child = os.fork()
            if not child:
                self._run_all(rest, notes)
            status, _ = _wait(child)
            lines = notes.read_text("utf-8").splitlines() if notes.exists() else []
            for line in lines:
                yield Outcome(**json.loads(line))
            rest = rest[len(lines) :]
            if (status or not lines) and rest:
                seed, rest = rest[0], rest[1:]
                yield self._died(seed, status)

    def _run_all(self, seeds: Sequence[str], notes: Path) -> None:
        """In the fork: every seed, until something is wrong, as what comes after it may be wrong therefore."""
        code = 99
        try:
            _limit_memory()
            watch = Watch(self.work)
            sys.addaudithook(watch.audit)
            for seed in seeds:
                outcome = self._try(seed, watch)
                with open(notes, "a", encoding="utf-8") as file:
                    file.write(json.dumps(asdict(outcome)) + "\n")
                if outcome.problems:
                    break
            code = 0
        except BaseException:
            (self.log / "out").write_text(traceback.format_exc())
        finally:
            os._exit(code)

    def _drawn(self, seed: str) -> tuple[str, list[str], bool]:
        """The command of a seed, the changes that are then made to the work folder, and whether pictures are drawn."""
        chance = random.Random(seed)
        command = chance.choices([one for _, one in COMMANDS], [weight for weight, _ in COMMANDS])[0]
        if self.work.exists():
            _force_remove(self.work)
        shutil.copytree(self.master, self.work, symlinks=True)
        places = [self.work / "runs"] * 6 + [self.work / "caches"] * 2 + [self.work / "images", self.work]
        changes = [
            mutate(chance.choice(places), chance, self.outside) for _ in range(chance.choice([1, 1, 1, 2, 3]))
        ]
        return command, changes, chance.random() < 0.05

    def _try(self, seed: str, watch: Watch) -> Outcome:
        command, changes, pictures = self._drawn(seed)
        before, started = set(sys.modules), resource.getrusage(resource.RUSAGE_SELF)
        words = [self._named(word) for word in shlex.split(command)]
        watch.found.clear()
        peak, code, said = _said_by(words, self.work, self.log / "out", pictures)
        ended = resource.getrusage(resource.RUSAGE_SELF)
        used = ended.ru_utime + ended.ru_stime - started.ru_utime - started.ru_stime
        problems = [*watch.found]
        new = set(sys.modules) - before - (self.modules or set())
        problems += [f"imports {name}" for name in sorted(new) if not _is_ours(name)]
        if code not in (0, 1, 2):
            problems.append(f"exit code {code}")
        problems += [f"says {mark}" for mark in ("Traceback", "unexpected error", "Warning:") if mark in said]
        if used > PROCESSOR:
            problems.append(f"took {used:.1f} s of the processor")
        if peak > 1 << 10:
            problems.append(f"took {peak} MiB")
        if self._listing() != self.listing:
            problems.append("changed what lies outside")
            self._restore()
        if code == 1 and not said.strip():
            problems.append("exits with 1 and says nothing")
        return Outcome(seed, tuple(changes), command, code, tuple(problems), round(used, 2), said[-1500:])

    def _died(self, seed: str, status: int) -> Outcome:
        command, changes, _ = self._drawn(seed)
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        said = (self.log / "out").read_text("utf-8", "replace")
        return Outcome(
            seed, tuple(changes), command, code, (f"the process ended with {code}",), 0.0, said[-1500:]
        )

    def _named(self, word: str) -> str:
        """A word of a command, with the path that STUDENT and the like stand for."""
        first, *rest = word.split("/")
        return "/".join([self.names.get(first, first), *rest])

    def _make(self, command: str, stop: bool = False) -> set[str]:
        """Runs a command in the unchanged folder, until after an epoch with `stop`; the modules that it imported."""
        out, notes = self.log / "out", self.log / "modules"
        child = os.fork()
        if not child:
            code = 99
            try:
                if stop:
                    _stop_after_an_epoch(notes)
                words = [self._named(word) for word in shlex.split(command)]
                _, code, _ = _said_by(words, self.master, out, pictures=True)
                notes.write_text("\n".join(sys.modules))
            finally:
                os._exit(code)
        status, _ = _wait(child)
        assert not status, f"{command}: {out.read_text('utf-8', 'replace')}"
        return set(notes.read_text("utf-8").split("\n"))

    def _listing(self) -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in self.outside.rglob("*")
        )

    def _restore(self) -> None:
        _force_remove(self.outside)
        self.outside.mkdir()
        (self.outside / "canary").write_text("canary")
        self.listing = self._listing()


class Watch:
    """Notes what a process does that no command should: writes outside of the work folder, other programs."""

    def __init__(self, folder: Path) -> None:
        from decant.pipeline.report import library

        self.folder, self.found, self.on = folder.resolve(), list[str](), False
        self.own_program = library.COMMAND

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        """For `sys.addaudithook`."""
        if not _at_work:
            return
        paths: tuple[Any, ...] = ()
        if (event == "open" and isinstance(args[2], int) and args[2] & _WRITES) or event in (
            "os.remove",
            "os.rmdir",
            "os.mkdir",
            "os.chmod",
            "os.truncate",
            "os.utime",
            "shutil.rmtree",
        ):
            paths = args[:1]
        elif event in ("os.rename", "os.link", "os.symlink"):
            paths = args[1:2] if event == "os.symlink" else args[:2]
        elif event in ("subprocess.Popen", "os.posix_spawn") and list(args[1]) == self.own_program:
            return  # by either, as Python likes
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect"):
            self.found.append(f"{event} {args!r:.80}")
        for path in paths:
            if isinstance(path, bytes):
                path = os.fsdecode(path)
            if isinstance(path, str | Path):
                self._note(event, str(path))

    def _note(self, event: str, path: str) -> None:
        where = os.path.join(os.getcwd(), path)
        if event in ("open", "os.truncate", "os.chmod"):  # the others do not follow a link
            where = os.path.realpath(where)
        where = os.path.join(os.path.realpath(os.path.dirname(where)), os.path.basename(where))
        if not where.startswith((f"{self.folder}{os.sep}", "/tmp/decant-", "/dev/shm/sem", os.devnull)):
            self.found.append(f"{event} {where!r:.120}")


_at_work: list[bool] = []
"""Not empty while a command runs."""


def _said_by(words: list[str], folder: Path, out: Path, pictures: bool) -> tuple[int, int, str]:
    """MiB that a command takes in this process, its exit code, and what it says."""
    from decant.pipeline.cli.main import main
    from decant.pipeline.report import output
    from decant.pipeline.support.notices import forget_what_was_said

    saved = os.environ.copy(), list(sys.path), sys.argv, sys.stdout, sys.stderr, output._picture
    out.unlink(missing_ok=True)
    streams = [os.dup(1), os.dup(2)]
    descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    code = 0
    forget_what_was_said()
    try:
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        os.chdir(folder)
        sys.stdout = open(1, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
        sys.argv = ["decant", *words]
        if not pictures:
            output._picture = lambda subject: None  # which takes longer than all else
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
        _at_work.append(True)
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        except BaseException as error:
            print(f"Traceback: {error!r}", file=sys.stderr)
        _at_work.clear()
        sys.stdout.flush()
        peak = (resident("VmHWM") - before) // 1024
    finally:
        _at_work.clear()
        for stream, kept in zip((1, 2), streams, strict=True):
            os.dup2(kept, stream)
            os.close(kept)
        os.close(descriptor)
        environ, path, sys.argv, sys.stdout, sys.stderr, output._picture = saved
        os.environ.clear()
        os.environ.update(environ)
        sys.path[:] = path
        os.chdir("/")
    return peak, code, out.read_text("utf-8", "replace")


def _limit_memory() -> None:
    size = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (size + _MEMORY, size + _MEMORY))


def _wait(child: int) -> tuple[int, Any]:
    """The status and the resources of a child that has ended; one that waits for long for nothing is ended."""
    pause, used, since = 0.001, "", time.monotonic()
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            return status, usage
        if pause >= 0.02:
            with contextlib.suppress(OSError):
                state, *fields = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split()
                if state == "R" or used != " ".join(fields[10:12]):
                    used, since = " ".join(fields[10:12]), time.monotonic()
        if time.monotonic() - since > _PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(pause)
        pause = min(0.02, pause * 1.5)


def _stop_after_an_epoch(notes: Path) -> None:
    from decant.pipeline.training import learner

    save = learner.save_epoch

    def save_and_end(*args: Any, **named: Any) -> None:
        save(*args, **named)
        notes.write_text("\n".join(sys.modules))
        os._exit(0)

    learner.save_epoch = save_and_end  # type: ignore[attr-defined]


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("decant", "cache", "pipeline", "encodings", "PIL")


def _force_remove(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def outcomes(folder: Path, seed: str, count: int) -> Iterator[Outcome]:
    """`count` commands, each on a changed folder."""
    bench = Bench(folder)
    for start in range(0, count, _AT_ONCE):
        yield from bench.run([f"{seed}-{number}" for number in range(start, min(count, start + _AT_ONCE))])


def prepare() -> None:
    """Imports what commands import, so that a fork need not."""
    import altair  # noqa: F401
    import torch

    import decant.cache.dataset
    import decant.pipeline.cli.main
    import decant.pipeline.deploy
    import decant.pipeline.phases.evaluate
    import decant.pipeline.phases.student
    import decant.pipeline.phases.verify
    import decant.pipeline.report.output
    import decant.pipeline.status  # noqa: F401

    torch.set_num_threads(1)


def main() -> None:
    """By hand: `FOLDER SEED COUNT`, or `FOLDER SEED-NUMBER` for one of them."""
    prepare()
    folder = Path(sys.argv[1])
    if folder.exists():
        _force_remove(folder)
    if len(sys.argv) == 3:
        print(json.dumps([asdict(one) for one in Bench(folder).run([sys.argv[2]])], indent=1))
        return
    codes, started, slowest = Counter[str](), time.monotonic(), 0.0
    for number, outcome in enumerate(outcomes(folder, sys.argv[2], int(sys.argv[3]))):
        codes[f"{outcome.command.split()[0]} {outcome.code}"] += 1
        slowest = max(slowest, outcome.seconds)
        if outcome.problems:
            codes["problems"] += 1
            print(json.dumps(asdict(outcome)), flush=True)
        if number % 500 == 499:
            print(
                f"# {number + 1} in {time.monotonic() - started:.0f} s, slowest {slowest}: {dict(codes)}",
                flush=True,
            )
    print(f"# {sum(codes.values()) - codes['problems']} commands, slowest {slowest} s: {dict(codes)}")


if __name__ == "__main__":
    main()
