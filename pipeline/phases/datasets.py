"""The splits of a recipe's data, through their views: what networks are trained on, and what they are measured on."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from decant.pipeline.config.objectives import Custom, names_for
from decant.pipeline.config.settings import Settings
from decant.pipeline.data import describe_data, load_data
from decant.pipeline.data.held_out import divide
from decant.pipeline.data.samples import LabelledData, num_classes, num_targets, task_of
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.phases.fingerprints import fingerprints
from decant.pipeline.views import ViewedData


@dataclass(frozen=True)
class Splits:
    """The three splits of a recipe. Training splits are augmented, the test split is not."""

    teacher_train: ViewedData
    """What the teacher is trained on: the same as `student_train`, unless there is a transfer set."""
    student_train: ViewedData
    """What the teacher's logits are cached for, and students are trained on."""
    test: ViewedData

    @classmethod
    def load(cls, settings: Settings) -> Splits:
        """Reads all of them. Raises DataError and RecipeError, as `RecipeData.splits` does."""
        return RecipeData(settings).splits


@dataclass(frozen=True)
class RecipeData:
    """The data of a recipe, read when they are first needed, and once."""

    settings: Settings
    decode_images: bool = True
    """False for callers that need labels, shapes and digests alone: no image file but the first is decoded, and no
    pack of decoded images is written.
    """

    @cached_property
    def _train(self) -> LabelledData:
        read = load_data if self.decode_images else describe_data
        return read(self.settings.data, self.settings.views, "train")

    @cached_property
    def _divided(self) -> tuple[LabelledData, LabelledData]:
        return divide(self.settings, self._train)

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
        return ViewedData(self.student_data, self.settings.views)

    @cached_property
    def splits(self) -> Splits:
        """All splits. Raises DataError where they do not fit together, and RecipeError where the recipe's losses are
        not for such labels.
        """
        train, test = self._train, load_data(self.settings.data, self.settings.views, "test")
        _check_shapes(train, test)
        _check_labels(train, test)
        _check_losses(self.settings, train)
        teacher_train = ViewedData(self.teacher_data, self.settings.views)
        return Splits(teacher_train, self.student_train, ViewedData(test, self.settings.views.plain))


def _check_shapes(train: LabelledData, test: LabelledData) -> None:
    """Raises DataError where class names or input shapes differ."""
    if train.classes != test.classes:
        odd = sorted(set(train.classes) ^ set(test.classes))[:3]
        raise DataError(f"{train.name}: the train and test parts have different classes: {', '.join(odd)}")
    if train.input_shape != test.input_shape:
        raise DataError(
            f"{train.name}: train inputs are {train.input_shape}, test inputs {test.input_shape}; "
            "set views.size to bring both to one"
        )


def _check_labels(train: LabelledData, test: LabelledData) -> None:
    """Raises DataError where the labels are of different kinds, or the test split has labels of other classes."""
    if num_targets(train) != num_targets(test):
        raise DataError(f"{train.name}: train labels are {_labels_of(train)}, test labels {_labels_of(test)}")
    if task_of(train) == "classification" and test.labels.max() >= num_classes(train):
        raise DataError(
            f"{train.name}: the test part has label {test.labels.max()}, "
            f"the train part only {num_classes(train)} classes"
        )


def _labels_of(data: LabelledData) -> str:
    targets = num_targets(data)
    return f"integers ({len(data)},)" if targets is None else f"floats ({len(data)}, {targets})"


def _check_losses(settings: Settings, train: LabelledData) -> None:
    """Raises RecipeError where the objective or label smoothing is not for the task of the data."""
    task, objective = task_of(train), settings.student.objective
    because = f"{train.name} is a {task}, as its labels are {_labels_of(train)}"
    if not isinstance(objective, Custom) and objective.task != task:
        raise RecipeError(
            f"student.objective {objective.name!r}: is for {objective.task}; {because}: "
            f"set it to {', '.join(names_for(task))} (or package.module:function)"
        )
    sections = {"teacher": settings.teacher, "knowledge": settings.knowledge, "student": settings.student}
    for section, training in sections.items():
        if task == "regression" and training is not None and training.label_smoothing:
            raise RecipeError(f"{section}.label_smoothing: smooths classes; {because}: leave it out")
