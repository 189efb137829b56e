"""A whole recipe, and its sections: a frozen class each, with the range of every value. Imports nothing heavy.

data_settings.py      [data]
views_settings.py     [views]
training_settings.py  [teacher], [knowledge] and [student]
cache_settings.py     [cache]
sweep_settings.py     [sweep]
language_settings.py  what a recipe of a language model may say
"""

from __future__ import annotations

from pydantic import model_validator

from decant.pipeline.config.augmentations import Transform
from decant.pipeline.config.cache_settings import CacheSettings, EncodingSettings
from decant.pipeline.config.data_settings import (
    READ_BY_ITEM,
    DataSettings,
    TransferSettings,
    ValidationSettings,
)
from decant.pipeline.config.language_settings import misfits
from decant.pipeline.config.objectives import Builtin
from decant.pipeline.config.sections import Section
from decant.pipeline.config.sweep_settings import SweepSettings
from decant.pipeline.config.training_settings import (
    Network,
    OutputName,
    StudentSettings,
    TeacherSettings,
    Training,
)
from decant.pipeline.config.views_settings import ViewsSettings

__all__ = [
    "READ_BY_ITEM",
    "CacheSettings",
    "DataSettings",
    "EncodingSettings",
    "Network",
    "OutputName",
    "Settings",
    "StudentSettings",
    "SweepSettings",
    "TeacherSettings",
    "Training",
    "TransferSettings",
    "ValidationSettings",
    "ViewsSettings",
]


class Settings(Section):
    """A whole recipe."""

    data: DataSettings
    views: ViewsSettings = ViewsSettings()
    teacher: TeacherSettings
    knowledge: TeacherSettings | None = None
    """A second teacher, with a cache of its own; like the first it is not needed where cache.from is given."""
    cache: CacheSettings = CacheSettings()
    student: StudentSettings
    sweep: SweepSettings | None = None
    """What `decant sweep` varies; no other command looks at it."""

    @property
    def functions(self) -> tuple[str, ...]:
        """The functions and classes that it names, `package.module:name`, each once, and networks of libraries."""
        transforms = [operation.name for operation in self.views.augment if isinstance(operation, Transform)]
        networks = [
            part.network.name for part in (self.teacher, self.knowledge, self.student) if part is not None
        ]
        names = [self.data.name, *transforms, *networks, self.student.objective.name]
        return tuple(dict.fromkeys(name for name in names if ":" in name))

    @property
    def num_teachers(self) -> int:
        """How many caches a student learns from."""
        if self.cache.from_ is None:
            return 1 if self.knowledge is None else 2
        return 1 if isinstance(self.cache.from_, str) else len(self.cache.from_)

    @model_validator(mode="after")
    def _fits_its_data(self) -> Settings:
        misfit = next(misfits(self), None)
        if misfit is not None:
            raise ValueError(misfit)
        return self

    @model_validator(mode="after")
    def _chooses_by_validation(self) -> Settings:
        sections = {"teacher": self.teacher, "knowledge": self.knowledge, "student": self.student}
        for name, section in sections.items():
            if section is not None and section.chooses and self.data.validation is None:
                key = "patience" if section.keep == "last" else "keep"
                raise ValueError(
                    f"{name}.{key}: epochs are chosen by a validation part, and there is none; set "
                    "data.validation = 0.1 (a share of the training part) or the name of a part of its own"
                )
        return self

    @model_validator(mode="after")
    def _weighed_once(self) -> Settings:
        objective = self.student.objective
        if self.student.class_weights is not None and getattr(objective, "class_weights", None) is not None:
            raise ValueError(
                "student.class_weights: weighs this objective too; leave out its own class_weights"
            )
        return self

    @model_validator(mode="after")
    def _teachers_fit(self) -> Settings:
        weights = self.cache.weights
        if weights is not None and (len(weights) != self.num_teachers or self.num_teachers < 2):
            raise ValueError(
                f"cache.weights: one for each of several teachers, of which there are {self.num_teachers}, "
                f"found {len(weights)}"
            )
        if weights is not None and not sum(weights):
            raise ValueError("cache.weights: at least one must be above 0")
        if self.separate_caches and self.num_teachers != 2:
            raise ValueError(
                f"student.objective: {self.student.objective.name} learns from two teachers, found "
                f"{self.num_teachers}; give a section [knowledge], or cache.from = [TEACHER, KNOWLEDGE]"
            )
        if self.separate_caches and weights is not None:
            raise ValueError("cache.weights: nothing is averaged for this objective; set its alpha and beta")
        return self

    @property
    def separate_caches(self) -> bool:
        """Whether the objective is given the logits of each teacher, and not their mean."""
        return isinstance(self.student.objective, Builtin) and self.student.objective.separate_caches
