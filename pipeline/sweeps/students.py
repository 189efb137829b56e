"""A trial of a sweep, trained as any student of a recipe is: in the same folder, from the same cache, found where it is
finished. Data, caches and statistics are read once by a process, and not once a trial.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

from decant.cache import LogitSource
from decant.cache.io.usage import using
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.errors import ModelError, RecipeError
from decant.pipeline.networks.build import specify_network
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases import soft_labels
from decant.pipeline.phases.balance import warn_of_imbalance
from decant.pipeline.phases.job import MeasuredOn, TrainingJob, train_network
from decant.pipeline.phases.plan import AnyPlan, Plan
from decant.pipeline.phases.student import jobs_for_seed, teacher_logits_on_test
from decant.pipeline.phases.students_by_rank import StudentJob
from decant.pipeline.phases.training_dataset import training_dataset
from decant.pipeline.runs.result import Kind, Result
from decant.pipeline.sweeps.definition import Sweep
from decant.pipeline.tracking.log_to import LogTo
from decant.pipeline.training.epoch_log import Epoch

Watch = Callable[[Epoch], None]
"""Gets the line of each epoch; what it raises ends the training, whose checkpoint is kept."""


P = TypeVar("P", bound=AnyPlan)
J = TypeVar("J", bound=StudentJob)


class AnyStudents(ABC, Generic[P, J]):
    """Trains the students of variations of a plan's recipe, on one device."""

    def __init__(self, plan: P, device: torch.device) -> None:
        self._plan, self._device = plan, device
        self._caches = dict[str, LogitSource]()
        self._specs = dict[str, NetworkSpec]()
        self._in_use = contextlib.ExitStack()

    @abstractmethod
    def job(self, recipe: Recipe, kind: Kind, seed: int) -> J:
        """The training of one network of a recipe. Raises as `cache` does."""

    @abstractmethod
    def train(self, job: J, recipe: Recipe, watch: Watch, *, tested: bool = False) -> tuple[Result, bool]:
        """Trains a network or finds it, as `train_network` does. Only with `tested` is the test part read."""

    @abstractmethod
    def check(self, recipe: Recipe) -> None:
        """Raises RecipeError for an objective that data or cache do not suffice for; opens the cache."""

    @abstractmethod
    def _specify(self, plan: P) -> NetworkSpec:
        """The spec of a plan's student."""

    @abstractmethod
    def _open(self, plan: P) -> LogitSource:
        """The cache of a plan, or several."""

    def spec(self, recipe: Recipe) -> NetworkSpec:
        """The spec of a recipe's student, made once: it may take the statistics of the data. Raises NotMadeError for
        layers of a teacher that is not finished.
        """
        key = recipe.settings.student.network.model_dump_json()
        if key not in self._specs:
            self._specs[key] = self._specify(self._of(recipe))
        return self._specs[key]

    def cache(self, recipe: Recipe) -> LogitSource:
        """What the distilled students of a recipe learn from, opened once. Raises NotMadeError where it is missing."""
        settings = recipe.settings
        temperature = getattr(settings.student.objective, "temperature", None)
        key = json.dumps(
            [settings.cache.model_dump(mode="json"), settings.separate_caches, str(temperature)],
            sort_keys=True,
        )
        if key not in self._caches:
            cache = self._open(self._of(recipe))
            for member in cache.members:
                self._in_use.enter_context(using(member.path))
            self._caches[key] = cache
        return self._caches[key]

    def made_of(self, sweep: Sweep) -> dict[str, Any]:
        """What the recipe only names and students are made of, as a sweep's journal keeps it: the keys of its caches,
        and a digest of the folders' names of students with each value of each setting, which code and files of weights
        are part of. Raises as `cache` does.
        """
        first = tuple(setting.ends[0] for setting in sweep.space)
        varied = {
            (*first[:place], end, *first[place + 1 :])
            for place, setting in enumerate(sweep.space)
            for end in setting.ends
        }
        caches, folders = set[str](), set[str]()
        for values in sorted(varied):
            with contextlib.suppress(RecipeError, ModelError):  # two values that do not go together
                plan = self._of(sweep.variation(values))
                key = self.cache(plan.recipe).manifest.key
                caches.add(key)
                folders |= {plan.student_folder("labels").name, plan.student_folder("distilled", key).name}
        digest = hashlib.sha256(" ".join(sorted(folders)).encode()).hexdigest()[:16]
        return {"caches": sorted(caches), "students": digest}

    @property
    def budget(self) -> str:
        """What one student learns from, in words that go on a sentence; empty where epochs say it."""
        return ""

    def close(self) -> None:
        """Lets the caches be removed again."""
        self._in_use.close()

    def _of(self, recipe: Recipe) -> P:
        """The plan of a variation, which shares the data."""
        return replace(self._plan, recipe=recipe)


class Students(AnyStudents[Plan, TrainingJob]):
    """Of a recipe whose samples each have a label."""

    def job(self, recipe: Recipe, kind: Kind, seed: int) -> TrainingJob:
        """The training of one network of a recipe. Raises as `soft_labels.open_cache` does."""
        plan, cache = self._of(recipe), self.cache(recipe)
        data = training_dataset(plan, cache, "sample", self._device)
        jobs = jobs_for_seed(plan, cache, self.spec(recipe), data, seed)
        return next(job for job in jobs if job.kind == kind)

    def train(
        self, job: TrainingJob, recipe: Recipe, watch: Watch, *, tested: bool = False
    ) -> tuple[Result, bool]:
        """Trains a network or finds it, as `train_network` does. Only with `tested` is the test part read."""
        plan = self._of(recipe)
        compares = tested and job.kind == "distilled"
        measured = MeasuredOn(
            plan.splits.test if tested else None,
            plan.data.validation,
            teacher_logits_on_test(plan, self.cache(recipe)) if compares else None,
        )
        warn_of_imbalance(recipe.settings.student, plan.data.student_data, "student")
        return train_network(job, recipe, measured, self._device, Watched(watch))

    def check(self, recipe: Recipe) -> None:
        """Raises RecipeError for an objective that the data do not suffice for."""
        self._plan.data.check_losses(recipe.settings)
        self.cache(recipe)

    def _open(self, plan: Plan) -> LogitSource:
        return soft_labels.open_cache(plan)

    def _specify(self, plan: Plan) -> NetworkSpec:
        return specify_network(plan.settings.student.network, plan.data.student_train)


class Watched(LogTo):
    """Hands each epoch to a function."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    @contextlib.contextmanager
    def run(self, name: str, recipe: Recipe, folder: Path) -> Iterator[Watch]:
        yield self._watch
