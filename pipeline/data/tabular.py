"""Tables of numbers: feature vectors with targets of a regression."""

from __future__ import annotations

import numpy as np

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.samples import ArrayData, LabelledData, Split
from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import optional

_DIABETES_TEST = 89  # of 442, a fifth


def diabetes(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """scikit-learn's diabetes: 442 patients, 10 features as they come, and the disease's progress after a year.

    89 patients, drawn once with a fixed seed, are the test part. The target is standardised by mean and standard
    deviation of the training part, in both parts: 1.0 is one standard deviation, about 78 of the original points.
    Raises DataError where scikit-learn is not installed.
    """
    datasets = optional("sklearn.datasets", "demo", DataError)
    model_selection = optional("sklearn.model_selection", "demo", DataError)
    features, progress = datasets.load_diabetes(return_X_y=True)
    train, test = model_selection.train_test_split(
        np.arange(len(progress)), test_size=_DIABETES_TEST, random_state=0
    )
    targets = (progress - progress[train].mean()) / progress[train].std()
    chosen = np.sort(train if split == "train" else test)
    return ArrayData(
        "diabetes",
        split,
        np.ascontiguousarray(features[chosen], np.float32),
        targets[chosen, None].astype(np.float32),
        classes=(),
    )
