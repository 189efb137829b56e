"""The datasets that ship: scikit-learn's digits and diabetes, and torchvision's small sets of images."""

from __future__ import annotations

import functools
import gzip
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data.input_arrays import resized
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
_DIGITS = 1_797
_DIGITS_TEST = (
    "000004883524104000064100934205001a00080100240028062c12001000940a009019120420f8a0028110a000080a88"
    "20441524494240a00a0000004004d80000818020004805c400104008a0100005404800301000020ec409000224840083"
    "a8013c20a6980a0000000b08400804a0184802024041c1008004404684376a810216004480004042a0a4180a5000840b"
    "8561c608108008004c80c02004068e00010882008100380803c008190000100e01008410a0210033282904c044c08068"
    "0e0102830082008822a6402c24042108a860809081a00c02820242120138a41500"
)
"""A bit for each digit, set where it is one of the 360 of the test part. scikit-learn once drew them so:
`train_test_split(np.arange(1797), test_size=360, stratify=labels, random_state=0)`.
"""
_DIABETES_TEST = 89  # of 442, a fifth


def digits(settings: DataSettings, views: ViewsSettings, split: Split) -> LabelledData:
    """scikit-learn's digits: 1,797 images of 8 × 8, 16 grey levels; a fixed stratified fifth is the test
    part. Raises DataError where scikit-learn is not installed.
    """
    images, labels = _read_digits()
    is_test = np.unpackbits(np.frombuffer(bytes.fromhex(_DIGITS_TEST), np.uint8), count=_DIGITS).astype(bool)
    chosen = is_test if split == "test" else ~is_test
    images = np.rint(images[chosen] * (255 / 16)).astype(np.uint8)[:, None]
    labels = labels[chosen].astype(np.int64)
    return ArrayData("digits", split, resized(images, views), labels, tuple("0123456789"))


@functools.cache
def _read_digits() -> tuple[NDArray[Any], NDArray[Any]]:
    """Images (N, 8, 8), 0 to 16, and labels (N,): from the file that scikit-learn has of them, as importing the library
    takes as long as training a small network does; by the library where it has another one.
    """
    found = importlib.util.find_spec("sklearn")
    for folder in (found and found.submodule_search_locations) or ():
        path = Path(folder, "datasets", "data", "digits.csv.gz")
        if path.is_file():
            with gzip.open(path, "rt") as file:
                table = np.loadtxt(file, delimiter=",")
            return table[:, :-1].reshape(-1, 8, 8), table[:, -1]
    bunch = optional("sklearn.datasets", "demo", DataError).load_digits()
    return bunch.images, bunch.target


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
