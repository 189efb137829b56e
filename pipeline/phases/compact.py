"""How small a sparse cache may be: what heads and draws of several sizes leave out of some of the teacher's rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from decant.cache import Manifest, Sparse, SparseSurvey, SurveyedSize, expected_size
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import EncodingSettings
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases.fingerprints import encoding_of
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.teacher_pass import teacher_logits
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.progress import progress

ROWS = 2000
"""Samples that are looked at, at most."""
_MOST_LEFT_OUT = 0.5  # of the mass, beyond which a head says too little


@dataclass(frozen=True)
class Size:
    """What k outputs a row would be worth, and take."""

    found: SurveyedSize
    row_bytes: int
    bytes: int
    """Of the tables of the whole cache."""
    error: float
    """What `--max-error` is compared with: the error of draws where the recipe draws, else the mean tail."""


@dataclass(frozen=True)
class Sizes:
    """A table of sizes, at every declared temperature, and what it is of."""

    sizes: tuple[Size, ...]
    rows: int
    seconds: float
    """Of the teacher, for these rows."""

    def least(self, most: float) -> int:
        """The least k whose error is at most `most` at every temperature. Raises RecipeError where none is."""
        worst: dict[int, float] = {}
        for size in self.sizes:
            worst[size.found.kept] = max(worst.get(size.found.kept, 0.0), size.error)
        for kept, error in worst.items():
            if error <= most:
                return kept
        kept, error = list(worst.items())[-1] if worst else (0, 1.0)
        raise RecipeError(
            f'--max-error {most:g}: {kept} outputs a row leave {error:.2g}; take cache.encoding = "dense-u8", which '
            "serves every temperature, or declare lower temperatures"
        )

    @property
    def doubt(self) -> str | None:
        """Said where the largest head leaves out more than half of the mass at a temperature; None where none does."""
        worst = max(
            (size for size in self.sizes), key=lambda size: (size.found.kept, size.found.tail), default=None
        )
        if worst is None or worst.found.tail <= _MOST_LEFT_OUT:
            return None
        return (
            f"at T = {worst.found.temperature:g} even the {worst.found.kept} largest leave out "
            f'{worst.found.tail:.0%} of the mass: take cache.encoding = "dense-u8" for that temperature'
        )


def survey(plan: Plan, device: torch.device, rows: int = ROWS) -> Sizes:
    """Runs the teacher on some samples, spread evenly over the first view, and says what heads and draws of several
    sizes would leave out. Writes nothing. Raises RecipeError for a recipe whose cache is not sparse.
    """
    encoding = encoding_of(plan.settings.cache)
    if not isinstance(encoding, Sparse):
        raise RecipeError('--max-error: is of a sparse cache; set cache.encoding = "sparse"')
    manifest, viewed, settings = plan.manifest, plan.data.student_train, plan.settings.cache
    network = load_network(plan.teacher).to(device)
    chosen = np.unique(np.linspace(0, len(viewed) - 1, min(rows, len(viewed))).astype(np.intp))
    found, started = SparseSurvey(encoding.temperatures), time.perf_counter()
    with progress("looking at the teacher's rows", len(chosen)) as advance:
        for first in range(0, len(chosen), settings.batch_size):
            some = chosen[first : first + settings.batch_size]
            inputs, _ = viewed.batch(np.stack([some, np.zeros_like(some)], axis=1))
            found.add(teacher_logits(network, inputs, device, settings.precision))
            advance(len(some))
    seconds = time.perf_counter() - started
    return Sizes(tuple(size_of(one, encoding, manifest) for one in found), len(chosen), seconds)


def with_outputs(recipe: Recipe, kept: int) -> Recipe:
    """The recipe whose sparse cache has so many outputs a row, as its commands say."""
    encoding = recipe.settings.cache.encoding or EncodingSettings(kind="sparse")
    name = "head" if encoding.draws is None else "draws"
    head = {} if name == "head" or not encoding.head else {"head": encoding.head}
    changed = encoding.model_copy(update={name: kept - head.get("head", 0)})
    cache = recipe.settings.cache.model_copy(update={"encoding": changed})
    given = changed.model_dump(mode="json", exclude_none=True)
    words = ", ".join(f"{key} = {_toml(value)}" for key, value in given.items())
    return replace(
        recipe,
        settings=recipe.settings.model_copy(update={"cache": cache}),
        options=(*recipe.options, "--set", f"cache.encoding={{{words}}}"),
    )


def size_of(found: SurveyedSize, encoding: Sparse, manifest: Manifest) -> Size:
    """What so many outputs a row would take in the cache with this manifest."""
    draws = found.kept - encoding.head if encoding.draws and found.kept > encoding.head else 0
    one = replace(encoding, head=found.kept - draws, draws=draws, seed=encoding.seed if draws else 0)
    stored = {"teacher_precision": manifest.identity["encoding"]["teacher_precision"], **one.identity}
    whole = Manifest({**manifest.identity, "encoding": stored}, manifest.info)
    error = found.draws_error if encoding.draws else found.tail
    return Size(found, one.row_bytes(manifest.num_outputs), expected_size(whole), error)


def _toml(value: str | float | Sequence[float]) -> str:
    if isinstance(value, str):
        return f"'{value}'"
    return f"[{', '.join(map(str, value))}]" if isinstance(value, Sequence) else str(value)
