"""Compares the outputs of an exported file with those of its network, on the same samples."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import AfterValidator, ConfigDict

from decant.pipeline.config.tasks import FORMATS, Task, headline
from decant.pipeline.deploy.runtimes import Runtime
from decant.pipeline.runs.latency import timed
from decant.pipeline.support.checked_json import Amount, Whole
from decant.pipeline.training.metrics import measure

TOLERANCE = 1e-3
"""The largest difference allowed of a float32 file's outputs, relative to the network's largest output, or to 1 if that
is less.
"""
HEADINGS = ("file", "run by", "bytes", "largest difference", "figure", "ms an input", "95th percentile")
_BATCH = 64


_FIGURES = {figure.name: figure for task in FORMATS.values() for figure in task}


def _known_figure(name: str) -> str:
    if name not in _FIGURES:
        raise ValueError("expected the name of a metric")
    return name


@dataclass(frozen=True)
class Samples:
    """The samples that files are checked on."""

    inputs: NDArray[Any]
    """(N, …)"""
    labels: NDArray[Any]
    """(N,) classes, −1 if there is none, or (N, T) targets, NaN if there is none."""
    expected: NDArray[np.float32]
    """(N, C): the outputs of the network in PyTorch."""
    sigmoids: Task | None = None
    """The task, where each output has a sigmoid of its own."""
    boundary: float = 0.0
    """The output above which the answer of a sigmoid is yes: 0 of logits, 0.5 of probabilities."""


@dataclass(frozen=True)
class Checked:
    """The result of checking one file, or the network itself."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="ignore")

    name: str
    runtime: str
    bytes: Whole
    largest_difference: float
    """The largest difference of an output from the network's."""
    largest_output: float
    """The largest magnitude of the network's outputs."""
    figure: Annotated[str, AfterValidator(_known_figure)]
    """The name of the metric that networks of the task are compared by."""
    value: float | None
    """That metric of this file's outputs; None if it is not defined."""
    latency_ms: Amount
    """Median latency at batch 1."""
    latency_p95_ms: Amount
    samples: Whole

    def cells(self) -> tuple[str, ...]:
        """A row of the table, in the order of HEADINGS."""
        return (
            self.name,
            self.runtime,
            f"{self.bytes:,}",
            f"{self.largest_difference:.2g}",
            "–" if self.value is None else f"{self.figure} {_FIGURES[self.figure].with_spread(self.value)}",
            f"{self.latency_ms:.3f}",
            f"{self.latency_p95_ms:.3f}",
        )

    def difference_problem(self) -> str | None:
        """Describes the problem if the outputs of a float32 file differ by more than TOLERANCE allows; None if not."""
        bound = TOLERANCE * max(1.0, self.largest_output)
        if self.largest_difference <= bound:  # not so of NaN
            return None
        return (
            f"{self.name}: an output differs from the network's by {self.largest_difference:.3g}; "
            f"at most {bound:.3g} is allowed"
        )

    def loss_problem(self, network: Checked, max_loss: float) -> str | None:
        """Describes the problem if more than `max_loss` hundredths of the metric are lost; None if not. Without a
        metric, as with constant targets, the bound of a float32 file holds.
        """
        if self.value is None or network.value is None:
            return self.difference_problem()
        lost = round(100 * (network.value - self.value), 6)  # 0.98 − 0.96 is a little over 0.02
        if lost <= max_loss and math.isfinite(self.largest_difference):
            return None
        return (
            f"{self.name}: {lost:.2f} points of {self.figure} are lost, and an output differs by up to "
            f"{self.largest_difference:.3g}; at most {max_loss:g} points are allowed (--max-loss)"
        )


def check(name: str, runtime_name: str, content_bytes: int, run: Runtime, samples: Samples) -> Checked:
    """Runs a file on every sample, and repeatedly on the first one to measure latency."""
    starts = range(0, len(samples.inputs), _BATCH)
    outputs = np.concatenate([run(samples.inputs[start : start + _BATCH]) for start in starts])
    metrics = measure(
        torch.from_numpy(outputs - samples.boundary), torch.from_numpy(samples.labels), task=samples.sigmoids
    )
    figure = headline(metrics)
    latency = timed(lambda: run(samples.inputs[:1]))
    return Checked(
        name=name,
        runtime=runtime_name,
        bytes=content_bytes,
        largest_difference=float(np.abs(outputs.astype(np.float64) - samples.expected).max()),
        largest_output=float(np.abs(samples.expected).max()),
        figure=figure.name,
        value=figure.value(metrics),
        latency_ms=latency.median,
        latency_p95_ms=latency.p95,
        samples=len(outputs),
    )
