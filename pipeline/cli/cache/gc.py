"""`decant cache gc`: unused files of a store, listed or removed."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decant.pipeline.cli.options import as_json, command_line, print_json, say, store_option

if TYPE_CHECKING:
    from decant.cache import Leftover, Store


@click.command("gc")
@click.option(
    "--unused-days",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Days without use after which a cache counts as unused.",
)
@click.option("--delete", is_flag=True, help="Remove the files; without it they are only listed.")
@store_option
@as_json
def collect(unused_days: float, delete: bool, store: Store, as_json: bool) -> None:
    """List unused files of a store, or remove them.

    These are unused caches and packs, and the partial files of dead processes. They are removed with --delete. A
    cache that a student's run uses is never removed, nor is a file that Decant did not write. Exit code 1 if a file
    could not be removed; the others are removed all the same.
    """
    from decant.cache import StorageError, leftovers, remove_leftover
    from decant.cache.io import flock
    from decant.pipeline.data.image_pack import IN_STORE, ITEMS_IN_STORE, is_pack

    if not flock.AVAILABLE:
        raise StorageError(
            f"{store.root}: this system has no file locks (fcntl), so nothing tells which files are in use; remove by "
            "hand what no process reads or writes"
        )

    listed, total, failed = [], 0, False
    for leftover in leftovers(store, unused_days, {IN_STORE: is_pack}, _print_kept, ITEMS_IN_STORE):
        try:
            removed = delete and remove_leftover(leftover)
        except StorageError as error:  # the others can go all the same
            say(f"decant: {error}", err=True)
            listed.append({**asdict(leftover), "done": False})
            failed = True
            continue
        total += leftover.bytes if removed or not delete else 0
        _print_leftover(leftover, delete, removed)
        listed.append({**asdict(leftover), "done": removed})
    left = [] if store.remote is None else store.remote.leftovers(86_400.0, delete)
    for place in left:
        say(f"{'removed' if delete else 'would remove'} {place}: unfinished, and left alone for a day")
    again = "" if delete or not (total or left) else "; run it with --delete to do so"
    say(f"{total:,} bytes {'freed' if delete else 'would be freed'}{again}")
    if as_json:
        print_json(listed)
    if again:
        words = ("cache", "gc", "--unused-days", f"{unused_days:g}", "--delete")
        say(f"next: {command_line(*words, store=store)}")
    if failed:
        sys.exit(1)


def _print_kept(path: Path, reason: str) -> None:
    say(f"kept {path}: {reason}", err=True)


def _print_leftover(leftover: Leftover, delete: bool, removed: bool) -> None:
    done = "would remove" if not delete else "removed" if removed else "in use, kept"
    say(f"{done} {leftover.path}: {leftover.bytes:,} bytes, {leftover.reason}")
