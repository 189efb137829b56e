"""What a sweep needs before it begins: a teacher, caches, and settings that lead to students."""

from __future__ import annotations

import itertools
from typing import Any

from decant.cache.io.redaction import redacted
from decant.pipeline.errors import ModelError, NotMadeError, RecipeError
from decant.pipeline.networks.build import build_network
from decant.pipeline.sweeps.definition import Sweep
from decant.pipeline.sweeps.space import ENCODING, overrides_of
from decant.pipeline.sweeps.students import AnyStudents

_MOST_COMBINATIONS = 256


def check(sweep: Sweep, students: AnyStudents[Any, Any]) -> None:
    """Opens every cache, builds every network and checks every objective that the sweep has, in its first 256
    combinations. Raises NotMadeError, with the command, where teacher or cache is missing, and whatever else is wrong,
    naming it.
    """
    try:
        students.cache(sweep.recipe if not _varies_cache(sweep) else sweep.variation(_first(sweep)))
    except NotMadeError as error:
        raise NotMadeError(f"{error}, or give --build") from None
    built = set[str]()
    combinations = itertools.product(*(setting.ends for setting in sweep.space))
    for values in itertools.islice(combinations, _MOST_COMBINATIONS):
        recipe = sweep.variation(values)
        try:
            students.check(recipe)
            network = recipe.settings.student.network
            if network.model_dump_json() not in built:
                build_network(students.spec(recipe))
                built.add(network.model_dump_json())
        except (RecipeError, ModelError) as error:
            given = redacted(", ".join(overrides_of(sweep.space, values)))
            raise type(error)(f"--over {given}: {error}") from None


def _varies_cache(sweep: Sweep) -> bool:
    return any(setting.path == "cache.from" or setting.path.startswith(ENCODING) for setting in sweep.space)


def _first(sweep: Sweep) -> tuple[str, ...]:
    return tuple(setting.ends[0] for setting in sweep.space)
