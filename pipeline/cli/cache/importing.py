"""`decant cache import`: a cache of logits, or of encoded rows, that another program has written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import PATH, PLACE
from decant.pipeline.cli.made_caches import print_accuracy
from decant.pipeline.cli.options import (
    command_line,
    find_modules_beside,
    load_given_recipe,
    overrides_option,
    say,
    store_option,
    trust_option,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from decant.cache import Store
    from decant.pipeline.data.samples import LabelledData


@click.command("import")
@click.argument("logits", type=PLACE, shell_complete=completion.files)
@click.option(
    "--labels", type=PLACE, shell_complete=completion.files, help="Labels (N,), in the same kinds of files."
)
@click.option("--teacher", required=True, help="A name for the network that the logits come from.")
@click.option(
    "--data",
    help="A name for the data that the logits belong to; or give --recipe instead.",
)
@click.option(
    "--recipe",
    "-r",
    type=PLACE,
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
    type=PLACE,
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
    type=PATH,
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
    """Make a cache from logits of another program.

    LOGITS is a table (N, C) or (V, N, C): FILE.npy, FILE.npz:NAME, FILE.pt or FILE.h5:DATASET. If there are labels,
    the teacher's top-1 on them is printed. With --outputs it is rows of the likeliest outputs: a .npz file as `decant
    cache export` writes, answers of vLLM, or files of DistillKit.
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
    answers = None if labels is None else read_table(labels)
    table = read_table(logits)
    about, of_data = _what_it_is_of(data, task, recipe, overrides)
    if of_data is not None and answers is None:
        answers = of_data.labels
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
    print_accuracy(made)
    say(f"next: {_after_importing(made, recipe, overrides, store)}")


def _what_it_is_of(
    data: str | None,
    task: Literal["binary", "multilabel"] | None,
    recipe: str | None,
    overrides: Sequence[str],
) -> tuple[dict[str, Any], LabelledData | None]:
    """What a table of logits is of, by the name that is given or by a recipe, whose training data come with it."""
    if recipe is None:
        return {"data": {"name": data, **({} if task is None else {"task": task})}, "views": None}, None
    from decant.pipeline.phases.datasets import RecipeData

    find_modules_beside(recipe)
    of_recipe = RecipeData(load_given_recipe(recipe, overrides).settings)
    return of_recipe.student_fingerprints, of_recipe.student_data


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


def _after_importing(made: Path, recipe: str | None, overrides: Sequence[str], store: Store) -> str:
    """The next command: `student` of the recipe that the logits belong to, or else `cache info`."""
    if recipe is None:
        return command_line("cache", "info", made)
    words = [word for setting in (*overrides, f"cache.from={made}") for word in ("--set", setting)]
    return command_line("student", "--recipe", recipe, *words, store=store)
