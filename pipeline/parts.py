"""The two parts of a recipe's data, through its views: what is trained on, and what is measured on."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.data import load
from pipeline.errors import DataError
from pipeline.samples import num_classes
from pipeline.settings import Settings
from pipeline.views import ViewedData


@dataclass(frozen=True)
class Parts:
    """`train` gives augmented views, `test` the images as they are."""

    train: ViewedData
    test: ViewedData

    @classmethod
    def load(cls, settings: Settings) -> Parts:
        """Both parts. Raises DataError, also where they do not belong together."""
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
        if test.labels.max() >= num_classes(train):
            raise DataError(
                f"{train.name}: the test part has label {test.labels.max()}, "
                f"the train part only {num_classes(train)} classes"
            )
        return cls(ViewedData(train, settings.views), ViewedData(test, settings.views.plain))
