"""Tables of numbers: feature vectors with targets of a regression."""

from __future__ import annotations

import numpy as np

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.samples import ArrayData, LabelledData, Split

_DIABETES_TEST = 89  # of 442, a fifth


def diabetes(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """scikit-learn's diabetes: 442 patients, 10 features as they come, and the disease's progress after a year.

    89 patients, drawn once with a fixed seed, are the test part. The target is standardised by mean and standard
    deviation of the training part, in both parts: 1.0 is one standard deviation, about 78 of the original points.
    """
    from sklearn.datasets import load_diabetes
    from sklearn.model_selection import train_test_split

    features, progress = load_diabetes(return_X_y=True)
    train, test = train_test_split(np.arange(len(progress)), test_size=_DIABETES_TEST, random_state=0)
    targets = (progress - progress[train].mean()) / progress[train].std()
    chosen = np.sort(train if split == "train" else test)
    return ArrayData(
        "diabetes",
        split,
        np.ascontiguousarray(features[chosen], np.float32),
        targets[chosen, None].astype(np.float32),
        classes=(),
    )
