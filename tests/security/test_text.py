"""Names from elsewhere are text: no terminal obeys them, no page, table or export shows anything else for them."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from decant.pipeline.report.library import script
from decant.pipeline.report.page import Section, render
from decant.pipeline.report.rows import markdown_table, rows_of
from decant.pipeline.report.sections.inspector import _csv_address
from decant.pipeline.runs.json_files import escaped_json
from decant.pipeline.support.notices import forget_what_was_said, say_once
from decant.pipeline.support.progress import progress
from decant.pipeline.support.terminal import console, guard, one_line, printable
from tests.helpers.commands import decant, refused, succeed
from tests.helpers.processes import PATIENCE, ROOT

EVIL = "a\x1b[2J\x1b]0;title\x07\u202eb\x9b31m\r\x08c\u2028d\u200f"
"""Clears the screen, sets a title, reverses letters, returns to the line's start, ends a line."""
any_text = st.text(st.characters(codec=None), max_size=40)


def obeyed(text: str) -> set[str]:
    """The characters of a text that a terminal may obey; line ends are ours."""
    seen = (one for one in text if not one.isprintable() and one not in "\n\t")
    return {one for one in seen if unicodedata.category(one) != "Zs"}


# The gate


@given(any_text)
def test_a_message_is_one_line_of_what_can_be_seen(text: str) -> None:
    assert not obeyed(one_line(text))
    assert "\n" not in one_line(text)
    assert len(one_line(text)) == len(text)
    if text.isprintable():
        assert one_line(text) == text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@given(st.lists(any_text, max_size=4))
def test_nothing_that_is_written_gets_past_the_gate(texts: list[str]) -> None:
    out, err = Terminal(), Terminal()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        guard()
        for text in texts:
            print(text)
            print(text, file=sys.stderr)
            sys.stderr.writelines([text])
            console().print(text, markup=False)
            console(stderr=True).print(text, markup=False, highlight=False)
    bar_returns = {"\r"} if any(text.startswith("\r") for text in texts) else set()
    assert obeyed(_without_styles(out.getvalue())) <= bar_returns
    assert obeyed(_without_styles(err.getvalue())) <= bar_returns


@given(any_text)
def test_a_bar_has_nothing_of_its_description_obeyed(text: str) -> None:
    err = Terminal()
    with contextlib.redirect_stderr(err), progress(f"<{text}>", 2) as advance:
        advance(1)
    shown = err.getvalue()
    for own in ("\x1b[2K", "\x1b[?25l", "\x1b[?25h", "\x1b[1A", "\r"):
        shown = shown.replace(own, "")
    assert not obeyed(_without_styles(shown))


@given(any_text)
def test_what_is_said_once_is_one_line(text: str) -> None:
    forget_what_was_said()
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        say_once(f"<{text}>")
    assert err.getvalue().count("\n") == 1
    assert not obeyed(err.getvalue())


def _without_styles(text: str) -> str:
    """Without the colours that rich writes on a terminal."""
    import re

    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def test_every_message_goes_through_the_gate() -> None:
    """No module prints by itself: `say` and `console` make one line of a message, or take out what is obeyed."""
    found = []
    for path in sorted((ROOT / "pipeline").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                if name in (
                    "print",
                    "click.echo",
                    "Console",
                    "rich.print",
                    "click.secho",
                    "sys.stderr.write",
                ):
                    found.append(f"{path.relative_to(ROOT)}: {name}")
    assert found == [
        "pipeline/cli/main.py: sys.stderr.write",  # the error of a thread, by `one_line`
        "pipeline/cli/options.py: click.echo",  # say
        "pipeline/cli/options.py: click.echo",  # JSON, which is ASCII
        "pipeline/ranks/watch.py: sys.stderr.write",  # the last line of a rank, printable
        "pipeline/support/notices.py: print",  # say
        "pipeline/training/loop.py: print",  # numbers
        "pipeline/training/partial_epoch.py: print",
    ]


# Every kind of place that a name comes from, to a real terminal


def on_a_terminal(*words: str | Path, cwd: Path) -> str:
    """What `decant WORDS` writes on a terminal of its own, both streams."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from decant.pipeline.cli.main import main; main()", *map(str, words)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm", "COLUMNS": "100"}
    child = subprocess.Popen(command, cwd=cwd, env=env, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    said = b""
    with contextlib.suppress(OSError):  # which the end of a terminal is
        while part := os.read(ours, 65536):
            said += part
    child.wait(PATIENCE)
    os.close(ours)
    return said.decode(errors="replace").replace("\r\n", "\n")


EVIL_NAME = f"x{EVIL}\nnext: rm -rf ~".replace("/", "")


@pytest.mark.parametrize(
    "words",
    [
        ("cache", "ls", "--store", EVIL_NAME),
        ("cache", "info", EVIL_NAME),
        ("status", f"--{EVIL_NAME}"),
        pytest.param(("predict", EVIL_NAME, "a.png"), marks=pytest.mark.slow),
        pytest.param(("status", "-r", f"{EVIL_NAME}.toml", "--runs", EVIL_NAME), marks=pytest.mark.slow),
        pytest.param(("--debug", "teacher", "-r", f"{EVIL_NAME}.toml"), marks=pytest.mark.slow),
    ],
)
def test_names_of_files_on_a_terminal(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / EVIL_NAME).mkdir()
    recipe = tmp_path / f"{EVIL_NAME}.toml"
    recipe.write_text(
        '[data]\nname = "digits"\n[teacher]\nnetwork = "no\\u001b[2Jthing"\n[student]\nnetwork="mlp"\n'
    )
    said = on_a_terminal(*words, cwd=tmp_path)
    assert "x" in said
    assert not obeyed(_without_styles(said))
    assert not any(line.startswith("next: rm") for line in said.splitlines())


FIELDS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "class names": lambda result: result.update(classes=[EVIL, *map(str, range(1, 10))]),
    "the network's name": lambda result: result["network"].update(name=EVIL),
    "names of metrics": lambda result: result["metrics"].update({EVIL: 0.5}),
    "a field that there is not": lambda result: result.update({EVIL: 1}),
    "the objective": lambda result: result.update(objective={"name": EVIL, EVIL: EVIL}),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished teacher of the digits."""
    folder = tmp_path_factory.mktemp("digits")
    succeed(decant("teacher", "--set", "teacher.network=linear", "--set", "teacher.epochs=1", cwd=folder))
    (found,) = folder.glob("runs/*/teacher-*")
    Image.fromarray(np.zeros((8, 8), "u1")).save(folder / "one.png")
    return found


@pytest.mark.parametrize("field", FIELDS)
def test_fields_of_a_run_reach_no_output_raw(run: Path, field: str) -> None:
    folder, saved = run.parents[2], (run / "result.json").read_text()
    result = json.loads(saved)
    FIELDS[field](result)
    try:
        (run / "result.json").write_text(json.dumps(result))
        for words in (("predict", run, "one.png"), ("report", run, "--output", "out"), ("status",)):
            done = decant(*words, "--debug", cwd=folder)
            assert not obeyed(done.stdout + done.stderr), words
        for written in (folder / "out").glob("report.*"):
            assert not obeyed(written.read_text().split("<script>")[0]), written
    finally:
        (run / "result.json").write_text(saved)


def test_a_warning_and_an_error_of_the_users_code_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "def parts(root, split):\n    raise ValueError('\\x1b[2J' + chr(0x202e) + 'x\\ndecant: all is well')\n"
    )
    done = decant("teacher", "--set", "data.name=mine:parts", "--debug", cwd=tmp_path)
    assert not obeyed(refused_with_traceback(done))
    assert not any(line.startswith("decant: all is well") for line in done.stderr.splitlines())
    assert refused(decant("teacher", "--set", "data.name=mine:parts", cwd=tmp_path)).count("\ndecant:") <= 1


def refused_with_traceback(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    return done.stdout + done.stderr


# Files that are shown by other programs


@settings(max_examples=25)
@given(any_text)
def test_a_page_shows_names_as_text(text: str) -> None:
    named = Section("cost", text, missing=f"<{text}>", data={"names": [text]})
    page = render(text, [named], [text]).decode()
    assert not obeyed(page.replace(script().replace("</script", r"<\/script"), ""))


def test_markup_in_a_name_stays_text() -> None:
    evil = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>"
    page = render(evil, [Section("cost", evil, missing=evil, data=[evil])], [evil]).decode()
    assert "<script>alert" not in page
    assert "<img src=x" not in page


@given(st.sampled_from("=+-@\t\r\n＝＋－＠"), any_text)
def test_no_cell_of_a_table_is_a_formula(first: str, rest: str) -> None:
    import csv
    from urllib.parse import unquote

    address = _csv_address([{"label": first + rest, "file": f" {first}{rest}" if first.strip() else first}])
    assert address is not None
    (row,) = csv.DictReader(io.StringIO(unquote(address.partition(",")[2])))
    assert all(value.startswith("'") for value in row.values())
    assert not obeyed("".join(row.values()))


@given(any_text)
def test_json_shows_every_character_and_means_the_same(text: str) -> None:
    raw = json.dumps([text], ensure_ascii=False)
    assert json.loads(escaped_json(raw)) == [text]
    assert not obeyed(escaped_json(raw))


def test_a_table_in_markdown_stays_a_table(run: Path) -> None:
    from dataclasses import replace

    from decant.pipeline.runs.result import load_result

    result = load_result(run)
    assert result is not None
    named = replace(result, network=replace(result.network, name="a|b\n# c <script> [x](javascript:1)"))
    table = markdown_table("t\n<b>", rows_of([named]))
    (row,) = [line for line in table.splitlines() if line.startswith("| a")]
    assert row.replace(r"\|", "").count("|") == 7
    assert "<script" not in table
    assert "](" not in table


def test_printable_keeps_what_people_write() -> None:
    for text in ("日本語", "שלום", "naïve café", "🙂", "a\u00a0b", "10\u202f%"):
        assert printable(text) == text


def test_a_warning_of_a_library_begins_no_other_line(tmp_path: Path) -> None:
    script = (
        "import sys, warnings, decant.pipeline.cli.main as cli\n"
        "@cli.decant.command()\n"
        "def warns():\n"
        "    warnings.warn('about x\\x1b[2J\\nnext: rm -rf ~')\n"
        "sys.argv = ['decant', 'warns']\n"
        "cli.main()\n"
    )
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert "about x" in done.stderr
    assert not obeyed(done.stderr)
    assert not any(line.startswith("next:") for line in done.stderr.splitlines())
