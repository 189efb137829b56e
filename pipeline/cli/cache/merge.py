"""`decant cache merge`: one cache from several, or from the parts of one that several machines have made."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PLACE
from decant.pipeline.cli.options import command_line, say, store_option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from decant.cache import Manifest, Store


@click.command("merge")
@click.argument(
    "names", metavar="CACHE CACHE...", type=PLACE, nargs=-1, required=True, shell_complete=completion.caches
)
@click.option(
    "--how",
    type=click.Choice(["mean-logits", "mean-probabilities", "stack-views", "parts"]),
    default="mean-logits",
    show_default=True,
    help="Average the teachers' logits, or their softmax at T = 1; stack the views of one teacher; or make one cache "
    "of the unfinished files (.partial) that `cache-logits --part` has left on several machines.",
)
@click.option(
    "--parts",
    type=click.IntRange(1),
    metavar="N",
    help="With --how parts: the N of --part I/N, to have the parts named that are missing.",
)
@store_option
def merge(
    names: Sequence[str],
    how: Literal["mean-logits", "mean-probabilities", "stack-views", "parts"],
    parts: int | None,
    store: Store,
) -> None:
    """Merge caches of the same data into one."""
    from decant.cache import LogitCache, merge_caches, merge_parts

    if how == "parts":
        made = merge_parts(store, [Path(name) for name in names], partial(_missing_parts, count=parts))
    elif parts is not None:
        raise click.UsageError("--parts belongs to --how parts")
    else:
        made = merge_caches(store, [LogitCache.open(store.resolve(name)) for name in names], how)
    say(f"made {made}")
    say(f"next: {command_line('cache', 'info', made)}")


def _missing_parts(manifest: Manifest, missing: NDArray[np.bool_], count: int | None) -> str:
    """What to run for missing rows (V, N)."""
    if count is None:
        return "`decant cache-logits --part I/N` makes them; --parts N names which I"
    from decant.pipeline.training.handout import parts_of
    from decant.pipeline.training.teacher_rows import units_of

    size = manifest.info.get("batch_size")
    if type(size) is not int or size < 1:
        return "which parts they are of is not known: the files do not say `batch_size`"
    units = units_of(manifest, size, processes=count)
    found = [f"{index + 1}/{count}" for index in parts_of(units, missing, count)]
    more = f" and {len(found) - 8:,} more" if len(found) > 8 else ""
    return f"make them with `decant cache-logits --part` {', '.join(found[:8])}{more}"
