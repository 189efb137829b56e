"""The sizes of sparse rows: what each would leave out, and the least that is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from decant.pipeline.cli.options import percent, print_table, say

if TYPE_CHECKING:
    from decant.pipeline.config.recipe import Recipe
    from decant.pipeline.phases.compact import Sizes
    from decant.pipeline.phases.kinds import RecipePlan


def is_sparse(recipe: Recipe) -> bool:
    """Whether its cache is to be sparse, of a teacher whose logits are all known."""
    if recipe.settings.teacher.server is not None:
        return False
    encoding = recipe.settings.cache.encoding
    return recipe.settings.data.of_tokens if encoding is None else encoding.kind == "sparse"


def with_fitting_size(
    recipe: Recipe, plans: Sequence[RecipePlan], device: str, max_error: float | None, show: bool
) -> tuple[Recipe, list[dict[str, Any]]]:
    """The recipe with the least size of its sparse rows that meets `max_error`, where there is one, and the table of
    sizes for `--json`, which is printed where it is to `show`.
    """
    from decant.pipeline.phases import any_recipe, compact
    from decant.pipeline.training.device import pick_device

    kept, rows = 0, []
    for each in plans:
        found = any_recipe.survey(each, pick_device(device))
        _print(found, show)
        kept = max(kept, 0 if max_error is None else found.least(max_error))
        rows += [
            {**asdict(size.found), "row_bytes": size.row_bytes, "bytes": size.bytes} for size in found.sizes
        ]
    if not kept:
        return recipe, rows
    say(f"--max-error {max_error:g}: {kept} outputs a row")
    return compact.with_outputs(recipe, kept), rows


def _print(sizes: Sizes, show: bool) -> None:
    say(f"of {sizes.rows:,} samples, in {sizes.seconds:,.1f} s of teacher:")
    columns = ("outputs a row", "T", "left out", "of 90 %", "error of draws", "bytes a row", "cache")
    rows = [
        (
            f"{size.found.kept}",
            f"{size.found.temperature:g}",
            percent(size.found.tail),
            percent(size.found.tail_90),
            f"{size.found.draws_error:.4f}",
            f"{size.row_bytes:,}",
            f"{size.bytes / 1e9:,.3g} GB",
        )
        for size in sizes.sizes
    ]
    if show:
        print_table(columns, rows)
    if sizes.doubt is not None:
        say(sizes.doubt, err=True)
