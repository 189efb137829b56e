"""Paths on the command line: all are read by one type, which takes `~` and variables, and nothing that is empty."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from decant.pipeline.cli.given_paths import GivenPath
from decant.pipeline.cli.main import decant as command_line
from decant.pipeline.errors import PipelineError
from tests.cli.test_main import walk
from tests.helpers.commands import decant, refused, succeed

NO_PATHS = {
    "classes",
    "data",
    "device",
    "formats",
    "metric",
    "over",
    "overrides",  # whose paths the recipe expands
    "teacher",
    "temperatures",
    "worker",
}
"""The parameters that are text and never a path."""
PARAMETERS = [
    (path, command, parameter)
    for path, command in walk(command_line, "decant")
    for parameter in command.params
    if isinstance(parameter.type, click.Path | type(click.STRING))
]
PATHS = [
    pytest.param(command, parameter, id=f"{path} {parameter.name}")
    for path, command, parameter in PARAMETERS
    if isinstance(parameter.type, GivenPath)
]


def parsed(command: click.Command, parameter: click.Parameter, value: str) -> Any:
    """The value of a parameter of a command that is given so, beside what else the command needs."""
    words = []
    for one in command.params:
        given = value if one is parameter else "x" if one.required else None
        if given is not None and isinstance(one, click.Option):
            choices = one.type.choices if isinstance(one.type, click.Choice) else [given]
            words.append(f"{max(one.opts, key=len)}={choices[0]}")
        elif given is not None:
            words.append(given)
    found = command.make_context("decant", words).params[str(parameter.name)]
    return found[0] if parameter.nargs == -1 else found


def test_what_is_text_is_a_path_or_known_to_be_none() -> None:
    assert {one.name for _, _, one in PARAMETERS if not isinstance(one.type, GivenPath)} == NO_PATHS
    assert {"output", "run", "images", "recipe", "store", "names", "logits"} <= {
        one.name for _, _, one in PARAMETERS if isinstance(one.type, GivenPath)
    }


@pytest.mark.parametrize(("command", "parameter"), PATHS)
def test_every_path_is_expanded_and_an_empty_one_refused_by_its_name(
    command: click.Command, parameter: click.Parameter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PLACE", str(tmp_path / "place"))
    for given, expected in (("~/a", "home/a"), ("$PLACE/a", "place/a"), ("${PLACE}s", "places"), ("a", None)):
        found = parsed(command, parameter, given)
        assert str(found) == ("a" if expected is None else str(tmp_path / expected))
    existing = tmp_path / "$PLACE"
    existing.touch() if parameter.type.file_okay else existing.mkdir()  # type: ignore[attr-defined]
    assert str(parsed(command, parameter, "$PLACE")) == "$PLACE", "a path that exists stays as it is written"
    name = max(parameter.opts, key=len) if isinstance(parameter, click.Option) else "[A-Z|]+"
    for given, says in (
        ("", "is empty, as a variable that is not set leaves it"),
        ("$NOT_SET_HERE/a", "the variable NOT_SET_HERE is not set"),
        ("~no-such-user/a", "there is no such user"),
    ):
        with pytest.raises(PipelineError, match=f"^{name}: .*{says}"):
            parsed(command, parameter, given)


def test_a_command_goes_where_a_variable_says_and_not_into_the_current_folder(tmp_path: Path) -> None:
    succeed(decant("init", "$PLACE/mine", cwd=tmp_path, PLACE=str(tmp_path / "there")))
    assert (tmp_path / "there" / "mine" / "recipe.toml").is_file()
    assert refused(decant("init", "", cwd=tmp_path)).startswith("decant: FOLDER: is empty")
    assert refused(decant("report", "--output=", cwd=tmp_path)).startswith("decant: --output: is empty")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
