"""`decant cache verify`: whether a cache is intact, and agrees with its teacher."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PLACE
from decant.pipeline.cli.options import PART, as_json, command_line, print_json, recipe_options, say

if TYPE_CHECKING:
    from decant.cache import Store
    from decant.pipeline.config.recipe import Recipe
    from decant.pipeline.phases.verify import Comparison


@click.command("verify")
@click.argument("names", metavar="[CACHE]...", type=PLACE, nargs=-1, shell_complete=completion.caches)
@click.option(
    "--against-teacher",
    type=click.IntRange(1),
    metavar="N",
    help="Run the recipe's teacher on N random rows and compare its logits with the cache.",
)
@click.option(
    "--part",
    type=PART,
    help="I/N: check the I-th of N equal parts of each cache alone, as a job of an array does.",
)
@partial(recipe_options, needed_by="against_teacher")
@as_json
def verify(
    names: Sequence[str],
    against_teacher: int | None,
    part: tuple[int, int] | None,
    recipe: Recipe | None,
    base: Path | None,
    store: Store,
    device: str,
    as_json: bool,
) -> None:
    """Check every byte of caches; exit code 1 if one is damaged.

    Without CACHE: of all caches in the store.
    """
    if against_teacher is None or recipe is None or base is None:
        sound = _check_bytes(names, store, part or (0, 1), as_json)
    elif part is not None:
        raise click.UsageError("--part checks checksums; leave it out with --against-teacher")
    elif names:
        raise click.UsageError("--against-teacher checks the recipe's own cache; name the recipe, no CACHE")
    else:
        sound = _check_rows(recipe, base, store, against_teacher, device, as_json)
    if not sound:
        sys.exit(1)


def _check_bytes(names: Sequence[str], store: Store, part: tuple[int, int], as_json: bool) -> bool:
    """Prints the problems of each cache. Returns whether there are none."""
    paths = [store.resolve(name) for name in names] or store.paths()
    if not paths:
        say(f"no caches in {store.name}" + ("" if store.remote is None else " have a copy here"))
    checked = []
    for path in paths:
        problems = _problems(path, part)
        checked.append({"path": path, "problems": problems})
        which = "" if part[1] == 1 else f"part {part[0] + 1} of {part[1]}, "
        say(f"{path}: {which}" + ("sound" if not problems else f"{len(problems):,} problems"))
        for problem in problems:
            say(f"  {problem}")
    if as_json:
        print_json(checked)
    sound = not any(one["problems"] for one in checked)
    if sound and len(paths) == 1 and part[1] == 1:
        say(f"next: {command_line('cache', 'info', *paths)}")
    return sound


def _check_rows(recipe: Recipe, base: Path, store: Store, rows: int, device: str, as_json: bool) -> bool:
    """Prints how far the recipe's cache is from its teacher's logits now. Returns whether they agree."""
    from decant.pipeline.phases.any_recipe import compare_with_teacher
    from decant.pipeline.phases.kinds import plan_of
    from decant.pipeline.training.device import pick_device

    comparison = compare_with_teacher(plan_of(recipe, base, store), rows, pick_device(device))
    _print_comparison(comparison)
    if as_json:
        print_json({**asdict(comparison), "agrees": comparison.agrees})
    if comparison.agrees:
        say(f"next: {recipe.command('student')}")
    return comparison.agrees


def _print_comparison(comparison: Comparison) -> None:
    say(
        f"{comparison.path}: {comparison.rows:,} rows run again: largest difference {comparison.largest:.3g}, of which "
        f"rounding to {comparison.dtype} explains {comparison.rounding:.3g}"
    )
    if not comparison.agrees:
        say(f"more than {comparison.bound:.3g}: the cache does not hold what this teacher says")


def _problems(path: Path, part: tuple[int, int]) -> list[str]:
    from decant.cache import CacheError, LogitCache

    try:
        return LogitCache.open(path).verify(part)
    except CacheError as error:
        return [str(error).removeprefix(f"{path}: ")]
    except OSError as error:  # the other caches are checked all the same
        return [error.strerror or str(error).removeprefix(f"{path}: ")]
