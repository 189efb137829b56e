"""Runs the real command line in a process of its own."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType

from tests.helpers.forked_commands import ForkedCommand
from tests.helpers.processes import PATIENCE, ROOT

TINY = ("--set", "teacher.network.width=4", "--set", "teacher.epochs=2", "--set", "student.epochs=2")
"""The digits recipe, small enough for a test; one seed."""

# Importing torch takes longer than most commands do: each process of the suite imports it once, and forks.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "tests.helpers.commands",
        "tests.helpers.plotting_script",
        "decant.cache.dataset",
        "decant.pipeline.cli.main",
        "decant.pipeline.phases.evaluate",
        "decant.pipeline.phases.student",
        "decant.pipeline.phases.teacher",
        "decant.pipeline.phases.verify",
        "decant.pipeline.report.output",
        "decant.pipeline.report.page",
        "decant.pipeline.report.sections",
        "decant.pipeline.deploy.export",
        "decant.pipeline.status",
        "altair",
        "jinja2",
        "sklearn.datasets",  # which the diabetes come from
        "torchvision.models",
        "transformers.models.auto.modeling_auto",
        "transformers.models.llama.modeling_llama",  # which the tests' language models are
        "tests.helpers.preloaded",
    ]
)


def decant(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`decant WORDS` in the folder `cwd`, in a process that is forked when its modules have been imported."""
    return decant_at_once([(words, env)], cwd)[0]


def decant_here(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """The same in this process, for commands of language models: importing transformers takes seconds of each."""
    from decant.pipeline.cli.main import main
    from decant.pipeline.support.notices import forget_what_was_said

    out, err, code = io.StringIO(), io.StringIO(), 0
    argv, path, environment, shown = sys.argv, list(sys.path), dict(os.environ), warnings.showwarning
    unraisable = sys.unraisablehook
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    sys.argv = ["decant", *map(str, words)]
    os.environ.update(env)
    forget_what_was_said()
    try:
        with (
            contextlib.chdir(cwd),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("default")
            main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 0
    finally:
        sys.argv, warnings.showwarning, sys.path[:] = argv, shown, path
        sys.unraisablehook = unraisable  # pytest's own, by which such an error fails a test
        os.environ.clear()
        os.environ.update(environment)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    return subprocess.CompletedProcess(list(words), code, out.getvalue(), err.getvalue())


def decant_at_once(
    commands: Sequence[tuple[Sequence[str | Path], Mapping[str, str]]],
    cwd: Path,
    meanwhile: Callable[[list[int]], object] = lambda children: None,
) -> list[subprocess.CompletedProcess[str]]:
    """Several of these at the same time, each with its words and its environment; a command whose first word ends with
    ".py" is a script. meanwhile: is called with the ids of the processes once they run.
    """
    with tempfile.TemporaryDirectory() as name:
        children = []
        for number, (words, env) in enumerate(commands):
            out, err = Path(name, f"{number}.out"), Path(name, f"{number}.err")
            given = ([*map(str, words)], cwd, {**os.environ, **env}, out, err)
            children.append((FORKS.Process(target=_run, args=given), given))
        for child, _ in children:
            child.start()
        meanwhile([child.pid or 0 for child, _ in children])
        deadline, done = time.monotonic() + PATIENCE, []
        for child, (given_words, _, _, out, err) in children:
            child.join(max(0.0, deadline - time.monotonic()))
            if child.exitcode is None:
                child.kill()
                child.join()
            found = subprocess.CompletedProcess(
                given_words, child.exitcode or 0, out.read_text(), err.read_text()
            )
            done.append(found)
        return done


def _run(words: list[str], cwd: Path, env: dict[str, str], out: Path, err: Path) -> None:
    """In the forked process: what `python -m decant` does in a new one."""
    for path, descriptor in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), descriptor)
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", closefd=False, buffering=1)  # noqa: SIM115
    be_the_command(words, cwd, env)


def be_the_command(words: list[str], cwd: Path, env: dict[str, str]) -> None:
    """In the forked process: the command line, or a script."""
    from decant.pipeline.cli.main import main
    from decant.pipeline.ranks import ending

    ending._LINGERING_SECONDS = 0.2  # no launcher ends the ranks that let another speak
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground, see `_hears_interrupts`
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    if words and words[0].endswith(".py"):
        sys.argv = words
        sys.path.insert(0, str(Path(words[0]).parent.absolute()))
        runpy.run_path(words[0], run_name="__main__")
        return
    sys.argv = ["decant", *words]
    main()


def decant_anew(*words: str | Path, cwd: Path, **env: str) -> subprocess.CompletedProcess[str]:
    """`python -m decant WORDS` in the folder `cwd`: a new process, as a person starts it."""
    return subprocess.run(
        [sys.executable, "-m", "decant", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def follow(line: str, cwd: Path) -> str:
    """The output of a `decant …` that a message names, which must work; its words are split as a shell splits them."""
    command, *words = shlex.split(line)
    assert command == "decant", line
    return succeed(decant(*words, cwd=cwd))


def tiny(phase: str, *words: str, cwd: Path, seeds: int = 1, **env: str) -> subprocess.CompletedProcess[str]:
    """A phase of the small digits recipe."""
    return decant(phase, *TINY, "--set", f"student.seeds={seeds}", *words, cwd=cwd, **env)


def succeed(done: subprocess.CompletedProcess[str]) -> str:
    """The output of a command that must have worked."""
    assert done.returncode == 0, f"exit {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def refused(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    """The message of a command that must have refused, in words and without a traceback; see `doubts`."""
    assert done.returncode == code, f"exit {done.returncode}, expected {code}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr, done.stderr
    return doubts(done).strip()


def doubts(done: subprocess.CompletedProcess[str]) -> str:
    """What a command says on stderr, but for which code of the user's it runs."""
    return "".join(line for line in done.stderr.splitlines(keepends=True) if not _RUNS.fullmatch(line))


_RUNS = re.compile(r"runs \S+:\S+ from .*\n?")


def start(*words: str | Path, cwd: Path, **env: str) -> ForkedCommand:
    """`decant WORDS` in the background, in a process group of its own, forked as by `decant`."""
    return ForkedCommand(FORKS, be_the_command, [*map(str, words)], cwd, {**os.environ, **env})


def fork_python(script: str, *arguments: object, cwd: Path | None = None, **env: str) -> ForkedCommand:
    """A script in a process of its own, as by `tests.helpers.processes.python`, but forked as by `decant`."""
    given = (script, [*map(str, arguments)], cwd, {**os.environ, **env})
    return ForkedCommand(FORKS, _be_the_script, *given, listens=True)


def _be_the_script(script: str, arguments: list[str], cwd: Path | None, env: dict[str, str]) -> None:
    """In the forked process: what `python -W error -c SCRIPT ARGUMENTS` does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    warnings.simplefilter("error")
    os.environ.clear()
    os.environ.update(env)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["-c", *arguments]
    sys.modules["__main__"] = ModuleType("__main__")
    exec(script, vars(sys.modules["__main__"]))


def fork_module(name: str, *arguments: object, **env: str) -> str:
    """What `python -m NAME ARGUMENTS` prints, which must end well, in a process that is forked as by `decant`."""
    given = (name, [*map(str, arguments)], {**os.environ, **env})
    running = ForkedCommand(FORKS, _be_the_module, *given)
    out, err = running.communicate(timeout=2 * PATIENCE)
    assert running.returncode == 0, err[-3000:]
    return out


def _be_the_module(name: str, arguments: list[str], env: dict[str, str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    os.chdir(ROOT)
    sys.argv = [name, *arguments]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def start_anew(*words: str | Path, cwd: Path, **env: str) -> subprocess.Popen[str]:
    """`python -m decant WORDS` in the background, in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "decant", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=_hears_interrupts,
    )


def _hears_interrupts() -> None:
    """As a command in the foreground does, whoever started the tests."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def only(folder: Path, pattern: str) -> Path:
    """The one path below `folder` that fits."""
    found = sorted(folder.glob(pattern))
    assert len(found) == 1, f"{pattern}: {found}"
    return found[0]
