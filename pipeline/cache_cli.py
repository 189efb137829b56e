"""`decant cache`: what a person does with cache files. No command imports torch, but for a .pt file or a
teacher.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.options import (
    find_modules_beside,
    percent,
    print_table,
    printable,
    recipe_options,
    store_option,
)
from pipeline.tasks import FIGURES

if TYPE_CHECKING:
    from cache.reader import LogitCache
    from cache.statistics import RegressionSummary, Summary
    from cache.store import Store
    from pipeline.recipe import Recipe

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON for a program instead of text.")


@click.group("cache")
def cache() -> None:
    """Look at cache files, check them, convert them, clear them away.

    A CACHE is a path, a file's name in the store, or the first digits of a key.
    """


@cache.command("ls")
@store_option
@as_json
def list_caches(store: Store, as_json: bool) -> None:
    """List the caches of the store."""
    rows = [_listed(path) for path in store.paths()]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    elif not rows:
        click.echo(f"no caches in {store.root}")
    else:
        for row in rows:
            if "bytes" in row:
                row["size"], row["age"] = f"{row['bytes']:,} B", _age(row["seconds_old"])
        columns = ("name", "teacher", "data", "views", "classes", "size", "age", "uses")
        print_table(columns, [[_cell(row.get(column)) for column in columns] for row in rows])


@cache.command("info")
@click.argument("name", metavar="CACHE")
@store_option
@as_json
def info(name: str, store: Store, as_json: bool) -> None:
    """Show what a cache holds and where it came from, with the teacher's figures from the file."""
    from cache.statistics import summarize

    opened = _open(store, name)
    summary = summarize(opened, limit=20_000)
    identity, extra = opened.manifest.identity, opened.manifest.info
    if as_json:
        found = {"path": str(opened.path), "key": opened.manifest.key, "identity": identity, "info": extra}
        click.echo(json.dumps({**found, "summary": summary._asdict()}, indent=2))
        return
    click.echo(f"{opened.path}\n  key {opened.manifest.key}")
    for section, content in {**identity, "info": extra}.items():
        for field, value in content.items():
            click.echo(f"  {section}.{field}: {_short(value)}")
    click.echo(f"  of {summary.rows:,} rows (views and samples at even distances, or all):")
    for line in _said(summary):
        click.echo(f"    {line}")


@cache.command("verify")
@click.argument("names", metavar="[CACHE]...", nargs=-1)
@click.option(
    "--against-teacher",
    type=click.IntRange(1),
    metavar="N",
    help="Run the recipe's teacher on N random rows too.",
)
@recipe_options
def verify(
    names: Sequence[str], against_teacher: int | None, recipe: Recipe, base: Path, store: Store, device: str
) -> None:
    """Check every byte of caches, or of all in the store; exit code 1 if anything is wrong."""
    if against_teacher is not None:
        if names:
            raise click.UsageError(
                "--against-teacher checks the recipe's own cache; name the recipe, no CACHE"
            )
        from pipeline.training import pick_device
        from pipeline.verification import compare_with_teacher

        found = compare_with_teacher(recipe, base, store, against_teacher, pick_device(device))
        click.echo(
            f"{found.path}: {found.rows:,} rows run again: largest difference {found.largest:.3g}, of which "
            f"rounding to {found.dtype} explains {found.rounding:.3g}"
        )
        if not found.agrees:
            click.echo(f"more than {found.bound:.3g}: the cache does not hold what this teacher says")
            sys.exit(1)
        return
    wrong, paths = False, [store.resolve(name) for name in names] or store.paths()
    if not paths:
        click.echo(f"no caches in {store.root}")
    for path in paths:
        problems = _problems(path)
        wrong |= bool(problems)
        click.echo(f"{path}: " + ("sound" if not problems else f"{len(problems):,} problems"))
        for problem in problems:
            click.echo(f"  {problem}")
    if wrong:
        sys.exit(1)


@cache.command("diff")
@click.argument("one", metavar="CACHE")
@click.argument("other", metavar="CACHE")
@store_option
@as_json
def diff(one: str, other: str, store: Store, as_json: bool) -> None:
    """Show every field in which two caches differ; exit code 1 if any does."""
    from cache.manifest import differences

    found = differences(_open(store, one).manifest.identity, _open(store, other).manifest.identity)
    if as_json:
        click.echo(json.dumps([difference._asdict() for difference in found], indent=2))
    else:
        for difference in found:
            click.echo(f"{difference.field}: {_short(difference.expected)} | {_short(difference.found)}")
        click.echo(f"{len(found):,} fields differ" if found else "the same question")
    if found:
        sys.exit(1)


@cache.command("path")
@recipe_options
def path(recipe: Recipe, base: Path, store: Store, device: str) -> None:
    """Print the path of a recipe's cache, for scripts: the one that cache-logits last made or found for it."""
    from pipeline.remembered import cache_path

    click.echo(cache_path(recipe, base))


@cache.command("import")
@click.argument("logits")
@click.option("--labels", help="Labels (N,): FILE.npy, FILE.pt or FILE.h5:DATASET.")
@click.option("--teacher", required=True, help="Which network the logits are of, in words.")
@click.option(
    "--data",
    help="Which data they are of, in words; or else --recipe, whose data and views they are then of.",
)
@click.option(
    "--recipe", "-r", help="The recipe whose training data, in their order, and views the logits are of."
)
@click.option(
    "--set", "overrides", multiple=True, metavar="SECTION.KEY=VALUE", help="Override a setting of it."
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="As stored.",
)
@store_option
def import_table(
    logits: str,
    labels: str | None,
    teacher: str,
    data: str | None,
    recipe: str | None,
    overrides: Sequence[str],
    dtype: str,
    store: Store,
) -> None:
    """Make a cache of LOGITS from elsewhere: FILE.npy, FILE.pt or FILE.h5:DATASET, (N, C) or (V, N, C)."""
    from cache.exchange import import_logits
    from pipeline.data.tables import read_table

    if (data is None) == (recipe is None):
        raise click.UsageError("give either --data or --recipe: which data the logits are of")
    about: dict[str, Any] = {"data": {"name": data}, "views": None}
    answers = None if labels is None else read_table(labels)
    if recipe is not None:
        from pipeline.identity import of_recipe

        find_modules_beside(recipe)
        about, own = of_recipe(recipe, overrides)
        answers = own if answers is None else answers
    made = import_logits(
        store, read_table(logits), answers, teacher={"network": teacher}, dtype=dtype, **about
    )
    click.echo(f"made {made}")


@cache.command("export")
@click.argument("name", metavar="CACHE")
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--view", type=click.IntRange(0), help="Only this view, as (N, C).  [default: all, as (V, N, C)]"
)
@store_option
def export(name: str, output: Path, view: int | None, store: Store) -> None:
    """Write the logits of a cache to OUTPUT, a .npy file, every block checked."""
    from cache.exchange import export_logits

    if output.suffix != ".npy":
        raise click.UsageError(f"{output}: what is written is .npy; give it a name that ends so")
    opened = _open(store, name)
    if view is not None and view >= opened.num_views:
        raise click.UsageError(f"--view {view}: the cache has views 0 to {opened.num_views - 1}")
    shape = export_logits(opened, output, view)
    click.echo(f"made {output}: {' × '.join(f'{size:,}' for size in shape)} {opened.manifest.dtype.name}")


@cache.command("merge")
@click.argument("names", metavar="CACHE CACHE...", nargs=-1, required=True)
@click.option(
    "--how",
    type=click.Choice(["mean-logits", "mean-probabilities", "stack-views"]),
    default="mean-logits",
    show_default=True,
    help="Average teachers' logits, or their softmaxes at T = 1; or put the views of one teacher after each other.",
)
@store_option
def merge(names: Sequence[str], how: Any, store: Store) -> None:
    """Merge caches of the same data into one."""
    from cache.merge import merge as merge_caches

    click.echo(f"made {merge_caches(store, [_open(store, name) for name in names], how)}")


@cache.command("gc")
@click.option(
    "--unused-days",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="How long unused is too long.",
)
@click.option("--delete", is_flag=True, help="Really remove the files; without it they are only listed.")
@store_option
def collect(unused_days: float, delete: bool, store: Store) -> None:
    """List, and with --delete remove, caches that nobody uses and what dead builders left; never one
    that a student run uses.
    """
    from cache.collection import leftovers, remove

    total = 0
    for leftover in leftovers(store, unused_days):
        done = "would remove" if not delete else "removed" if remove(leftover) else "in use, kept"
        total += leftover.bytes if done != "in use, kept" else 0
        click.echo(f"{done} {leftover.path}: {leftover.bytes:,} bytes, {leftover.reason}")
    again = "" if delete or not total else "; run it with --delete to do so"
    click.echo(f"{total:,} bytes {'freed' if delete else 'would be freed'}{again}")


def _open(store: Store, name: str) -> LogitCache:
    from cache.reader import LogitCache

    return LogitCache.open(store.resolve(name))


def _problems(path: Path) -> list[str]:
    from cache.errors import CacheError
    from cache.reader import LogitCache

    try:
        return LogitCache.open(path).verify()
    except CacheError as error:
        return [str(error).removeprefix(f"{path}: ")]


def _listed(path: Path) -> dict[str, Any]:
    """A row of `ls`; a file that is not sound has only its name and what is wrong."""
    from cache import uses
    from cache.errors import CacheError
    from cache.reader import LogitCache

    try:
        opened = LogitCache.open(path, verify="off")
    except CacheError as error:
        return {"name": path.name, "teacher": f"{type(error).__name__}: see `decant cache verify`"}
    identity = opened.manifest.identity
    status = path.stat()
    return {
        "name": path.name,
        "teacher": _teacher(identity["teacher"]),
        "data": " ".join(
            str(identity["data"][part]) for part in ("name", "split") if identity["data"].get(part)
        ),
        "views": opened.num_views,
        "classes": opened.num_classes,
        "bytes": status.st_size,
        "seconds_old": time.time() - status.st_mtime,
        "uses": uses.count(path),
        "key": opened.manifest.key,
    }


def _said(summary: Summary | RegressionSummary) -> list[str]:
    """What the figures of a cache come to, in lines."""
    from cache.statistics import RegressionSummary

    if isinstance(summary, RegressionSummary):
        found = summary._asdict()
        shown = (f"{figure.name} {figure.text(found)}" for figure in FIGURES["regression"])
        return [f"the teacher's {', '.join(shown)}"]
    return [
        f"the teacher's top-1 {percent(summary.top1)}, calibration error {percent(summary.calibration_error)}",
        f"mean confidence {percent(summary.confidence)}, mean entropy {summary.entropy:.4f} nats, at T = 1",
    ]


def _teacher(identity: Mapping[str, Any]) -> str | None:
    """Whose logits a cache holds, in a word or two."""
    if "mean" in identity:
        return f"mean {identity['mean']} of {len(identity['of'])}"
    network = identity.get("network")
    return network.get("name") if isinstance(network, dict) else network


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _short(value: Any, limit: int = 100) -> str:
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
