"""What a recipe leads to: its data, and where its teacher, its cache and its students lie.

Every phase, `status` and `report` get this from a plan, so that they cannot disagree.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

from decant.cache import CacheError, Manifest, Store
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.config.settings import Settings, Training
from decant.pipeline.config.tasks import Measured
from decant.pipeline.data import describe_data
from decant.pipeline.data.builtin import TORCHVISION
from decant.pipeline.data.samples import has_labels, task_of
from decant.pipeline.errors import NotMadeError, PipelineError
from decant.pipeline.phases.datasets import Decode, RecipeData, Splits
from decant.pipeline.phases.fingerprints import cache_manifest
from decant.pipeline.runs.folders import student_folder, teacher_folder
from decant.pipeline.runs.result import WEIGHTS, Kind, Result, find_results, in_order, load_result
from decant.pipeline.runs.saved_recipe import keep_data_settings, saved_data
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.source_code import is_users
from decant.pipeline.support.weight_files import content_sha256


class Fingerprints(Protocol):
    """What identifies the data of a recipe."""

    @property
    def teacher_fingerprints(self) -> dict[str, Any]:
        """The `data` and `views` that a teacher's run folder depends on."""

    @property
    def student_fingerprints(self) -> dict[str, Any]:
        """The `data` and `views` that a cache and a student's run folder depend on."""

    @property
    def validation_fingerprint(self) -> dict[str, Any] | None:
        """The fingerprint of the validation part; None where the recipe has none."""


@dataclass(frozen=True)
class AnyPlan(ABC):
    """The folders and the cache of a recipe, whatever its data are. Nothing is read or computed before it is needed,
    and all of it once.
    """

    recipe: Recipe
    base: Path
    """The run folder of the recipe."""
    store: Store

    @property
    @abstractmethod
    def fingerprints(self) -> Fingerprints:
        """Of its data."""

    @property
    @abstractmethod
    def is_readable(self) -> bool:
        """Whether its data can be read without a download, and without a file being written for them."""

    @property
    @abstractmethod
    def has_labels(self) -> bool:
        """Whether students can be trained on labels alone."""

    @property
    @abstractmethod
    def measured_by(self) -> Measured:
        """The task whose metrics its networks have."""

    @property
    @abstractmethod
    def test_digest(self) -> str:
        """The digest of its test part."""

    @abstractmethod
    def manifest_of(self, teacher: Result) -> Manifest:
        """The manifest of the cache that any teacher would lead to."""

    @property
    def settings(self) -> Settings:
        """The settings of the recipe."""
        return self.recipe.settings

    @cached_property
    def by_teacher(self) -> tuple[Self, ...]:
        """A plan for each teacher of the recipe, whose `teacher…`, `manifest` and `cache…` are of that one; all of
        them share the data.
        """
        return tuple(replace(self, recipe=recipe) for recipe in self.recipe.by_teacher)

    @property
    def of_cache(self) -> str:
        """The part that its cache is of, where a recipe has caches of several parts; empty where not."""
        return ""

    @property
    def by_cache(self) -> tuple[Self, ...]:
        """A plan for each cache that `cache-logits` makes."""
        return self.by_teacher

    @cached_property
    def teacher_folder(self) -> Path:
        """The run folder of the teacher, whether it exists or not. Says once where there is one of images that an older
        version decoded otherwise.
        """
        fingerprints = {**self.fingerprints.teacher_fingerprints, **self._chosen_by(self.settings.teacher)}
        folder = teacher_folder(self.base, self.settings.teacher, fingerprints)
        before = {name: value for name, value in fingerprints["data"].items() if name != "image_decoder"}
        if len(before) < len(fingerprints["data"]) and not folder.exists():
            older = teacher_folder(self.base, self.settings.teacher, {**fingerprints, "data": before})
            if older.exists():
                say_once(
                    f"{older}: is of images as an older version decoded them, which did not turn photographs as their "
                    "EXIF orientation says, so teacher and cache are made anew"
                )
        return folder

    def load_teacher(self) -> Result | None:
        """The teacher as it is now; None if it is not finished. Raises DamagedError."""
        return load_result(self.teacher_folder)

    @cached_property
    def teacher(self) -> Result:
        """The finished teacher. Raises NotMadeError, with the command that makes it, and DamagedError."""
        result = self.load_teacher()
        if result is None:
            state = (
                "is not finished"
                if self.teacher_folder.exists()
                else "has not been trained with these settings on these data"
            )
            raise NotMadeError(
                f"{self.teacher_folder}: the teacher {state}{self._changed_code()}; run: "
                f"{self.recipe.command('teacher')}"
            )
        return result

    def _changed_code(self) -> str:
        """The part of a message that says that the code of the teacher has changed; empty where it has not."""
        name = self.settings.teacher.network.name
        finished = find_results(self.base, self.settings.data, skip_damaged=True) if is_users(name) else ()
        changed = any(
            result.kind == "teacher" and result.network.name == name and result.has_other_code
            for result in finished
        )
        return f" (the code of {name!r} has changed since another was trained)" if changed else ""

    @cached_property
    def manifest(self) -> Manifest:
        """The manifest of the finished teacher's cache. Raises as `teacher` does."""
        return self.manifest_of(self.teacher)

    def find_cache(self) -> Path | None:
        """The published cache; None if it has not been built. Raises as `teacher` does."""
        return self.store.find(self.manifest)

    def not_built(self) -> NotMadeError:
        """The error to raise if there is no cache: where it would lie, and the command that builds it."""
        path, command = self.store.path(self.manifest), self.recipe.command("cache-logits")
        return NotMadeError(f"{path}: not built yet; run: {command}")

    def finished(self) -> tuple[Result, ...]:
        """Every finished network of these data, by kind, folder and seed. Raises DamagedError.

        Where this recipe leads to a network of other settings of data, those are of the same data, moved since, say:
        its recipe, and that of every other network of those settings, then names the data as this one does, where it
        may be written.
        """
        found = {one.folder: one for one in find_results(self.base, self.settings.data)}
        others = [one for one in find_results(self.base, skip_damaged=True) if one.folder not in found]
        with contextlib.suppress(PipelineError, CacheError, OSError):  # the data cannot be read now
            for result in self._named_otherwise(others):
                keep_data_settings(result.folder, self.recipe)
                found[result.folder] = result
        return in_order(found.values())

    def _named_otherwise(self, others: Sequence[Result]) -> list[Result]:
        """Those of `others` that are of these data, and were measured on this test part."""
        if not others or not self.is_readable:
            return []
        measured = [one for one in others if one.test_sha256 in ("", self.test_digest)]
        saved = [saved_data(one.folder) for one in measured]
        same = [data for one, data in zip(measured, saved, strict=True) if self._leads_to(one)]
        return [one for one, data in zip(measured, saved, strict=True) if data in same]

    def _leads_to(self, result: Result) -> bool:
        """Whether this recipe would find this finished network, and not train it."""
        if result.kind == "teacher":
            return any(plan.teacher_folder == result.folder for plan in self.by_teacher)
        return self.student_folder(result.kind, result.cache) == result.seeds_folder

    @property
    def seeds(self) -> range:
        """The seeds of the students."""
        student = self.settings.student
        return range(student.seed, student.seed + student.seeds)

    def student_folder(self, kind: Kind, cache_key: str | None = None) -> Path:
        """The folder of the students of one kind, which has a folder a seed. `cache_key` is of the cache that
        distilled students are trained from.
        """
        more: dict[str, Any] = {} if cache_key is None else {"cache": cache_key}
        more |= self._chosen_by(self.settings.student)
        if self.student_weights is not None:
            more |= {"weights": self._student_weights_sha256}
        return student_folder(
            self.base, self.settings.student, kind, {**self.fingerprints.student_fingerprints, **more}
        )

    def _chosen_by(self, settings: Training) -> dict[str, Any]:
        """The fingerprint of the validation part, where that decides the weights."""
        return {"validation": self.fingerprints.validation_fingerprint} if settings.chooses else {}

    @property
    def student_weights(self) -> Path | None:
        """The file or folder of weights that students begin with; None where they begin with none."""
        given = self.settings.student.weights
        if given is None:
            return None
        return self.teacher_folder / WEIGHTS if given == "teacher" else Path(given)

    @cached_property
    def _student_weights_sha256(self) -> str | None:
        """The digest of that file, which is read once."""
        return None if self.student_weights is None else content_sha256(self.student_weights)


@dataclass(frozen=True)
class Plan(AnyPlan):
    """The plan of a recipe whose samples each have a label.

    >>> from decant.pipeline.config.recipe import load_recipe
    >>> plan = Plan.of(load_recipe("digits"), Path("runs/digits"))
    >>> plan.teacher_folder.name.rpartition("-")[0]
    'teacher-conv'
    >>> len(plan.data.student_data)
    1437
    """

    data: RecipeData

    @classmethod
    def of(
        cls, recipe: Recipe, base: Path, store: Store | None = None, *, decode: Decode = "packs ahead"
    ) -> Plan:
        """The plan of a recipe, with runs in `base` and caches in `store`, by default the usual one.

        decode: when images are decoded, or which.
        """
        return cls(recipe, base, store or Store(), RecipeData(recipe.settings, decode))

    @property
    def fingerprints(self) -> RecipeData:
        """Of its data."""
        return self.data

    @property
    def is_readable(self) -> bool:
        """Whether its data can be read without a download."""
        return self.settings.data.name not in TORCHVISION or self.base.is_dir()

    @property
    def has_labels(self) -> bool:
        """Whether students can be trained on labels alone."""
        return has_labels(self.data.student_data)

    @property
    def measured_by(self) -> Measured:
        """The task of its labels."""
        return task_of(self.data.student_data)

    @cached_property
    def test_digest(self) -> str:
        """The digest of its test part, of which no more than that is read."""
        return describe_data(self.settings.data, self.settings.views, "test").digest()

    @property
    def splits(self) -> Splits:
        """The data through their views. Raises DataError and RecipeError, as `RecipeData.splits` does."""
        return self.data.splits

    def manifest_of(self, teacher: Result) -> Manifest:
        """The manifest of the cache that any other teacher would lead to."""
        return cache_manifest(self.data.student_data, self.settings.views, teacher, self.settings.cache)
