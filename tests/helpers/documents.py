"""The snippets of README.md and of docs/, found and run as a reader would run them.

A comment right before a block says how it is run:

    <!-- not run: REASON -->      the block is not run here
    <!-- fails -->                its command must exit with 1
    <!-- setup                    Python that a reader has done already, or has instead of it; run before
    CODE -->                      the blocks that follow

A page that says `<!-- needs: lightning, timm -->` is run where these are installed.

A block of Python or TOML with a title is a file of that name. A block of text after commands is what they print,
where `…` stands for anything.
"""

from __future__ import annotations

import contextlib
import glob
import io
import os
import re
import shlex
import subprocess
import sys
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.helpers.processes import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))
_BLOCK = re.compile(r"^```(?P<language>\w+)(?P<options>[^\n]*)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
TINY = ("teacher.epochs=1", "student.epochs=1", "student.seeds=1", "student.evaluate_every=1")
_OF_A_RECIPE = ("teacher", "cache-logits", "student", "evaluate", "report", "status")


@dataclass(frozen=True)
class Block:
    """One fenced block with the comments before it."""

    page: Path
    line: int
    language: str
    title: str | None
    code: str
    before: str
    """The text between the block before and this one."""

    @property
    def reason_not_to_run(self) -> str | None:
        """Why it is not run here."""
        found = re.search(r"<!-- not run: (.+?) -->\n$", self.before)
        return found[1] if found else None

    @property
    def fails(self) -> bool:
        """Whether its command must exit with 1."""
        return self.before.endswith("<!-- fails -->\n")

    @property
    def setup(self) -> str:
        """What is run before it."""
        return "\n".join(re.findall(r"<!-- setup\n(.*?)-->", self.before, re.DOTALL))

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in order."""
    text = page.read_text("utf-8")
    found, end = [], 0
    for match in _BLOCK.finditer(text):
        title = re.search(r'title="([^"]+)"', match["options"])
        line = text[: match.start()].count("\n") + 1
        before, end = text[end : match.start()], match.end()
        found.append(Block(page, line, match["language"], title[1] if title else None, match["code"], before))
    return found


def libraries(page: Path) -> list[str]:
    """What must be installed for the blocks of a page to run."""
    found = re.search(r"<!-- needs: ([\w, ]+) -->", page.read_text("utf-8"))
    return found[1].replace(",", " ").split() if found else []


class Reader:
    """Runs the blocks of one page in one folder, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.printed = folder, ""
        self.names: dict[str, Any] = {"__name__": "__page__", "ROOT": ROOT}

    def run(self, block: Block) -> None:
        """Runs a block, with what must be set up before it. Raises AssertionError, naming the line."""
        try:
            if block.setup:
                exec(compile(block.setup, f"{block} (setup)", "exec"), self.names)
            if block.reason_not_to_run is None:
                self._run(block)
        except Exception as error:
            raise AssertionError(f"{block}: {traceback.format_exc()}\n{self.printed}") from error

    def _run(self, block: Block) -> None:
        if block.title is not None:
            (self.folder / block.title).write_text(block.code, "utf-8")
        if block.language == "toml":
            self._load(block)
        elif block.language == "python" and block.title is None:
            exec(compile(block.code, str(block), "exec"), self.names)
        elif block.language == "bash":
            self.printed = ""
            for command in _commands(block.code):
                self._command(command, 1 if block.fails else 0)
        elif block.language == "text" and self.printed:
            self._compare(block)

    def _load(self, block: Block) -> None:
        """A recipe must load; a part of one must fit into the digits recipe."""
        import tomllib

        import tomli_w

        from decant.pipeline.config.recipe import load_recipe

        path = self.folder / (block.title or "shown.toml")
        content = tomllib.loads(block.code)
        if block.title is None:
            whole = tomllib.loads((ROOT / "pipeline/config/recipes/digits.toml").read_text("utf-8"))
            content = content if whole.keys() <= content.keys() else _merged(whole, content)
            path.write_text(tomli_w.dumps(content), "utf-8")
        load_recipe(str(path))

    def _command(self, command: str, code: int) -> None:
        loop = re.fullmatch(r"for (\w+) in ([^;]+); do (.*); *done", command)
        if loop:  # a command in a loop need not start a process
            subprocess.run(["bash", "-n", "-c", command], check=True)
            for word in loop[2].split():
                self._command(loop[3].replace(f"${loop[1]}", word).strip(), code)
        else:
            simple = command.startswith("decant ") and not re.search(r"[|<>$;&]", command)
            words = _expanded(shlex.split(command)[1:]) if simple else []
            found, printed = _decant(words) if simple else _in_a_shell(command)
            self.printed += printed
            assert found == code, f"{command}: exit code {found}, expected {code}\n{printed}"

    def _compare(self, block: Block) -> None:
        printed = " ".join(self.printed.split())
        for line in filter(None, map(str.strip, block.code.splitlines())):
            parts = (re.escape(" ".join(part.split())) for part in line.split("…"))
            assert re.search(r".*?".join(parts), printed), f"{block}: not printed: {line}\n{self.printed}"


@contextlib.contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    """A reader in `folder`; the process is afterwards as it was."""
    path, environment, before = list(sys.path), dict(os.environ), set(sys.modules)
    try:
        with contextlib.chdir(folder):
            sys.path.insert(0, str(folder))
            yield Reader(folder)
    finally:
        sys.path[:] = path
        os.environ.clear()
        os.environ.update(environment)
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]


def _commands(code: str) -> list[str]:
    """The commands of a block, one a line; a backslash joins lines, a comment is dropped."""
    lines = code.replace("\\\n", " ").splitlines()
    shown = (re.sub(r"\s+#\s.*$", "", line).strip() for line in lines)
    return [line for line in shown if line and not line.startswith("#")]


def _expanded(words: list[str]) -> list[str]:
    """As a shell expands patterns."""
    found = []
    for word in words:
        found += (sorted(glob.glob(word)) if "*" in word and "=" not in word else []) or [word]
    return found


def _in_a_shell(command: str) -> tuple[int, str]:
    """A command as bash runs it: exit code, and what was printed."""
    script = f'decant() {{ {shlex.quote(sys.executable)} -m decant "$@"; }}\n{command}'
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def _decant(words: list[str]) -> tuple[int, str]:
    """`decant WORDS` in this process, which has its libraries loaded: exit code, and what was printed.

    A recipe that ships is made tiny.
    """
    from decant.pipeline.cli.main import main

    given = any(word.endswith(".toml") for word in words) or any(word.startswith("runs/") for word in words)
    if not given and (words[0] in _OF_A_RECIPE or words[:2] in (["cache", "path"],)):
        words = [*words, *(part for setting in TINY for part in ("--set", setting))]
    printed = io.StringIO()
    before = sys.argv
    sys.argv = ["decant", *words]
    try:
        with (
            contextlib.redirect_stdout(printed),
            contextlib.redirect_stderr(printed),
            warnings.catch_warnings(),
        ):
            warnings.simplefilter("ignore")
            main()
    except SystemExit as error:
        return int(error.code or 0), printed.getvalue()
    finally:
        sys.argv = before
    return 0, printed.getvalue()


def _merged(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """The sections of `whole`, with the keys of `part` in place of theirs."""
    both = {
        key: {**whole.get(key, {}), **value} if isinstance(value, dict) else value
        for key, value in part.items()
    }
    return {**whole, **both}
