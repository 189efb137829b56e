"""The parts of a recipe's data, through its views: what is trained on, and what is measured on."""

from __future__ import annotations

from dataclasses import dataclass

from decant.pipeline.config.objectives import Custom, names_for
from decant.pipeline.config.settings import Settings
from decant.pipeline.data import load
from decant.pipeline.data.held_out import divide
from decant.pipeline.data.samples import LabelledData, num_classes, num_targets, task_of
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.views import ViewedData


@dataclass(frozen=True)
class Parts:
    """`teacher` and `train` give augmented views, `test` the images as they are."""

    teacher: ViewedData
    """What the teacher learns from: the same as `train`, unless there is a transfer set."""
    train: ViewedData
    """What the teacher is cached on, and students learn from."""
    test: ViewedData

    @classmethod
    def load(cls, settings: Settings) -> Parts:
        """All parts. Raises DataError, also where they do not belong together, and RecipeError where the recipe's
        losses are not for such labels.
        """
        train, test = (
            load(settings.data, settings.views, "train"),
            load(settings.data, settings.views, "test"),
        )
        if train.classes != test.classes:
            odd = sorted(set(train.classes) ^ set(test.classes))[:3]
            raise DataError(
                f"{train.name}: the train and test parts have different classes: {', '.join(odd)}"
            )
        if train.input_shape != test.input_shape:
            raise DataError(
                f"{train.name}: train inputs are {train.input_shape}, test inputs {test.input_shape}; "
                "set views.size to bring both to one"
            )
        _check_labels(train, test)
        _check_losses(settings, train)
        teacher, students = (ViewedData(part, settings.views) for part in divide(settings, train))
        return cls(teacher, students, ViewedData(test, settings.views.plain))


def _check_labels(train: LabelledData, test: LabelledData) -> None:
    """Raises DataError where the parts' labels are of another kind, or the test part's of other classes."""
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
    for section, training in (("teacher", settings.teacher), ("student", settings.student)):
        if task == "regression" and training.label_smoothing:
            raise RecipeError(f"{section}.label_smoothing: smooths classes; {because}: leave it out")
