"""Accuracy, calibration and confusion of the networks on the test part; errors of a regression."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import altair as alt
import numpy as np
import torch
from numpy.typing import NDArray

from decant.cache import calibration_error, softmax
from decant.pipeline.config.tasks import FORMATS, SIGMOID
from decant.pipeline.data.samples import has_labels, task_of
from decant.pipeline.errors import PipelineError
from decant.pipeline.report import charts
from decant.pipeline.report.page import Section
from decant.pipeline.report.sections import confusion
from decant.pipeline.report.sections.decisions import decisions_section
from decant.pipeline.report.subject import Subject
from decant.pipeline.training.metrics import averages_over_classes, errors

BINS = 15
MAX_POINTS = 1_000
"""The most samples of a regression that a chart shows."""


def quality(subject: Subject) -> Section:
    """Confusion, reliability and gains by class of teacher, student and labels-only student; for a regression,
    outputs against targets.
    """
    name, title = "quality", "Where they are right"
    try:
        labels = subject.splits.test.data.labels
        all_outputs = {which: subject.test_logits(result) for which, result in subject.compared.items()}
        names = subject.classes
    except (PipelineError, OSError) as error:
        return Section(name, title, missing=str(error))
    if not has_labels(subject.splits.test.data):
        what = "targets" if labels.dtype.kind == "f" else "labels"
        return Section(name, title, missing=f"the test part has no {what}")
    logits = {which: outputs for which, outputs in all_outputs.items() if np.isfinite(outputs).all()}
    if not logits:
        return Section(name, title, missing=_diverged(list(all_outputs)))
    task = task_of(subject.splits.test.data)
    if task in SIGMOID:
        section = decisions_section(name, task, logits, labels, names)
    elif labels.dtype.kind == "f":
        section = _regression(name, "How far off they are", logits, labels)
    else:
        known = labels >= 0
        answers = {which: outputs[known] for which, outputs in logits.items()}
        section = _classification(name, title, answers, labels[known], names)
    without = _diverged([which for which in all_outputs if which not in logits])
    return replace(section, content={**section.content, "without": without, "teachers": _instead(subject)})


def _instead(subject: Subject) -> str | None:
    """Which of several teachers is shown."""
    if len(subject.teachers) < 2:
        return None
    return f"Of {len(subject.teachers)} teachers the first is shown: {subject.teachers[0].network}."


def _diverged(networks: Sequence[str]) -> str | None:
    """Why some networks are not shown."""
    return (
        f"outputs that are not numbers, as of a training that diverged: {', '.join(networks)}"
        if networks
        else None
    )


def reliability(
    logits: NDArray[np.float32], labels: NDArray[np.int64], bins: int = BINS
) -> list[dict[str, Any]]:
    """Mean confidence and accuracy of each non-empty bin of confidence, with the bins of `calibration_error`."""
    probabilities = softmax(logits)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    bin_of = np.clip(np.ceil(confidence * bins).astype(np.intp), 1, bins) - 1
    return [
        {
            "confidence": float(confidence[bin_of == index].mean(dtype=np.float64)),
            "accuracy": float(right[bin_of == index].mean()),
            "count": int((bin_of == index).sum()),
        }
        for index in np.unique(bin_of).tolist()
    ]


def by_class(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(C,) accuracy of each class's samples; NaN for a class without samples."""
    count, right = logits.shape[1], logits.argmax(1) == labels
    totals, hits = np.bincount(labels, minlength=count), np.bincount(labels[right], minlength=count)
    return np.divide(hits, totals, out=np.full(count, np.nan), where=totals > 0)


def _classification(
    name: str,
    title: str,
    logits: Mapping[str, NDArray[np.float32]],
    labels: NDArray[np.int64],
    names: Sequence[str],
) -> Section:
    few = len(names) <= confusion.MAX_MATRIX
    counts = {which: confusion.matrix(outputs, labels) for which, outputs in logits.items() if few}
    shown = confusion.most_confused(np.sum(list(counts.values()), axis=0)) if few else []
    matrices = [which for which in ("teacher", "student") if which in counts] or list(counts)[:1]
    accuracies = {which: by_class(outputs, labels) for which, outputs in logits.items()}
    gained, differences = _gains(accuracies)
    changed = _most_changed(gained, confusion.MAX_CLASSES)
    drawn: dict[str, charts.AnyChart] = {"reliability": _reliability_chart(logits, labels)}
    if gained:
        drawn["gains"] = _gains_chart(gained, changed, names)
    for index, which in enumerate(matrices):
        drawn[f"confusion{index}"] = _confusion_chart(which, counts[which], shown, names)
    content = {
        "samples": len(labels),
        "errors": [_errors_of(which, outputs, labels) for which, outputs in logits.items()],
        "matrices": {which: f"confusion{index}" for index, which in enumerate(matrices)},
        "note": confusion.which_classes(shown, names),
        "changed": confusion.which_classes(changed, names, "changed most") + _grain(labels),
        "differences": differences,
        "by_class": _accuracies(accuracies, range(len(names)) if few else changed, names),
        "listed": "" if few else confusion.which_classes(changed, names, "changed most"),
        "compared": list(accuracies),
        "most": confusion.MAX_MATRIX,
    }
    return Section(name, title, content, drawn)


def _errors_of(which: str, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[str, ...]:
    """Errors, accuracy, balanced accuracy, macro F1 and calibration error of a network."""
    probabilities = softmax(logits)
    right = probabilities.argmax(1) == labels
    error = calibration_error(probabilities.max(1), right.astype(np.float64))
    shares = (right.mean(), *averages_over_classes(torch.from_numpy(logits), torch.from_numpy(labels)), error)
    return which, f"{int((~right).sum()):,}", *(f"{100 * share:.2f} %" for share in shares)


def _accuracies(
    accuracies: Mapping[str, NDArray[np.float64]], shown: Iterable[int], names: Sequence[str]
) -> list[tuple[str, ...]]:
    """One row for each class: percent of each network, a dash where there are no samples."""
    return [
        (
            names[label],
            *("–" if np.isnan(one[label]) else f"{100 * one[label]:.2f}" for one in accuracies.values()),
        )
        for label in shown
    ]


def _reliability_chart(
    logits: Mapping[str, NDArray[np.float32]], labels: NDArray[np.int64]
) -> alt.LayerChart:
    points = [
        {"series": which, **one} for which, outputs in logits.items() for one in reliability(outputs, labels)
    ]
    return charts.reliability(points, list(logits))


def _gains_chart(
    gained: Mapping[str, NDArray[np.float64]], shown: Sequence[int], names: Sequence[str]
) -> alt.Chart:
    points = [
        {"class": names[label], "series": series, "value": 100 * float(values[label])}
        for label in shown
        for series, values in gained.items()
        if not np.isnan(values[label])
    ]
    return charts.bars(points, "points of accuracy", list(gained), len(shown))


def _confusion_chart(
    which: str, counts: NDArray[np.int64], shown: Sequence[int], names: Sequence[str]
) -> alt.Chart:
    squares = confusion.cells(confusion.row_shares(counts), shown, names, counts)
    return charts.matrix(squares, f"answer of the {which}", "label", "share of the label", len(shown))


def _gains(accuracies: Mapping[str, NDArray[np.float64]]) -> tuple[dict[str, NDArray[np.float64]], bool]:
    """The student's gain over each of the others by class, and whether there are others."""
    student = accuracies.get("student")
    if student is None:
        return {}, False
    others = {which: one for which, one in accuracies.items() if which != "student"}
    return {f"student − {which}": student - one for which, one in others.items()}, bool(others)


def _grain(labels: NDArray[np.int64]) -> str:
    """How many points of accuracy one sample of a class counts."""
    typical = float(np.median(np.unique(labels, return_counts=True)[1]))
    one = f"one of {typical:,g} is {100 / typical:.3g} points"
    return f" Half of the labels have {typical:,g} test samples or fewer; {one}."


def _most_changed(gained: Mapping[str, NDArray[np.float64]], count: int) -> list[int]:
    """At most `count` classes that differ most, from the largest gain over the last of the others to the largest
    loss.
    """
    if not gained:
        return []
    values = np.stack(list(gained.values()))
    known = np.flatnonzero(~np.isnan(values[-1]))
    chosen = known[np.argsort(-np.abs(values[:, known]).max(0), kind="stable")[:count]]
    return sorted(chosen.tolist(), key=lambda label: (-values[-1][label], label))


def _errors(outputs: Mapping[str, NDArray[np.float32]], targets: NDArray[np.floating]) -> dict[str, Any]:
    """A table of the metrics of a regression."""
    shown = FORMATS["regression"]
    measured = {
        which: errors(torch.from_numpy(found), torch.from_numpy(targets)) for which, found in outputs.items()
    }
    return {
        "columns": ["", *(figure.name for figure in shown)],
        "far": [(which, *(figure.text(found) for figure in shown)) for which, found in measured.items()],
    }


def _regression(
    name: str, title: str, outputs: Mapping[str, NDArray[np.float32]], targets: NDArray[np.floating]
) -> Section:
    """Outputs against the first target that has a value for any sample."""
    first = int((~np.isnan(targets)).any(0).argmax())
    known = np.flatnonzero(~np.isnan(targets[:, first]))
    chosen = known[
        np.unique(np.linspace(0, max(0, len(known) - 1), min(len(known), MAX_POINTS)).astype(np.intp))
    ]
    points = [
        {"series": which, "x": float(targets[index, first]), "y": float(predicted[index, first])}
        for which, predicted in outputs.items()
        for index in chosen.tolist()
    ]
    count = targets.shape[1]
    which = "the target" if count == 1 else f"target {first + 1} of {count}"
    content = {
        "samples": len(chosen),
        "errors": None,
        "decisions": None,
        "target": which,
        **_errors(outputs, targets),
    }
    return Section(
        name, title, content, {"against": charts.against(points, "target", "output", list(outputs))}
    )
