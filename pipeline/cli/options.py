"""Options that commands share (recipe, folders, device, JSON), and how a table or JSON is printed."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PLACE
from decant.pipeline.ranks.launch import is_first, launched
from decant.pipeline.support.terminal import console, one_line, printable

if TYPE_CHECKING:
    from decant.cache import Store
    from decant.pipeline.config.recipe import Recipe

_RECIPE = "digits"
_RESULT = "result.json"  # of a run folder; the module that writes it imports pydantic
_USUAL = {"runs": "runs", "store": None, "device": "auto"}
_UNITS = ((3600, "h"), (60, "min"), (1, "s"))
_STDOUT = "decant.pipeline.cli.options.stdout"
_store = click.option(
    "--store",
    type=PLACE,
    shell_complete=completion.folders,
    help="Folder of caches, or an address as s3://bucket/caches.  [default: $DECANT_STORE, or caches]",
)


def _trust(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from decant.pipeline.support.trust import trust_everything

        trust_everything()


trust_option = click.option(
    "--trust",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_trust,
    help="Run every function that a recipe or a run names, also code that is not what the run recorded.",
)
overrides_option = click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    shell_complete=completion.settings,
    help="Override a setting of the recipe.",
)


def recipe_options(command: Callable[..., None], needed_by: str | None = None) -> Callable[..., None]:
    """Adds --recipe, --set, --runs, --store and --device, which the command gets as `recipe`, `base` (its run folder),
    `store` and `device`; and --trust.

    needed_by: the only option of the command for which a recipe is needed. Without it, and where no recipe is named,
    none is read, which takes most of a short command: `recipe` and `base` are None.
    """

    @click.option(
        "--recipe",
        "-r",
        type=PLACE,
        default=_RECIPE,
        show_default=True,
        shell_complete=completion.recipes,
        help="A shipped recipe, or a .toml file.",
    )
    @overrides_option
    @click.option(
        "--runs",
        type=PLACE,
        default="runs",
        show_default=True,
        shell_complete=completion.folders,
        help="Folder of runs.",
    )
    @_store
    @trust_option
    @click.option(
        "--device", default="auto", show_default=True, help="Device to run on: auto, cpu, cuda, cuda:1, mps."
    )
    @functools.wraps(command)
    def wrapped(recipe: str, overrides: Sequence[str], **rest: Any) -> None:
        where = {name: rest.pop(name) for name in _USUAL}
        if needed_by is not None and rest[needed_by] is None and recipe == _RECIPE and not overrides:
            command(recipe=None, base=None, store=_open_store(where["store"]), device=where["device"], **rest)
            return
        if where["store"]:
            os.environ["DECANT_STORE"] = where["store"]  # packs of decoded images go there too
        find_modules_beside(recipe)
        loaded = load_given_recipe(recipe, overrides)
        store = _open_store(where["store"])
        if where["store"] and store.remote is not None:
            where["store"] = store.name  # without a password
        loaded = replace(loaded, options=(*loaded.options, *_given(where)))
        base = Path(where["runs"]) / loaded.name
        command(recipe=loaded, base=base, store=store, device=where["device"], **rest)

    return wrapped


log_to_option = click.option(
    "--log-to",
    "log_to",
    multiple=True,
    type=click.Choice(["tensorboard", "wandb", "mlflow"]),
    help="Also log the metrics of each epoch there, in the folder of runs; may be given several times.",
)


def store_option(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --store, which the command gets as a `Store`."""

    @_store
    @functools.wraps(command)
    def wrapped(store: str | None, **rest: Any) -> None:
        command(store=_open_store(store), **rest)

    return wrapped


def as_json(command: Callable[..., None]) -> Callable[..., None]:
    """Adds --json, which the command gets as `as_json`. With it, stdout holds only what `print_json` prints; everything
    else goes to stderr.
    """

    @click.option("--json", "as_json", is_flag=True, help="Print JSON for a program instead of text.")
    @functools.wraps(command)
    def wrapped(as_json: bool, **rest: Any) -> None:
        click.get_current_context().meta[_STDOUT] = sys.stdout
        with contextlib.redirect_stdout(sys.stderr if as_json and is_first() else sys.stdout):
            command(as_json=as_json, **rest)

    return wrapped


def print_json(document: Any, indent: int | None = 2) -> None:
    """Prints a document of a command with `as_json`; with `indent` None it is one line. Paths are written as text,
    numbers that are not finite as null.
    """
    text = json.dumps(_plain(document), indent=indent, default=os.fspath, allow_nan=False)
    click.echo(text, file=click.get_current_context().meta[_STDOUT])


def command_line(*words: str | Path, store: Store | None = None) -> str:
    """A command to copy, for a message; with --store where the store is not the default one."""
    from decant.cache import Store

    where = () if store is None or store.name == Store().name else ("--store", store.name)
    return shlex.join(["decant", *map(str, (*words, *where))])


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: as wide as the terminal, or elsewhere at least 200 columns wide."""
    from rich import box
    from rich.table import Column, Table
    from rich.text import Text

    # What is too long for a narrow terminal goes on below: cut off, 372,682 would read as 372.
    table = Table(*(Column(name, overflow="fold") for name in columns), box=box.SIMPLE_HEAD)
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))  # a name is no markup
    shown = console()
    if not shown.is_terminal:
        shown = console(width=max(shown.width, 200))
    shown.print(table)


class _Part(click.ParamType):
    """I/N with 1 ≤ I ≤ N, as (I − 1, N)."""

    name = "I/N"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", str(value))
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            self.fail(f"expected I/N with 1 ≤ I ≤ N, as 3/16, found {value!r}", param, ctx)
        return int(found[1]) - 1, int(found[2])


PART = _Part()


def say(text: object, err: bool = False) -> None:
    """Prints a message, which is one line whatever names it holds, on stdout or stderr."""
    click.echo(one_line(text), err=err)


def leave_to_rank_0(command: str) -> None:
    """Returns in rank 0 of a job, which says so, and ends the others well: for a command with nothing to divide, which
    all of them would do at once, into the same files. Does nothing in a process by itself.
    """
    launch = launched()
    if launch is None:
        return
    if launch.rank:
        raise click.exceptions.Exit(0)
    say(
        f"warning: {command}: has nothing to divide among {launch.size:,} ranks; rank 0 alone runs it",
        err=True,
    )


def find_modules_beside(recipe: str) -> None:
    """Has `module:function` find modules beside a recipe's file too, unless that is the one of a run folder."""
    from decant.pipeline.support.modules import search

    if recipe.endswith(".toml") and not _is_of_run(recipe):
        search(Path(recipe).absolute().parent)


def load_given_recipe(recipe: str, overrides: Sequence[str]) -> Recipe:
    """The recipe that a user gives: a script of the user's, unless it is that of a run folder, which is data."""
    from decant.pipeline.runs.open import load_given_recipe as load

    return load(recipe, overrides)


def _is_of_run(recipe: str) -> bool:
    is_file = recipe.endswith(".toml") or Path(recipe).name != recipe  # and no name of a shipped one
    return is_file and os.path.lexists(Path(recipe).parent / _RESULT)


def percent(share: float | None) -> str:
    """A share in 0..1 in percent; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.2f} %"


def duration(seconds: float) -> str:
    """A duration in the largest unit of which there are two or more."""
    size, unit = next((one for one in _UNITS if seconds >= 2 * one[0]), _UNITS[-1])
    return f"{seconds / size:,.0f} {unit}"


def _open_store(where: str | None) -> Store:
    """The store at a folder or an address; what is fetched from it, or published there, is shown on a bar."""
    from decant.cache import Store, show_progress

    show_progress(_on_a_bar)
    return Store(where)


def _on_a_bar(what: str, total: int) -> AbstractContextManager[Callable[[float], None]]:
    """Imports what draws bars where something is transferred."""
    from decant.pipeline.support.progress import transfer

    return transfer(what, total)


def _plain(value: Any) -> Any:
    """The same document with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _given(where: dict[str, str | None]) -> list[str]:
    """The options that differ from their defaults, as words of a command line."""
    return [
        word
        for name, value in where.items()
        if value is not None and value != _USUAL[name]
        for word in (f"--{name}", value)
    ]
