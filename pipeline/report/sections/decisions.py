"""How good networks with a sigmoid for each output are on the test part: metrics, each class, and of one output its
calibration.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from decant.cache import average_precision
from decant.pipeline.config.tasks import FORMATS, Task
from decant.pipeline.report import charts
from decant.pipeline.report.page import Section
from decant.pipeline.training.metrics import decisions

MAX_CLASSES = 500
"""The most classes that are listed."""
_BINS = 15


def decisions_section(
    name: str,
    task: Task,
    logits: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.floating],
    names: Sequence[str],
) -> Section:
    """The section of these networks' logits (N, C) for labels (N, C), NaN where unknown; `names` are of the classes, of
    a binary task of its two.
    """
    shown = [figure for figure in FORMATS[task] if figure.key != "agreement"]
    measured = {
        which: decisions(torch.from_numpy(one), torch.from_numpy(labels), task=task)
        for which, one in logits.items()
    }
    of_outputs = names[1:] if task == "binary" else names
    content = {
        "samples": int((~np.isnan(labels)).any(axis=1).sum()),
        "errors": None,
        "decisions": [
            (which, *(figure.text(found) for figure in shown)) for which, found in measured.items()
        ],
        "columns": ["", *(figure.name for figure in shown)],
        "compared": list(logits),
        "classes": [
            _of_class(of_outputs[k], {which: one[:, k] for which, one in logits.items()}, labels[:, k])
            for k in range(min(labels.shape[1], MAX_CLASSES))
        ],
        "listed": ""
        if labels.shape[1] <= MAX_CLASSES
        else f" The first {MAX_CLASSES} of {labels.shape[1]:,}.",
        "last": list(logits)[-1],
        "reliable": task == "binary",
    }
    drawn: dict[str, charts.AnyChart] = {}
    if task == "binary":
        points = [
            {"series": which, **one}
            for which, outputs in logits.items()
            for one in _reliability(outputs[:, 0], labels[:, 0])
        ]
        drawn["reliability"] = charts.reliability(points, list(logits))
    return Section(name, "Where they are right", content, drawn)


def _of_class(
    name: str, scores: Mapping[str, NDArray[np.float32]], labels: NDArray[np.floating]
) -> tuple[str, ...]:
    """A row: the class, its samples, the average precision of each network, and the confusion of the last one."""
    known = ~np.isnan(labels)
    there = labels[known] == 1
    ranked = [average_precision(one[known], there) for one in scores.values()]
    said = list(scores.values())[-1][known] > 0
    counts = ((said & there), (said & ~there), (~said & there), (~said & ~there))
    return (
        name,
        f"{int(there.sum()):,} of {len(there):,}",
        *("–" if one is None else f"{100 * one:.2f}" for one in ranked),
        *(f"{int(count.sum()):,}" for count in counts),
    )


def _reliability(logits: NDArray[np.float32], labels: NDArray[np.floating]) -> list[dict[str, Any]]:
    """Mean confidence and accuracy of each non-empty bin of the likelier answer's probability."""
    known = ~np.isnan(labels)
    confidence = 1 / (1 + np.exp(-np.abs(logits[known].astype(np.float64))))
    right = (logits[known] > 0) == (labels[known] == 1)
    bin_of = np.clip(np.ceil(confidence * _BINS).astype(np.intp), 1, _BINS) - 1
    return [
        {
            "confidence": float(confidence[bin_of == index].mean()),
            "accuracy": float(right[bin_of == index].mean()),
            "count": int((bin_of == index).sum()),
        }
        for index in np.unique(bin_of).tolist()
    ]
