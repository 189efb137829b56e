"""The splits of a recipe's data, through their views: what networks are trained on, and what they are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from decant.pipeline.config.objectives import Custom, is_for, names_for
from decant.pipeline.config.settings import Settings, ViewsSettings
from decant.pipeline.data import describe_data, load_data
from decant.pipeline.data.between_parts import check_between_parts, labels_of
from decant.pipeline.data.held_out import divide
from decant.pipeline.data.samples import LabelledData, WhenDecoded, has_sigmoids, task_of
from decant.pipeline.data.sigmoid_labels import warn_of_zeros_and_ones
from decant.pipeline.data.validation import hold_out, require_labels
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases.fingerprints import data_fingerprint, fingerprints

if TYPE_CHECKING:
    from decant.pipeline.views import ViewedData

_FEW_VALUES = 100  # distinct targets, that may be classes
_SHOWN_VALUES = 5


@dataclass(frozen=True)
class Splits:
    """The splits of a recipe. Training splits are augmented, those that networks are measured on are not."""

    teacher_train: ViewedData
    """What the teacher is trained on: the same as `student_train`, unless there is a transfer set."""
    student_train: ViewedData
    """What the teacher's logits are cached for, and students are trained on."""
    test: ViewedData
    validation: ViewedData | None = None
    """What epochs and settings are chosen by; None where the recipe has no validation part."""

    @classmethod
    def load(cls, settings: Settings) -> Splits:
        """Reads all of them. Raises DataError and RecipeError, as `RecipeData.splits` does."""
        return RecipeData(settings).splits


Decode: TypeAlias = WhenDecoded | Literal["none", "test part ahead"]
"""When image files are decoded; those of parts that networks are measured on are at once, so that what is wrong with
them is found before training. With "none" the first file alone is decoded, for who needs labels, shapes and digests;
with "test part ahead" of all parts but the test part, for who measures alone.
"""


@dataclass(frozen=True)
class RecipeData:
    """The data of a recipe, read when they are first needed, and once."""

    settings: Settings
    decode: Decode = "packs ahead"

    def _read(self, part: str, decode: WhenDecoded | None = None) -> LabelledData:
        if self.decode == "none" or self.decode == "test part ahead":
            return describe_data(self.settings.data, self.settings.views, part)
        return load_data(self.settings.data, self.settings.views, part, decode=decode or self.decode)

    @cached_property
    def _held_out(self) -> tuple[LabelledData, LabelledData | None]:
        return hold_out(self.settings.data.validation, self._read("train"))

    @property
    def _train(self) -> LabelledData:
        """The training part, without what validates."""
        return self._held_out[0]

    @cached_property
    def validation_data(self) -> LabelledData | None:
        """The validation part, before its views; None where the recipe has none. Raises DataError where it does not
        fit the training part, or has no labels.
        """
        own = self.settings.data.validation
        if own is None:
            return None
        data = self._held_out[1]
        if data is None:
            data = self._read(str(own.part), "at once")
            check_between_parts(self._train, data, "validation")
        require_labels(data)
        return data

    @property
    def validation_fingerprint(self) -> dict[str, Any] | None:
        """The fingerprint of the validation part, which the folders of networks that are chosen by it depend on."""
        return None if self.validation_data is None else data_fingerprint(self.validation_data)

    @cached_property
    def validation(self) -> ViewedData | None:
        """The validation part as networks are measured on it; the test split is not read for it."""
        data = self.validation_data
        return None if data is None else _viewed(data, self.settings.views.plain)

    @cached_property
    def _divided(self) -> tuple[LabelledData, LabelledData]:
        return divide(self.settings, self._train, self._read)

    @property
    def teacher_data(self) -> LabelledData:
        """What the teacher is trained on, before its views."""
        return self._divided[0]

    @property
    def student_data(self) -> LabelledData:
        """What students are trained on, before its views."""
        return self._divided[1]

    @cached_property
    def teacher_fingerprints(self) -> dict[str, Any]:
        """The `data` and `views` that a teacher's run folder depends on."""
        return fingerprints(self.settings.views, self.teacher_data)

    @cached_property
    def student_fingerprints(self) -> dict[str, Any]:
        """The `data` and `views` that a cache and a student's run folder depend on."""
        return fingerprints(self.settings.views, self.student_data)

    @cached_property
    def student_train(self) -> ViewedData:
        """What students are trained on, through its views; the test split is not read for it."""
        return _viewed(self.student_data, self.settings.views)

    @cached_property
    def splits(self) -> Splits:
        """All splits. Raises DataError where they do not fit together, and RecipeError where the recipe's losses are
        not for such labels.
        """
        when: WhenDecoded = "ahead" if self.decode == "test part ahead" else "at once"
        train, test = self._train, load_data(self.settings.data, self.settings.views, "test", decode=when)
        check_between_parts(train, test)
        self.check_losses(self.settings)
        teacher_train = _viewed(self.teacher_data, self.settings.views)
        plain = _viewed(test, self.settings.views.plain)
        return Splits(teacher_train, self.student_train, plain, self.validation)

    def check_losses(self, settings: Settings) -> None:
        """Raises RecipeError where the losses of a recipe of these data are not for their labels."""
        warn_of_zeros_and_ones(self._train, settings.data.task)
        _check_losses(settings, self._train)


def _viewed(data: LabelledData, views: ViewsSettings) -> ViewedData:
    """The data through views. Imports torch, which whoever looks at labels, shapes and digests alone does without."""
    from decant.pipeline.views import ViewedData

    return ViewedData(data, views)


def _check_losses(settings: Settings, train: LabelledData) -> None:
    """Raises RecipeError where the objective or label smoothing is not for the task of the data."""
    task, objective = task_of(train), settings.student.objective
    because = f"{train.name} is a {task}, as its labels are {labels_of(train)}{_whole_numbers(train)}"
    if has_sigmoids(train):
        because = f"{train.name} is {task}, as data.task says"
    if not isinstance(objective, Custom) and not is_for(type(objective), task):
        raise RecipeError(
            f"student.objective {objective.name!r}: is for {objective.task}; {because}: "
            f"set it to {', '.join(names_for(task))} (or package.module:function)"
        )
    if has_sigmoids(train) and not isinstance(objective, Custom):
        from decant.pipeline.objectives import build  # imports torch

        build(objective, task=task)  # raises for settings of softmaxes
    sections = {"teacher": settings.teacher, "knowledge": settings.knowledge, "student": settings.student}
    for section, training in sections.items():
        if task == "regression" and training is not None and training.label_smoothing:
            raise RecipeError(f"{section}.label_smoothing: smooths classes; {because}: leave it out")


def _whole_numbers(data: LabelledData) -> str:
    """The end of a message: what targets of a regression may be meant for, where they are few whole numbers."""
    values = np.unique(data.labels[~np.isnan(data.labels)]) if task_of(data) == "regression" else np.empty(0)
    if not len(values) or len(values) > _FEW_VALUES or (values != np.floor(values)).any():
        return ""
    shown = ", ".join(f"{value:g}" for value in values[:_SHOWN_VALUES])
    kind = (
        'classes are integers, which data.task = "classification" makes of them'
        if data.labels.shape[1] == 1
        else 'for several classes of one sample set data.task = "multilabel"'
    )
    return f", whose values are whole numbers ({shown}{', …' if len(values) > _SHOWN_VALUES else ''}; {kind})"
