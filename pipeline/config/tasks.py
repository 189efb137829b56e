"""The tasks, and the metrics of each. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypedDict

if TYPE_CHECKING:
    from decant.cache import SigmoidScores

Task = Literal["classification", "regression", "binary", "multilabel"]
Measured = Literal[Task, "language"]
"""What networks are measured by: a task of samples with labels, or a language model's positions."""
SIGMOID: tuple[Task, ...] = ("binary", "multilabel")
"""The tasks whose outputs are logits of a sigmoid each, and not of one softmax."""


class Metrics(TypedDict, total=False):
    """What a network was measured to be. Shares are in 0..1, the loss in nats, errors in units of the targets."""

    top1: float
    top5: float
    balanced_accuracy: float
    macro_f1: float
    loss: float
    ece: float
    agreement: float
    mse: float
    mae: float
    r2: float
    accuracy: float
    auc: float
    ap: float
    f1: float
    map: float
    f1_micro: float
    f1_macro: float
    exact_match: float
    perplexity: float
    kl: float


class MetricFormat(NamedTuple):
    """How a metric is printed.

    >>> accuracy = MetricFormat("top1", "top-1", percent=True)
    >>> accuracy.with_spread(0.9312, 0.004), accuracy.difference(0.012), accuracy.plain(0.9312)
    ('93.12 ± 0.40 %', '+1.20 points', '93.12')
    >>> MetricFormat("perplexity", "perplexity", decimals=2).with_spread(66.4412, 0.58)
    '66.44 ± 0.58'
    """

    key: str
    """Its key in `Metrics`."""
    name: str
    """Its name in a table."""
    percent: bool = False
    """Whether it is a share in 0..1 that is shown in percent, and a difference of two in points."""
    less_is_better: bool = False
    """Whether networks are the better the smaller it is."""
    decimals: int = 4
    """How many are shown, of a metric that is no percentage."""

    @property
    def scale(self) -> float:
        """The factor that a value is multiplied by when it is shown."""
        return 100.0 if self.percent else 1.0

    def value(self, metrics: Mapping[str, Any]) -> float | None:
        """The value among these metrics; None where it is missing or not finite, as after a training that diverged."""
        value: float | None = metrics.get(self.key)
        return value if value is not None and math.isfinite(value) else None

    def text(self, metrics: Mapping[str, Any]) -> str:
        """The value among these metrics with its unit; a dash where there is none."""
        value = self.value(metrics)
        return "–" if value is None else self.with_spread(value)

    def with_spread(self, value: float, spread: float | None = None) -> str:
        """A value with its unit, and its standard deviation where there is one."""
        unit = " %" if self.percent else ""
        return self.plain(value) + ("" if spread is None else f" ± {self.plain(spread)}") + unit

    def gain(self, value: float, other: float) -> float:
        """By how much a value is better than another; below 0 where it is worse."""
        return other - value if self.less_is_better else value - other

    def difference(self, difference: float) -> str:
        """The difference of two values, with its sign: in points where the metric is a percentage."""
        sign = "+" if difference >= 0 else "-"
        return f"{sign}{self.plain(abs(difference))} {'points' if self.percent else self.name}"

    def plain(self, value: float) -> str:
        """A value without its unit."""
        return f"{self.scale * value:.{2 if self.percent else self.decimals}f}"

    @property
    def axis(self) -> str:
        """The label of an axis."""
        return f"{self.name}, %" if self.percent else self.name


FORMATS: dict[Measured, tuple[MetricFormat, ...]] = {
    "classification": (
        MetricFormat("top1", "top-1", percent=True),
        MetricFormat("top5", "top-5", percent=True),
        MetricFormat("balanced_accuracy", "balanced accuracy", percent=True),
        MetricFormat("macro_f1", "macro F1", percent=True),
        MetricFormat("loss", "loss", less_is_better=True),
        MetricFormat("ece", "calibration error", percent=True, less_is_better=True),
        MetricFormat("agreement", "agreement", percent=True),
    ),
    "regression": (
        MetricFormat("r2", "R²"),
        MetricFormat("mse", "MSE", less_is_better=True),
        MetricFormat("mae", "MAE", less_is_better=True),
    ),
    "binary": (
        MetricFormat("accuracy", "accuracy", percent=True),
        MetricFormat("auc", "AUC", percent=True),
        MetricFormat("ap", "average precision", percent=True),
        MetricFormat("f1", "F1", percent=True),
        MetricFormat("loss", "loss", less_is_better=True),
        MetricFormat("ece", "calibration error", percent=True, less_is_better=True),
        MetricFormat("agreement", "agreement", percent=True),
    ),
    "multilabel": (
        MetricFormat("map", "mAP", percent=True),
        MetricFormat("f1_micro", "micro F1", percent=True),
        MetricFormat("f1_macro", "macro F1", percent=True),
        MetricFormat("exact_match", "exact match", percent=True),
        MetricFormat("loss", "loss", less_is_better=True),
        MetricFormat("agreement", "agreement", percent=True),
    ),
    "language": (
        MetricFormat("perplexity", "perplexity", less_is_better=True, decimals=2),
        MetricFormat("loss", "loss", less_is_better=True),
        MetricFormat("kl", "KL to the teacher", less_is_better=True),
        MetricFormat("accuracy", "next-token accuracy", percent=True),
        MetricFormat("agreement", "agreement", percent=True),
        MetricFormat("ece", "calibration error", percent=True, less_is_better=True),
    ),
}
"""The metrics of each task, first the one that networks are compared by."""


OF_TEACHER = ("kl", "agreement")
"""The metrics that compare a network with a teacher."""


def formats(metrics: Mapping[str, Any]) -> tuple[MetricFormat, ...]:
    """The metrics of the task that these values are of."""
    only_of: tuple[tuple[str, Measured], ...] = (
        ("perplexity", "language"),
        ("mse", "regression"),
        ("accuracy", "binary"),
        ("exact_match", "multilabel"),
    )
    return FORMATS[next((task for key, task in only_of if key in metrics), "classification")]


def chosen_by(measured: Measured, key: str | None) -> MetricFormat | None:
    """The metric of that key by which networks of a task can be chosen, None for one that is none; without a key the
    one that they are compared by.

    >>> chosen_by("language", None).name, chosen_by("language", "kl").name, chosen_by("regression", "kl")
    ('perplexity', 'KL to the teacher', None)
    """
    known = {one.key: one for one in FORMATS[measured]}
    if measured != "language":
        known.pop("agreement", None)  # with a teacher, whose answers on the test part alone are kept
    return FORMATS[measured][0] if key is None else known.get(key)


def any_format(key: str) -> MetricFormat | None:
    """The metric of that key, of whatever task: where several tasks have one of that name, one that networks are
    compared by.
    """
    every = [one for of_task in FORMATS.values() for one in of_task[:1]]
    every += [one for of_task in FORMATS.values() for one in of_task[1:]]
    return next((one for one in every if one.key == key), None)


def headline(metrics: Mapping[str, Any]) -> MetricFormat:
    """The metric that networks with these values are compared by."""
    return formats(metrics)[0]


def score_metrics(scores: SigmoidScores | None, task: Task) -> Metrics:
    """The scores under the names that they have as metrics of a task; none where there are none."""
    metrics = Metrics()
    if scores is None:
        return metrics
    ranked = scores.mean_average_precision
    if task == "binary":
        metrics["accuracy"], metrics["f1"] = scores.exact_match, scores.f1_micro
        if scores.auc is not None:
            metrics["auc"] = scores.auc
        if ranked is not None:
            metrics["ap"] = ranked
        return metrics
    metrics["f1_micro"], metrics["f1_macro"] = scores.f1_micro, scores.f1_macro
    metrics["exact_match"] = scores.exact_match
    if ranked is not None:
        metrics["map"] = ranked
    return metrics
