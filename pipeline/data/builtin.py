"""The datasets that ship: scikit-learn's digits and diabetes, and torchvision's small sets of images."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.image_decode import resized
from decant.pipeline.data.samples import ArrayData, LabelledData, Split
from decant.pipeline.errors import DataError
from decant.pipeline.support.plugins import optional

TORCHVISION = {
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "svhn": "SVHN",
}
_DIGITS_TEST = 360  # of 1,797
_DIABETES_TEST = 89  # of 442, a fifth


def digits(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """scikit-learn's digits: 1,797 images of 8 × 8, 16 grey levels; a fixed stratified fifth is the test
    part. Raises DataError where scikit-learn is not installed.
    """
    datasets = optional("sklearn.datasets", "demo", DataError)
    model_selection = optional("sklearn.model_selection", "demo", DataError)
    bunch = datasets.load_digits()
    train, test = model_selection.train_test_split(
        np.arange(len(bunch.target)), test_size=_DIGITS_TEST, stratify=bunch.target, random_state=0
    )
    chosen = np.sort(train if split == "train" else test)
    images = np.rint(bunch.images[chosen] * (255 / 16)).astype(np.uint8)[:, None]
    labels = bunch.target[chosen].astype(np.int64)
    return ArrayData("digits", split, resized(images, views), labels, tuple("0123456789"))


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


def from_torchvision(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """One of torchvision's small sets, downloaded to `root` when it is not there."""
    import torchvision.datasets

    factory = getattr(torchvision.datasets, TORCHVISION[settings.name])
    part = {"split": split} if settings.name == "svhn" else {"train": split == "train"}
    try:
        dataset = factory(settings.root, download=True, **part)
    except Exception as error:  # torchvision's readers raise what their decoders do
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{settings.name}: cannot be read from {settings.root!r}, nor downloaded there ({reason}); "
            "set data.root to where it is, or try again with a network"
        ) from None
    images = np.asarray(dataset.data)
    if settings.name != "svhn":  # (N, H, W, C), or (N, H, W) where grey
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
    labels = np.asarray(dataset.labels if settings.name == "svhn" else dataset.targets, dtype=np.int64)
    classes = tuple(getattr(dataset, "classes", None) or map(str, range(10)))
    return ArrayData(settings.name, split, resized(np.ascontiguousarray(images), views), labels, classes)


Source = Callable[[DataSettings, ViewsSettings, Split], LabelledData]
"""(data, views, split) → that part of a dataset, images brought to `views.size`. Raises DataError."""

DATASETS: dict[str, Source] = {
    "digits": digits,
    "diabetes": diabetes,
    **dict.fromkeys(TORCHVISION, from_torchvision),
}
"""By the name that a recipe gives."""
