"""The training part against the test part: they must fit together, and should have no sample in common."""

from __future__ import annotations

import numpy as np

from decant.pipeline.data.common_files import count_common
from decant.pipeline.data.held_out import require_same_classes
from decant.pipeline.data.samples import (
    ArrayData,
    LabelledData,
    ListedFiles,
    decoding,
    has_labels,
    num_classes,
    num_targets,
    task_of,
    vocabulary,
)
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

_MOST_BYTES = 1 << 30  # of both parts, whose samples are compared
_FEW = 0.01  # of the test part, which two samples of real data may well have in common by chance


def check_between_parts(train: LabelledData, other: LabelledData, part: str = "test") -> None:
    """Raises DataError where class names, inputs or labels of the two parts are of different kinds. Says once where
    samples of the other part are samples of the training part, and where the other part has no labels. `part` is what
    messages call it.
    """
    require_same_classes(train, other, part)
    _check_inputs(train, other, part)
    _check_labels(train, other, part)
    _say_common_samples(train, other, part)


def labels_of(data: LabelledData) -> str:
    """The labels of a part in a message: their kind and shape."""
    targets = num_targets(data)
    return f"integers ({len(data)},)" if targets is None else f"floats ({len(data)}, {targets})"


def _check_inputs(train: LabelledData, other: LabelledData, part: str) -> None:
    if train.input_shape != other.input_shape:
        raise DataError(
            f"{train.name}: train inputs are {train.input_shape}, {part} inputs {other.input_shape}; "
            "set views.size to bring both to one"
        )
    if vocabulary(train) is not None:
        return
    dtypes = [data.raw(np.array([0])).dtype for data in (train, other)]
    if dtypes[0] != dtypes[1]:
        raise DataError(
            f"{train.name}: train inputs are {dtypes[0]}, {part} inputs {dtypes[1]}: uint8 images are scaled to 0 to "
            "1, and floats are taken as they are; give both alike"
        )


def _check_labels(train: LabelledData, other: LabelledData, part: str) -> None:
    if num_targets(train) != num_targets(other):
        raise DataError(
            f"{train.name}: train labels are {labels_of(train)}, {part} labels {labels_of(other)}"
        )
    if task_of(train) == "classification" and other.labels.max() >= num_classes(train):
        raise DataError(
            f"{train.name}: the {part} part has label {other.labels.max()}, "
            f"the train part only {num_classes(train)} classes"
        )
    if not has_labels(other):
        say_once(
            f"warning: {train.name}: no sample of the {part} part has a label, so no accuracy is measured"
        )


def _say_common_samples(train: LabelledData, other: LabelledData, part: str) -> None:
    """Digests of image folders are of names, and may well agree where the images are others."""
    if decoding(train) is None and len(train) == len(other) and train.digest() == other.digest():
        say_once(
            f"warning: {train.name}: the {part} part is the training part, sample for sample, so nothing is measured "
            "on unseen data; a function of your own is given `split`"
        )
        return
    common, looked_at, how = _count_common(train, other)
    if common > _FEW * looked_at:
        which = "" if looked_at == len(other) else " that were looked at"
        say_once(
            f"warning: {train.name}: {common:,} of {looked_at:,} images of the {part} part{which} are in the training "
            f"part too, {how}: what is measured is not of unseen data alone"
        )


def _count_common(train: LabelledData, test: LabelledData) -> tuple[int, int, str]:
    """How many test images are training images, of how many that were looked at, and by what these were compared; none
    is of what is no images, and of arrays that are large.
    """
    if (
        isinstance(train, ArrayData)
        and isinstance(test, ArrayData)
        and train.inputs.ndim == 4
        and train.inputs.nbytes + test.inputs.nbytes <= _MOST_BYTES
    ):
        known = {hash(image.tobytes()) for image in train.inputs}
        return sum(hash(image.tobytes()) in known for image in test.inputs), len(test), "pixel for pixel"
    of_train, of_test = (getattr(data, "files", None) for data in (train, test))
    if isinstance(of_train, ListedFiles) and isinstance(of_test, ListedFiles):
        return *count_common(of_train, of_test), "byte for byte"
    return 0, 0, ""
