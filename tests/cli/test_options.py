"""What the commands share: the options that a message repeats."""

from __future__ import annotations

import io
import json
import math
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from decant.cache import Store
from decant.pipeline.cli import options
from decant.pipeline.cli.options import (
    as_json,
    command_line,
    print_json,
    print_table,
    recipe_options,
    store_option,
)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """--store is told to the rest of the process; not to the next test."""
    monkeypatch.setenv("DECANT_STORE", "")


def given(*words: str) -> dict[str, Any]:
    """What a command with the common options is called with."""
    found: dict[str, Any] = {}

    @click.command()
    @recipe_options
    def command(**options: Any) -> None:
        found.update(options)

    result = CliRunner().invoke(command, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return found


def test_without_options_a_command_to_repeat_has_none() -> None:
    found = given()
    assert found["recipe"].command("student") == "decant student"
    assert found["base"] == Path("runs/digits")
    assert found["device"] == "auto"


def test_every_option_that_was_given_is_repeated_and_quoted() -> None:
    words = (
        "--recipe",
        "cifar10",
        "--set",
        "student.epochs=20",
        "--runs",
        "my runs",
        "--store",
        "s",
        "--device",
        "cpu",
    )
    found = given(*words)
    expected = (
        "decant student --recipe cifar10 --set student.epochs=20 --runs 'my runs' --store s --device cpu"
    )
    assert found["recipe"].command("student") == expected
    assert found["base"] == Path("my runs/cifar10")
    assert found["store"].root == Path("s")


def test_the_store_comes_from_the_option_then_the_environment_then_the_usual_place() -> None:
    @click.command()
    @store_option
    def command(store: Any) -> None:
        click.echo(store.root)

    runner = CliRunner()
    assert runner.invoke(command, ["--store", "a"], env={"DECANT_STORE": "b"}).output == "a\n"
    assert runner.invoke(command, [], env={"DECANT_STORE": "b"}).output == "b\n"
    assert runner.invoke(command, []).output == "caches\n"


def listing(*words: str) -> Result:
    """A command that says much on its way to what it found."""

    @click.command()
    @as_json
    def command(as_json: bool) -> None:
        print("printed by a library")
        click.echo("made something")
        print_table(["a"], [["b"]])
        if as_json:
            print_json(
                [{"path": Path("ü") / "x.h5", "loss": math.nan, "shares": (0.1, -math.inf), "count": 3}]
            )
        click.get_current_context().exit(1)

    return CliRunner().invoke(command, list(words))


def test_with_json_stdout_is_one_document_and_the_rest_is_said_on_stderr() -> None:
    done = listing("--json")
    assert json.loads(done.stdout) == [{"path": "ü/x.h5", "loss": None, "shares": [0.1, None], "count": 3}]
    for said in ("printed by a library", "made something", " b "):
        assert said in done.stderr
    assert done.exit_code == 1


def test_on_a_narrow_terminal_no_part_of_a_number_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(
        options, "console", lambda: Console(file=screen, width=22, force_terminal=True, color_system=None)
    )
    print_table(["network", "parameters"], [["convolutional", "1,372,682,000"]])
    seen = "".join(re.findall("[0-9,]", screen.getvalue()))
    assert (seen, "…" in screen.getvalue()) == ("1,372,682,000", False), screen.getvalue()


def test_documents_that_follow_each_other_are_a_line_each() -> None:
    @click.command()
    @as_json
    def command(as_json: bool) -> None:
        for place in range(2):
            print_json({"place": place, "of": [2]}, indent=None)

    done = CliRunner().invoke(command, ["--json"])
    assert [json.loads(line)["place"] for line in done.stdout.splitlines()] == [0, 1]


def test_without_json_everything_is_on_stdout() -> None:
    done = listing()
    assert done.stdout.startswith("printed by a library\nmade something\n")
    assert (done.stderr, done.exit_code) == ("", 1)


def test_what_is_no_json_is_not_guessed_at() -> None:
    @click.command()
    @as_json
    def command(as_json: bool) -> None:
        print_json({1, 2})

    assert isinstance(CliRunner().invoke(command, ["--json"]).exception, TypeError)


def test_a_command_to_copy_is_quoted_and_names_the_store_where_it_must(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert command_line("cache", "info", Path("my cache.h5")) == "decant cache info 'my cache.h5'"
    assert command_line("cache", "ls", store=Store("caches")) == "decant cache ls"
    assert command_line("cache", "ls", store=Store("a b")) == "decant cache ls --store 'a b'"
    monkeypatch.setenv("DECANT_STORE", "a b")
    assert command_line("cache", "ls", store=Store("a b")) == "decant cache ls"


def test_a_table_is_not_cut_where_there_is_no_terminal(capsys: Any) -> None:
    print_table(["a"], [["x" * 150]])
    assert "x" * 150 in capsys.readouterr().out


def test_names_in_a_table_are_neither_markup_nor_orders_to_the_terminal(capsys: Any) -> None:
    print_table(["a"], [["[/red] [bold]b"], ["\x1b[31mred\x9b"]])
    shown = capsys.readouterr().out
    assert "[/red] [bold]b" in shown
    assert "\x1b" not in shown
    assert "\x9b" not in shown
