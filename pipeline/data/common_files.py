"""Whether image files of one part are those of another: by their sizes first, so that few are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from decant.cache.io.opening import open_read
from decant.pipeline.data.samples import ListedFiles, spread

_LOOKED_AT = 100
_ALIKE = 20  # files of the same size that one is compared with; of pixels as they are all files have one size
_SOME_BYTES = 4096


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
