"""The outputs of a finished network on the test split: no numbers are refused, what is doubtful is said."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from decant.cache import are_probabilities
from decant.pipeline.config.tasks import Task
from decant.pipeline.errors import DivergedError
from decant.pipeline.support.notices import say

_ENOUGH = 30
"""Outputs of which some are outside 0..1 unless a sigmoid keeps them there; of fewer, logits may be there by chance."""


def require_numbers(folder: Path, logits: Tensor, metrics: Mapping[str, Any]) -> None:
    """Raises DivergedError where outputs on the test split, or metrics of them, are no numbers."""
    bad = int(logits.isnan().any(dim=1).sum())
    if bad or not all(math.isfinite(value) for value in metrics.values()):
        raise DivergedError(
            f"{folder}: the network's outputs on the test split are no numbers for {bad:,} of {len(logits):,} samples, "
            "or too large to be measured; check its weights, and the inputs for NaN and infinity"
        )


def warn_constant_outputs(folder: Path, logits: Tensor) -> None:
    """Says on stderr that a finished network gives the same outputs (N, C) for every sample, or one that never
    changes.
    """
    constant = (logits == logits[0]).all(dim=0)
    if len(logits) < 2 or not constant.any():
        return
    which = "all outputs are" if constant.all() else f"output {int(constant.nonzero()[0])} is"
    say(
        f"warning: {folder}: {which} the same for all {len(logits):,} test samples: likely causes are a learning rate "
        "that is too high, units that no longer react, or a network that ignores its inputs"
    )


def warn_of_probabilities(folder: Path, logits: Tensor, task: Task) -> None:
    """Says on stderr that a finished network ends in a softmax or a sigmoid, which every loss of classes has itself."""
    rows = logits.numpy()
    if task == "regression" or len(rows) < 2:
        return
    if are_probabilities(rows):
        found = "every row is 0 or more and sums to 1, so it ends in a softmax"
    elif rows.size >= _ENOUGH and rows.min() >= 0 and rows.max() <= 1 and (rows != rows[0]).any():
        found = "every output is between 0 and 1, so it ends in a sigmoid"
    else:
        return
    say(
        f"warning: {folder}: {found}, and losses take the outputs before it: the network learns slowly and is measured "
        "wrongly; leave it out of the network"
    )
