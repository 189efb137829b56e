"""`decant cache diff`: in which fields two caches differ."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PLACE
from decant.pipeline.cli.options import as_json, command_line, print_json, say, store_option
from decant.pipeline.support.terminal import short_json

if TYPE_CHECKING:
    from decant.cache import Difference, LogitCache, Store


@click.command("diff")
@click.argument("one", metavar="CACHE", type=PLACE, shell_complete=completion.caches)
@click.argument("other", metavar="CACHE", type=PLACE, shell_complete=completion.caches)
@store_option
@as_json
def diff(one: str, other: str, store: Store, as_json: bool) -> None:
    """Show every field in which two caches differ.

    Exit code 1 if there is one.
    """
    from decant.cache import LogitCache, differences

    opened = [LogitCache.open(store.resolve(name)) for name in (one, other)]
    first, second = opened
    differing = differences(first.manifest.identity, second.manifest.identity)
    if as_json:
        print_json([difference._asdict() for difference in differing])
    else:
        for difference in differing:
            say(f"{difference.field}: {short_json(difference.expected)} | {short_json(difference.found)}")
        say(f"{len(differing):,} fields differ" if differing else "no field differs")
    if _of_two_teachers(differing) and not any(_has_no_mean(cache) for cache in opened):
        say(f"next: {command_line('cache', 'merge', first.path, second.path, store=store)}")
    if differing:
        sys.exit(1)


def _of_two_teachers(differing: Sequence[Difference]) -> bool:
    """Whether caches with these differences are of the same data and views, and can be merged."""
    return bool(differing) and all(difference.field.startswith("teacher.") for difference in differing)


def _has_no_mean(cache: LogitCache) -> bool:
    """Whether `merge` makes no mean of such caches."""
    from decant.cache import Sparse

    return cache.has_positions or isinstance(cache.manifest.encoding, Sparse)
