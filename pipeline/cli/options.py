"""What the commands have in common: the options for recipe and places, and how a table or JSON is printed."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decant.pipeline.cli import completion

if TYPE_CHECKING:
    from decant.cache import Store

_USUAL = {"runs": "runs", "store": None, "device": "auto"}
_STDOUT = "decant.pipeline.cli.options.stdout"
_store = click.option(
    "--store",
    shell_complete=completion.folders,
    help="Where caches are kept.  [default: $DECANT_STORE, or caches]",
)


overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    shell_complete=completion.settings,
    help="Override a setting of the recipe.",
)


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--recipe, --set, --runs, --store and --device, handed on as `recipe`, `base` (its run folder), `store`,
    `device`.
    """

    @click.option(
        "--recipe",
        "-r",
        default="digits",
        show_default=True,
        shell_complete=completion.recipes,
        help="A recipe's name, or a .toml file.",
    )
    @overrides_option
    @click.option(
        "--runs",
        default="runs",
        show_default=True,
        shell_complete=completion.folders,
        help="Where runs are kept.",
    )
    @_store
    @click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
    @functools.wraps(command)
    def wrapped(recipe: str, overrides: Sequence[str], **rest: Any) -> Any:
        from decant.cache import Store
        from decant.pipeline.config.recipe import load

        where = {name: rest.pop(name) for name in _USUAL}
        if where["store"]:
            os.environ["DECANT_STORE"] = where["store"]  # packs of decoded images go there too
        find_modules_beside(recipe)
        loaded = load(recipe, overrides)
        loaded = replace(loaded, options=(*loaded.options, *_given(where)))
        base = Path(where["runs"]) / loaded.name
        return command(recipe=loaded, base=base, store=Store(where["store"]), device=where["device"], **rest)

    return wrapped


def store_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--store, handed on as a `Store`."""

    @_store
    @functools.wraps(command)
    def wrapped(store: str | None, **rest: Any) -> Any:
        from decant.cache import Store

        return command(store=Store(store), **rest)

    return wrapped


def as_json(command: Callable[..., Any]) -> Callable[..., Any]:
    """--json, handed on as `as_json`. With it stdout holds what the command gives to `print_json` and nothing else:
    whatever is printed on the way goes to stderr.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print JSON for a program instead of text.")
    @functools.wraps(command)
    def wrapped(as_json: bool, **rest: Any) -> Any:
        click.get_current_context().meta[_STDOUT] = sys.stdout
        with contextlib.redirect_stdout(sys.stderr if as_json else sys.stdout):
            return command(as_json=as_json, **rest)

    return wrapped


def print_json(document: Any, indent: int | None = 2) -> None:
    """The one document of a command with `as_json`; with `indent` None it is a line, of which there may be several.
    A path is its text; a number that is not finite is null.
    """
    text = json.dumps(_plain(document), indent=indent, default=os.fspath, allow_nan=False)
    click.echo(text, file=click.get_current_context().meta[_STDOUT])


def command_line(*words: str | Path, store: Store | None = None) -> str:
    """A command to copy, for a message; with --store for a store that is not the usual one."""
    from decant.cache import Store

    where = () if store is None or store.root == Store().root else ("--store", store.root)
    return shlex.join(["decant", *map(str, (*words, *where))])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on the terminal; elsewhere as wide as it needs."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*columns, box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # a name is no markup
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, 200))
    console.print(table)


def printable(text: str) -> str:
    """Text from a file that a person was sent, without what a terminal would obey."""
    return "".join(character if character.isprintable() else "�" for character in text)


def find_modules_beside(recipe: str) -> None:
    """Lets `module:function` in a recipe's file name a module that lies in the file's folder."""
    if recipe.endswith(".toml"):
        folder = str(Path(recipe).absolute().parent)
        if folder not in sys.path:
            sys.path.append(folder)


def percent(share: float | None) -> str:
    """A share in 0..1 as a person reads it; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f} %"


def _plain(value: Any) -> Any:
    """The same without numbers that JSON does not know."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _given(where: dict[str, str | None]) -> list[str]:
    """The options of a command line that are not as they would be without it."""
    return [
        word
        for name, value in where.items()
        if value is not None and value != _USUAL[name]
        for word in (f"--{name}", value)
    ]
