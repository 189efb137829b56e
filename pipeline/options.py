"""What the commands have in common: the options for recipe and places, and how a table is printed."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

_USUAL = {"runs": "runs", "store": None, "device": "auto"}
_STORE_HELP = "Where caches are kept.  [default: $DECANT_STORE, or caches]"


def recipe_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--recipe, --set, --runs, --store and --device, handed on as `recipe`, `base` (its run folder), `store`,
    `device`.
    """

    @click.option(
        "--recipe", "-r", default="digits", show_default=True, help="A recipe's name, or a .toml file."
    )
    @click.option(
        "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting."
    )
    @click.option("--runs", default="runs", show_default=True, help="Where runs are kept.")
    @click.option("--store", help=_STORE_HELP)
    @click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, mps.")
    @functools.wraps(command)
    def wrapped(recipe: str, overrides: Sequence[str], **rest: Any) -> Any:
        from cache.store import Store
        from pipeline.recipe import load

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

    @click.option("--store", help=_STORE_HELP)
    @functools.wraps(command)
    def wrapped(store: str | None, **rest: Any) -> Any:
        from cache.store import Store

        return command(store=Store(store), **rest)

    return wrapped


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


def _given(where: dict[str, str | None]) -> list[str]:
    """The options of a command line that are not as they would be without it."""
    return [
        word
        for name, value in where.items()
        if value is not None and value != _USUAL[name]
        for word in (f"--{name}", value)
    ]
