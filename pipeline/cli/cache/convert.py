"""`decant cache export` and `convert`: arrays, or a smaller cache, from a cache."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PATH, PLACE
from decant.pipeline.cli.made_caches import print_accuracy
from decant.pipeline.cli.options import say, store_option

if TYPE_CHECKING:
    from decant.cache import Store


@click.command("export")
@click.argument("name", metavar="CACHE", type=PLACE, shell_complete=completion.caches)
@click.argument("output", type=PATH)
@click.option(
    "--view", type=click.IntRange(0), help="Only this view, as (N, C).  [default: all, as (V, N, C)]"
)
@store_option
def export(name: str, output: Path, view: int | None, store: Store) -> None:
    """Write the logits of a cache to a .npy or .npz file.

    Every block is checked. OUTPUT.npy gets logits; OUTPUT.npz gets the rows as they are: ids and log-probabilities of
    a sparse cache, and of samples with several positions each their lengths and tokens.
    """
    from decant.cache import LogitCache, Sparse, export_logits, export_rows

    if output.suffix not in (".npy", ".npz"):
        raise click.UsageError(f"{output}: what is written is .npy or .npz; give it a name that ends so")
    opened = LogitCache.open(store.resolve(name))
    if output.suffix == ".npz":
        if view is not None:
            raise click.UsageError("--view: belongs to .npy; a .npz file has all views")
        for array, size in export_rows(opened, output).items():
            say(f"{output}: {array} ({', '.join(map(str, size))})")
        return
    if view is not None and view >= opened.num_views:
        raise click.UsageError(f"--view {view}: the cache has views 0 to {opened.num_views - 1}")
    shape = export_logits(opened, output, view)
    if isinstance(opened.manifest.encoding, Sparse):
        say(
            f"decant: {opened.path}: holds {opened.manifest.encoding.name}; {output} has what students see of that at "
            "T = 1; a .npz file has the rows as they are",
            err=True,
        )
    say(f"made {output}: {' × '.join(f'{size:,}' for size in shape)} {opened.manifest.dtype.name}")


@click.command("convert")
@click.argument("name", metavar="CACHE", type=PLACE, shell_complete=completion.caches)
@click.option(
    "--encoding",
    type=click.Choice(["dense-u8", "sparse"]),
    required=True,
    help="A byte for each logit, on a scale of its row; or the largest logits alone.",
)
@click.option(
    "--head",
    type=click.IntRange(0),
    help="The largest logits of a row, which sparse keeps.  [default: 64, 0 with draws]",
)
@click.option(
    "--draws", type=click.IntRange(1), help="More of them that sparse draws, each with a known probability."
)
@click.option("--seed", type=click.IntRange(0), help="Seed of the draws.  [default: 0]")
@click.option(
    "--temperatures",
    help="Temperatures at which students may learn from sparse, with commas between.  [default: 1]",
)
@store_option
def convert(
    name: str,
    encoding: Literal["dense-u8", "sparse"],
    head: int | None,
    draws: int | None,
    seed: int | None,
    temperatures: str | None,
    store: Store,
) -> None:
    """Make a smaller cache of CACHE, which holds every logit. No teacher is needed."""
    from decant.cache import LogitCache, Quantised, Sparse, convert_cache

    if encoding == "dense-u8" and any(given is not None for given in (head, draws, seed, temperatures)):
        raise click.UsageError("--head, --draws, --seed and --temperatures belong to --encoding sparse")
    cache = LogitCache.open(store.resolve(name))
    try:
        at = tuple(sorted({float(value) for value in (temperatures or "1").split(",")}))
    except ValueError:
        raise click.UsageError(f"--temperatures: expected numbers as 1,4, found {temperatures!r}") from None
    try:
        largest = head if head is not None else 0 if draws else 64
        wanted = Quantised() if encoding == "dense-u8" else Sparse(largest, at, draws or 0, seed or 0)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    made = convert_cache(store, cache, wanted)
    before, after = cache.path.stat().st_size, made.stat().st_size
    say(f"made {made}: {after:,} bytes, {after / before:.0%} of {cache.path.name}")
    print_accuracy(made)
