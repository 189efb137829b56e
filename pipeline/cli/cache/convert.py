"""`decant cache import`, `export`, `convert` and `gc`: from arrays, to arrays, smaller, unused files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.options import (
    as_json,
    command_line,
    find_modules_beside,
    load_given_recipe,
    overrides_option,
    percent,
    print_json,
    say,
    store_option,
    trust_option,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decant.cache import Leftover, Store


@click.command("import")
@click.argument("logits", shell_complete=completion.files)
@click.option("--labels", shell_complete=completion.files, help="Labels (N,), in the same kinds of files.")
@click.option("--teacher", required=True, help="A name for the network that the logits come from.")
@click.option(
    "--data",
    help="A name for the data that the logits belong to; or give --recipe instead.",
)
@click.option(
    "--recipe",
    "-r",
    shell_complete=completion.recipes,
    help="The recipe whose training data, in their order, and views the logits belong to.",
)
@click.option(
    "--task",
    type=click.Choice(["binary", "multilabel"]),
    help="The outputs are logits of sigmoids, and labels are 0 and 1; with --recipe its data.task says so.",
)
@overrides_option
@click.option(
    "--classes",
    help="Keep these columns alone, one for each class of the data, in their order: numbers from 0, or names, with "
    'commas between or as a list: 2,5,9 or \'["a, b", "c"]\'.',
)
@click.option(
    "--class-names",
    shell_complete=completion.files,
    help="A file with the name of each column of LOGITS, a line each or a JSON list. Without --classes, the columns "
    "of the recipe's own classes are kept.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float16", "float32"]),
    default="float16",
    show_default=True,
    help="Type to store the logits in.",
)
@click.option(
    "--probabilities",
    is_flag=True,
    help="The table holds softmax outputs: store their logarithm, of at least 1e-12. Of --task binary and multilabel: "
    "outputs of sigmoids, whose logits are stored.",
)
@click.option(
    "--outputs",
    type=click.IntRange(1),
    help="LOGITS is a .npz file of `ids` and `log_probs` (P, k), or of `logits` (P, C), a .json or .jsonl file of "
    "answers of vLLM, or a .parquet file or a folder of DistillKit, of a teacher of so many outputs.",
)
@click.option(
    "--head",
    type=click.IntRange(1),
    help="Of answers of vLLM and rows of DistillKit: outputs of a row that are kept.  [default: 64 of vLLM, all of "
    "DistillKit]",
)
@click.option(
    "--compression",
    type=click.Path(path_type=Path),
    shell_complete=completion.files,
    help="Of rows of DistillKit: how they are packed.  [default: compression_config.yaml beside them]",
)
@click.option(
    "--predicts",
    type=click.Choice(["next", "here"]),
    default="next",
    show_default=True,
    help="With --outputs and `lengths` (N,) in the file: a row is about the token that follows, or about its own.",
)
@store_option
@trust_option
def import_table(
    logits: str,
    labels: str | None,
    teacher: str,
    data: str | None,
    recipe: str | None,
    task: Literal["binary", "multilabel"] | None,
    overrides: Sequence[str],
    classes: str | None,
    class_names: str | None,
    dtype: str,
    probabilities: bool,
    outputs: int | None,
    head: int | None,
    compression: Path | None,
    predicts: Literal["next", "here"],
    store: Store,
) -> None:
    """Make a cache from LOGITS of another program, a table (N, C) or (V, N, C).

    It is FILE.npy, FILE.npz:NAME, FILE.pt or FILE.h5:DATASET. If there are labels, the teacher's top-1 on them is
    printed. With --outputs it is a .npz file of the largest log-probabilities alone, as `decant cache export` writes.
    """
    from decant.cache import import_logits
    from decant.pipeline.data.array_files import read_table
    from decant.pipeline.data.imported_columns import choose_columns
    from decant.pipeline.data.sigmoid_labels import as_sigmoid_labels

    if outputs is not None:
        if data is None or any(option is not None for option in (labels, task, recipe, classes, class_names)):
            raise click.UsageError("--outputs: rows of ids need --data, and take no other option")
        arrays = _read_rows(Path(logits), head, compression)
        say(f"made {_import_rows(store, arrays, outputs, teacher, data, predicts)}")
        return
    if head is not None or compression is not None:
        raise click.UsageError("--head and --compression belong to rows of ids, and need --outputs")
    if (data is None) == (recipe is None):
        raise click.UsageError("give either --data or --recipe: which data the logits are of")
    if task is not None and recipe is not None:
        raise click.UsageError("--task: the recipe says it, as data.task; leave it out")
    about: dict[str, Any] = {
        "data": {"name": data, **({} if task is None else {"task": task})},
        "views": None,
    }
    answers = None if labels is None else read_table(labels)
    table, of_data = read_table(logits), None
    if recipe is not None:
        from decant.pipeline.phases.datasets import RecipeData

        find_modules_beside(recipe)
        of_recipe = RecipeData(load_given_recipe(recipe, overrides).settings)
        about = of_recipe.student_fingerprints
        of_data = of_recipe.student_data
        answers = of_data.labels if answers is None else answers
    if answers is not None and about["data"].get("task") is not None:
        answers = as_sigmoid_labels(answers, table.shape[-1], labels or data or "")
    _, kept = choose_columns(table, classes, class_names, of_data)
    made = import_logits(
        store,
        table,
        answers,
        teacher={"network": teacher, **({} if kept is None else {"classes": kept})},
        dtype=dtype,
        columns=kept,
        probabilities=probabilities,
        **about,
    )
    say(f"made {made}")
    _print_accuracy(made)
    say(f"next: {_after_importing(made, recipe, overrides, store)}")


def _read_rows(path: Path, head: int | None, compression: Path | None) -> dict[str, NDArray[Any]]:
    """The arrays in a .npz file, in answers of vLLM, or in Parquet of DistillKit."""
    from decant.cache import read_distillkit, read_vllm
    from decant.pipeline.data.array_files import read_arrays

    if path.is_dir() or path.suffix == ".parquet":
        return read_distillkit(path, head, compression)
    if compression is not None:
        raise click.UsageError("--compression: belongs to rows of DistillKit, a .parquet file or a folder")
    if path.suffix in (".json", ".jsonl"):
        return read_vllm(path, 64 if head is None else head)
    if head is not None:
        raise click.UsageError("--head: a .npz file has the outputs that are kept")
    return read_arrays(path)


def _import_rows(
    store: Store,
    arrays: dict[str, NDArray[Any]],
    outputs: int,
    teacher: str,
    data: str,
    predicts: Literal["next", "here"],
) -> Path:
    from decant.cache import import_rows

    return import_rows(
        store,
        arrays,
        num_outputs=outputs,
        teacher={"network": teacher},
        data={"name": data},
        predicts=predicts,
    )


@click.command("export")
@click.argument("name", metavar="CACHE", shell_complete=completion.caches)
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "--view", type=click.IntRange(0), help="Only this view, as (N, C).  [default: all, as (V, N, C)]"
)
@store_option
def export(name: str, output: Path, view: int | None, store: Store) -> None:
    """Check every block of a cache and write its logits to OUTPUT, a .npy file.

    A .npz file gets the rows as they are: ids and log-probabilities of a sparse cache, and of samples with several
    positions each their lengths and tokens.
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
@click.argument("name", metavar="CACHE", shell_complete=completion.caches)
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
    _print_accuracy(made)


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
    """List, and with --delete remove, unused caches and the partial files of dead processes.

    A cache that a student's run uses is never removed, nor is a file that Decant did not write. Exit code 1 if a file
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


def _print_accuracy(path: Path) -> None:
    """The teacher's top-1 on the labels of a cache, where it has class labels."""
    from decant.cache import LogitCache, accuracy_in

    found = accuracy_in(LogitCache.open(path))
    if found is not None:
        say(
            f"the teacher's top-1 is {percent(found.top1)} on {found.samples:,} samples; chance is "
            f"{percent(found.chance)}"
        )


def _after_importing(made: Path, recipe: str | None, overrides: Sequence[str], store: Store) -> str:
    """The next command: `student` of the recipe that the logits belong to, or else `cache info`."""
    if recipe is None:
        return command_line("cache", "info", made)
    words = [word for setting in (*overrides, f"cache.from={made}") for word in ("--set", setting)]
    return command_line("student", "--recipe", recipe, *words, store=store)


def _print_leftover(leftover: Leftover, delete: bool, removed: bool) -> None:
    done = "would remove" if not delete else "removed" if removed else "in use, kept"
    say(f"{done} {leftover.path}: {leftover.bytes:,} bytes, {leftover.reason}")
