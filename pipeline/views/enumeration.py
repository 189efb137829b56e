"""`views.count = "all"`: every outcome that the operations can have, as a number.

View v stands for one outcome of each operation, the digits of v in a mixed radix, the first operation's the
least significant. Which outcome a live teacher would see in an epoch, and so which view, comes from the hash.
"""

from __future__ import annotations

from typing import cast

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.config.augmentations import Countable
from decant.pipeline.config.settings import ViewsSettings
from decant.pipeline.views import operations
from decant.pipeline.views.arrays import Images
from decant.pipeline.views.hashing import choices


def enact(settings: ViewsSettings, step: int, images: Images, views: NDArray[np.integer]) -> Images:
    """Images (B, C, H, W) after operation number `step` of each of the enumerated views (B,)."""
    operation = settings.augment[step]
    chosen = views.astype(np.int64) // _radix(settings, step) % (operation.num_outcomes or 1)
    return operations.enact(cast("Countable", operation), images, chosen)


def drawn(settings: ViewsSettings, indices: NDArray[np.integer], epoch: int) -> NDArray[np.int64]:
    """(B,): the enumerated view of each sample that is pixel for pixel its hashed view `epoch`."""
    views = np.zeros(len(indices), np.int64)
    for step, operation in enumerate(settings.augment):
        bits = choices(settings.seed, indices, np.full(len(indices), epoch), step)
        views += _radix(settings, step) * operations.outcome(cast("Countable", operation), bits)
    return views


def _radix(settings: ViewsSettings, step: int) -> int:
    return int(
        np.prod([operation.num_outcomes or 1 for operation in settings.augment[:step]], dtype=np.int64)
    )
