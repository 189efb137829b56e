"""The training part against the test part: they must fit together, and should have no sample in common."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from decant.cache.io.opening import open_read
from decant.pipeline.data.held_out import require_same_classes
from decant.pipeline.data.samples import (
    ArrayData,
    LabelledData,
    ListedFiles,
    decoding,
    has_labels,
    num_classes,
    num_targets,
    spread,
    task_of,
    vocabulary,
)
from decant.pipeline.errors import DataError
from decant.pipeline.support.notices import say_once

_MOST_BYTES = 1 << 30  # of both parts, whose samples are compared
_FEW = 0.01  # of the test part, which two samples of real data may well have in common by chance
_LOOKED_AT = 100  # files of the other part
_ALIKE = 20  # files of the same size that one is compared with; of pixels as they are all files have one size
_SOME_BYTES = 4096


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
    common, looked_at, how = _common_samples(train, other)
    if common > _FEW * looked_at:
        which = "" if looked_at == len(other) else " that were looked at"
        say_once(
            f"warning: {train.name}: {common:,} of {looked_at:,} images of the {part} part{which} are in the training "
            f"part too, {how}: what is measured is not of unseen data alone"
        )


def _common_samples(train: LabelledData, test: LabelledData) -> tuple[int, int, str]:
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


def count_common(train: ListedFiles, other: ListedFiles) -> tuple[int, int]:
    """How many files of the other part are files of the training part too, byte for byte, and how many of them, spread
    over the part, were looked at.
    """
    order = np.argsort(train.sizes, kind="stable")
    sizes, chosen = train.sizes[order], spread(len(other.paths), _LOOKED_AT)
    common = 0
    for index in chosen.tolist():
        first, end = np.searchsorted(sizes, [other.sizes[index], other.sizes[index] + 1]).tolist()
        alike = order[first:end][spread(end - first, _ALIKE)]
        common += any(_are_equal(other.paths[index], train.paths[place]) for place in alike.tolist())
    return common, len(chosen)


def _are_equal(one: Path, other: Path) -> bool:
    """Whether two files of one size have the same bytes; False where one cannot be read."""
    try:
        with open_read(one) as first, open_read(other) as second:
            for file in (first, second):
                file.seek(file.seek(0, 2) // 2)
            if first.read(_SOME_BYTES) != second.read(_SOME_BYTES):
                return False
            for file in (first, second):
                file.seek(0)
            while piece := first.read(1 << 20):
                if piece != second.read(1 << 20):
                    return False
            return not second.read(1)
    except OSError:
        return False
