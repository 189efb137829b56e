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
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.helpers.mutations import mutate

PROCESSOR = 5  # seconds of a command
_PATIENCE = 20  # seconds in which a command does nothing
_MEMORY = 3 << 30  # bytes beyond those of the process that forks
RUN, RECIPE = "STUDENT", "small.toml"
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
        self.names = dict[str, str]()
        self.modules: set[str] | None = None
        self.master.mkdir(parents=True)
        self.outside.mkdir()
        self.log.mkdir()
        (self.outside / "canary").write_text("canary")
        make_master(self.master)
        for command in ("teacher", "cache-logits", "student"):
            self._make(f"{command} -r {RECIPE}")
        self._keep_a_checkpoint()
        students = sorted(self.master.glob("runs/small/student-linear-kd-*/seed-0"))
        self.names = {
            "STUDENT": str(students[0].relative_to(self.master)),
            "TEACHER": str(next(self.master.glob("runs/small/teacher-*")).relative_to(self.master)),
            "CACHE": str(next(self.master.glob("caches/*.h5")).relative_to(self.master)),
        }
        for command in ("export STUDENT --formats pt2", "report STUDENT", "predict STUDENT images"):
            self._make(command)
        self.modules = self._modules_of_all()
        for name in sorted(self.modules - set(sys.modules)):
            if not name.startswith("vl_convert"):  # it is large, and seldom used
                with contextlib.suppress(Exception):
                    __import__(name)
        gc.collect()
        gc.freeze()  # so that a fork copies no page of what lives for ever
        self.listing = self._listing()

    def run(self, seed: str) -> Outcome:
        """One to three changes, and a command."""
        chance = random.Random(seed)
        command = chance.choices([one for _, one in COMMANDS], [weight for weight, _ in COMMANDS])[0]
        self._fresh()
        places = [self.work / "runs"] * 6 + [self.work / "caches"] * 2 + [self.work / "images", self.work]
        changes = [
            mutate(chance.choice(places), chance, self.outside) for _ in range(chance.choice([1, 1, 1, 2, 3]))
        ]
        return self._outcome(seed, changes, command, pictures=chance.random() < 0.05)

    def _outcome(self, seed: str, changes: list[str], command: str, pictures: bool) -> Outcome:
        code, used, peak, said, noted = self._execute(command, pictures=pictures)
        problems = list(noted)
        if code not in (0, 1, 2):
            problems.append(f"exit code {code}")
        for mark in ("Traceback", "unexpected error", "Warning", "Error:"):
            if mark in said:
                problems.append(f"says {mark}")
        if used > PROCESSOR:
            problems.append(f"took {used:.1f} s of the processor")
        if peak > 1 << 30:
            problems.append(f"took {peak >> 20} MiB")
        if self._listing() != self.listing:
            problems.append("changed what lies outside")
            self._restore()
        if code == 1 and not said.strip():
            problems.append("exits with 1 and says nothing")
        return Outcome(seed, tuple(changes), command, code, tuple(problems), round(used, 2), said[-1500:])

    def _named(self, word: str) -> str:
        """A word of a command, with the path that STUDENT and the like stand for."""
        first, *rest = word.split("/")
        return "/".join([self.names.get(first, first), *rest])

    def _make(self, command: str) -> None:
        code, _, _, said, _ = self._execute(command, self.master)
        assert code == 0, f"{command}: {said}"

    def _keep_a_checkpoint(self) -> None:
        """The run of another student, killed after its first epoch."""
        words = f"student -r {RECIPE} --set student.lr=0.05"
        os.environ["DECANT_FUZZ_STOP"] = "1"
        try:
            self._execute(words, self.master)
        finally:
            del os.environ["DECANT_FUZZ_STOP"]

    def _modules_of_all(self) -> set[str]:
        """Every module that an unchanged folder has imported, by any of the commands."""
        found = set(sys.modules)
        for _, command in COMMANDS:
            self._fresh()
            code, _, _, said, noted = self._execute(command, everything=True)
            assert code == 0, f"{command}: exit {code}: {said}"
            found |= set(noted)
        return found

    def _fresh(self) -> None:
        if self.work.exists():
            _force_remove(self.work)
        shutil.copytree(self.master, self.work, symlinks=True)

    def _listing(self) -> list[tuple[str, int, int]]:
        return sorted(
            (str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in self.outside.rglob("*")
        )

    def _restore(self) -> None:
        _force_remove(self.outside)
        self.outside.mkdir()
        (self.outside / "canary").write_text("canary")
        self.listing = self._listing()

    def _execute(
        self,
        command: str,
        folder: Path | None = None,
        everything: bool = False,
        pictures: bool = True,
    ) -> tuple[int, float, int, str, list[str]]:
        """Exit code, seconds of the processor, peak bytes, what was said, and what the process noted of itself:
        problems, or with `everything` its modules.
        """
        words = [self._named(word) for word in shlex.split(command)]
        known = None if everything else self.modules
        out, notes = self.log / "out", self.log / "notes"
        for path in (out, notes):
            path.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            _become(words, folder or self.work, out, notes, known, pictures)
        status, usage = _wait(child)
        noted = notes.read_text("utf-8", "replace").split("\n") if notes.exists() else []
        code = -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        said = out.read_text("utf-8", "replace")
        peak = 1024 * max(0, usage.ru_maxrss - resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
        return code, usage.ru_utime + usage.ru_stime, peak, said, [line for line in noted if line]


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


def _become(
    words: list[str], folder: Path, out: Path, notes: Path, known: set[str] | None, pictures: bool
) -> None:
    """In the fork: the command, which notes what it does that it should not."""
    code = 99
    try:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for stream in (1, 2):
            os.dup2(descriptor, stream)
        sys.stdout = open(1, "w", closefd=False, errors="backslashreplace")  # noqa: SIM115
        sys.stderr = open(2, "w", closefd=False, buffering=1, errors="backslashreplace")  # noqa: SIM115
        os.chdir(folder)
        size = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (size + _MEMORY, size + _MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (4 * PROCESSOR, 4 * PROCESSOR))
        found = list[str]()
        if known is not None:
            sys.addaudithook(lambda event, args: _audit(event, args, folder, found))
        sys.argv = ["decant", *words]
        from decant.pipeline.cli.main import main

        if not pictures:
            from decant.pipeline.report import output

            output._picture = lambda subject: None  # which takes longer than all else
        if os.environ.get("DECANT_FUZZ_STOP"):
            _stop_after_an_epoch()
        try:
            main()
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 1
        sys.stdout.flush()
        if known is None:
            found = sorted(sys.modules)
        else:
            found += [f"imports {name}" for name in sorted(set(sys.modules) - known) if not _is_ours(name)]
        notes.write_text("\n".join(found))
    except BaseException as error:
        with contextlib.suppress(BaseException):
            print(f"Traceback of the bench: {error!r}", file=sys.stderr)
    finally:
        os._exit(code)


def _stop_after_an_epoch() -> None:
    from decant.pipeline.training import loop

    save = loop.save_epoch

    def save_and_end(*args: Any, **named: Any) -> None:
        save(*args, **named)
        os._exit(0)

    loop.save_epoch = save_and_end  # type: ignore[attr-defined]


def _is_ours(name: str) -> bool:
    return name.partition(".")[0] in ("decant", "cache", "pipeline", "encodings", "PIL")


def _audit(event: str, args: tuple[Any, ...], folder: Path, found: list[str]) -> None:
    """Notes writes outside of the work folder, and whatever starts other programs."""
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
    elif event in (
        "subprocess.Popen",
        "os.system",
        "os.exec",
        "os.posix_spawn",
        "socket.connect",
        "ctypes.dlopen/x",
    ):
        found.append(f"{event} {args!r:.80}")
    for path in paths:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if isinstance(path, str | Path) and str(path) != os.devnull:
            where = os.path.join(os.getcwd(), path)
            if event in ("open", "os.truncate", "os.chmod"):  # the others do not follow a link
                where = os.path.realpath(where)
            where = os.path.join(os.path.realpath(os.path.dirname(where)), os.path.basename(where))
            if not where.startswith(
                (str(folder.resolve()) + os.sep, "/tmp/decant-", "/dev/shm/sem", "/dev/null")
            ):
                found.append(f"{event} {where!r:.120}")


def _force_remove(folder: Path) -> None:
    for path in [folder, *folder.rglob("*")]:
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o700)
    shutil.rmtree(folder)


def outcomes(folder: Path, seed: str, count: int) -> Iterator[Outcome]:
    """`count` commands, each on a changed folder."""
    bench = Bench(folder)
    for number in range(count):
        yield bench.run(f"{seed}-{number}")


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
        print(json.dumps(asdict(Bench(folder).run(sys.argv[2])), indent=1))
        return
    codes, started, slowest, by_command = Counter[str](), time.monotonic(), 0.0, Counter[str]()
    for number, outcome in enumerate(outcomes(folder, sys.argv[2], int(sys.argv[3]))):
        codes[f"{outcome.command.split()[0]} {outcome.code}"] += 1
        slowest = max(slowest, outcome.seconds)
        by_command[outcome.command] += outcome.seconds
        if outcome.problems:
            codes["problems"] += 1
            print(json.dumps(asdict(outcome)), flush=True)
        if number % 500 == 499:
            print(
                f"# {number + 1} in {time.monotonic() - started:.0f} s, slowest {slowest}: {dict(codes)}",
                flush=True,
            )
    print(by_command, resource.getrusage(resource.RUSAGE_CHILDREN), resource.getrusage(resource.RUSAGE_SELF))
    print(f"# {sum(codes.values()) - codes['problems']} commands, slowest {slowest} s: {dict(codes)}")


if __name__ == "__main__":
    main()
