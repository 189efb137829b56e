"""What the commands share: the options that a message repeats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from pipeline.options import print_table, recipe_options, store_option


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


def test_a_table_is_not_cut_where_there_is_no_terminal(capsys: Any) -> None:
    print_table(["a"], [["x" * 150]])
    assert "x" * 150 in capsys.readouterr().out


def test_names_in_a_table_are_neither_markup_nor_orders_to_the_terminal(capsys: Any) -> None:
    print_table(["a"], [["[/red] [bold]b"], ["\x1b[31mred\x9b"]])
    shown = capsys.readouterr().out
    assert "[/red] [bold]b" in shown
    assert "\x1b" not in shown
    assert "\x9b" not in shown
