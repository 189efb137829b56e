"""What a sweep is: a recipe, what is varied, and how it is searched; and the folder that it has."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from decant.cache.io.redaction import without_secrets
from decant.pipeline.config.recipe import Recipe, overridden, without_set
from decant.pipeline.config.settings import SweepSettings
from decant.pipeline.config.tasks import FORMATS, OF_TEACHER, MetricFormat, chosen_by
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases.kinds import RecipePlan
from decant.pipeline.runs.saved_recipe import NOT_DECISIVE
from decant.pipeline.sweeps.space import ENCODING, Choices, Range, Setting, grid, overrides_of, parse_space

_TRIALS = 20
TRAIN = "train"
"""The part that students are trained on."""
_AROUND = 10.0
"""The baseline's learning rate is searched from a tenth of the best student's to ten times it, where it is not varied.
"""


@dataclass(frozen=True)
class Sweep:
    """A sweep of a recipe, whose trials share its data, teacher and cache."""

    plan: RecipePlan
    """Of the recipe without its section [sweep]: what a trial is a variation of."""
    settings: SweepSettings
    space: tuple[Setting, ...]

    @classmethod
    def of(cls, plan: RecipePlan) -> Sweep:
        """The sweep of a plan's recipe. Raises RecipeError, naming what is wrong: no section [sweep], no validation
        part, or a setting that cannot be varied so.
        """
        recipe, settings = plan.recipe, plan.settings.sweep
        if settings is None:
            raise RecipeError(
                f"{recipe.name}: nothing is varied: give --over student.lr=log:0.01..0.3 and the like, or the recipe a "
                "section [sweep]"
            )
        alone = replace(
            recipe,
            settings=plan.settings.model_copy(update={"sweep": None}),
            options=without_set(recipe.options, lambda path: path.startswith("sweep.")),
        )
        space = parse_space(settings.over, alone)
        if plan.settings.data.validation is None:
            raise RecipeError(
                f"{recipe.name}: a sweep chooses by a validation part, and there is none; hold a tenth of the training "
                "part out with --set data.validation=0.1, or name a part of its own"
            )
        if settings.sampler == "grid":
            grid(space)
        sweep = cls(replace(plan, recipe=alone), settings, space)
        if sweep.figure.key in OF_TEACHER and any(setting.path.startswith(ENCODING) for setting in space):
            raise RecipeError(
                f"sweep.metric: {sweep.figure.key!r} compares with a teacher's rows, and another cache.encoding has "
                'others; choose by "perplexity"'
            )
        return sweep

    @property
    def recipe(self) -> Recipe:
        """What every trial is a variation of."""
        return self.plan.recipe

    @cached_property
    def figure(self) -> MetricFormat:
        """What students are chosen by. Raises RecipeError for a metric that they have not."""
        measured, key = self.plan.measured_by, self.settings.metric
        found = chosen_by(measured, key)
        if found is None:
            known = ", ".join(one.key for one in FORMATS[measured] if chosen_by(measured, one.key))
            raise RecipeError(f"sweep.metric: {key!r} is none of these networks; known: {known}")
        return found

    @cached_property
    def folder(self) -> Path:
        """Where the sweep is kept, in the run folder of the recipe."""
        decisive = {"recipe": self._sections, "sweep": self._how}
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
        return self.plan.base / f"sweep-{digest}"

    @cached_property
    def definition(self) -> dict[str, Any]:
        """What the sweep is of, with the data: a journal of anything else is another sweep's."""
        data = self.plan.fingerprints
        return {
            **data.student_fingerprints,
            "validation": data.validation_fingerprint,
            "student": self._sections["student"],
            "sweep": self._how,
        }

    @property
    def caches(self) -> Iterator[RecipePlan]:
        """A plan of each cache that its students are trained from or measured with."""
        varied = [setting for setting in self.space if setting.path.startswith(ENCODING)]
        if not varied:
            yield from self.plan.by_cache
            return
        yield from (one for one in self.plan.by_cache if one.of_cache != TRAIN)
        for values in itertools.product(*(setting.ends for setting in varied)):
            plan = replace(self.plan, recipe=overridden(self.recipe, overrides_of(varied, values)))
            yield from (one for one in plan.by_cache if one.of_cache == TRAIN)

    @property
    def trials(self) -> int:
        """How many students are trained to choose from."""
        if self.settings.sampler != "grid":
            return self.settings.trials or _TRIALS
        size = len(grid(self.space))
        return min(self.settings.trials or size, size)

    @property
    def has_baseline(self) -> bool:
        """Whether labels-only students are swept too."""
        return self.plan.settings.student.baseline and self.plan.has_labels

    @property
    def fresh_seeds(self) -> range:
        """The seeds of the students that are measured on the test part, none of which a trial has."""
        first = self.plan.settings.student.seed + 1
        return range(first, first + self.settings.seeds)

    def variation(self, values: tuple[str, ...]) -> Recipe:
        """The recipe of a trial, as it is repeated by `decant student`."""
        return overridden(self.recipe, overrides_of(self.space, values))

    def baseline_rate(self, best: Recipe, ended: Collection[float]) -> Range:
        """Where the learning rate of the labels-only students is searched: where the student's was, or around it. Of a
        list those that a trial has ended with count: from one that diverges on, nearly all of a range may diverge.
        """
        rate = next((setting for setting in self.space if setting.path == "student.lr"), None)
        if isinstance(rate, Range):
            return rate
        found = {float(value) for value in rate.values} & set(ended) if isinstance(rate, Choices) else set()
        if len(found) > 1:
            return Range("student.lr", min(found), max(found), log=True)
        lr = best.settings.student.lr
        return Range("student.lr", lr / _AROUND, lr * _AROUND, log=True)

    @cached_property
    def _sections(self) -> dict[str, Any]:
        content = self.recipe.settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        content["student"] = {
            name: value for name, value in content["student"].items() if name not in NOT_DECISIVE - {"seed"}
        }
        return dict(without_secrets(content))

    @property
    def _how(self) -> dict[str, Any]:
        return {
            "over": [str(setting) for setting in self.space],
            "sampler": self.settings.sampler,
            "pruner": self.settings.pruner,
            "seed": self.settings.seed,
            **({} if self.settings.metric is None else {"metric": self.settings.metric}),
        }
