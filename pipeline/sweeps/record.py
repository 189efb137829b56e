"""sweep.json: what a sweep has done so far, for its report, for `decant status`, and for people. Written anew after
each trial; reading it needs no Optuna.
"""

from __future__ import annotations

import contextlib
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from decant.cache.io.locks import are_known, exclusive, shared, try_exclusive
from decant.pipeline.config.tasks import FORMATS, MetricFormat, any_format
from decant.pipeline.runs.json_files import read_as, write_json
from decant.pipeline.support.checked_json import FROM_TABLE, Amount, Finite, Whole

RECORD = "sweep.json"
_LOCKS = ".locks"
State = Literal["running", "done", "pruned", "failed"]
StageName = Literal["students", "baseline", "fresh seeds"]


@dataclass(frozen=True)
class TrialRecord:
    """One student of a sweep."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    number: Whole
    settings: dict[str, str]
    """By their paths, as --set takes them."""
    state: State
    value: Finite | None = None
    """The metric on the validation part."""
    seconds: Amount | None = None
    """Of the trial; little where its student was found."""
    folder: Annotated[str, Field(pattern=r"^student-[^/\\\x00]+/seed-[0-9]+$")] | None = None
    """Of the run, beside the folder of the sweep."""
    reason: str | None = None
    """Why it failed."""


@dataclass(frozen=True)
class StageRecord:
    """One search of a sweep."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    name: StageName
    total: Whole
    trials: list[Annotated[TrialRecord, FROM_TABLE]]

    @property
    def ended(self) -> list[TrialRecord]:
        """The trials that are over."""
        return [trial for trial in self.trials if trial.state != "running"]


@dataclass(frozen=True)
class Conclusion:
    """The chosen settings against the baseline's, over fresh seeds, on the test part; values by seed."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    distilled: dict[str, Finite]
    labels: dict[str, Finite]
    command: str
    """That repeats the students of the best settings."""
    baseline_command: str | None = None
    importances: dict[str, Finite] = field(default_factory=dict)


@dataclass(frozen=True)
class SweepRecord:
    """A sweep, as far as it has come."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(strict=True, extra="forbid")

    recipe: str
    over: list[str]
    sampler: str
    pruner: str
    metric: str
    """The key of the metric that is chosen by."""
    jobs: Whole
    stages: list[Annotated[StageRecord, FROM_TABLE]]
    conclusion: Annotated[Conclusion, FROM_TABLE] | None = None
    """None while it is not finished."""

    @property
    def figure(self) -> MetricFormat:
        """How the metric is printed."""
        return any_format(self.metric) or FORMATS["classification"][0]

    def best_of(self, stage: StageRecord) -> TrialRecord | None:
        """The finished trial of a search with the best metric, the first of several."""
        done = [trial for trial in stage.trials if trial.state == "done" and trial.value is not None]
        better = self.figure.gain
        return max(done, key=lambda trial: (better(trial.value or 0.0, 0.0), -trial.number), default=None)

    @property
    def gain(self) -> tuple[float, float | None] | None:
        """The mean gain over the seeds that both kinds have, above 0 where distilled students are better, and its
        standard error where there are several; None without a conclusion or a baseline.
        """
        if self.conclusion is None:
            return None
        labels = self.conclusion.labels
        both = ((value, labels[seed]) for seed, value in self.conclusion.distilled.items() if seed in labels)
        gains = [self.figure.gain(value, other) for value, other in both]
        if not gains:
            return None
        error = statistics.stdev(gains) / len(gains) ** 0.5 if len(gains) > 1 else None
        return statistics.fmean(gains), error

    @property
    def done(self) -> int:
        """How many trials are over."""
        return sum(len(stage.ended) for stage in self.stages)

    @property
    def total(self) -> int:
        """How many trials there are in the searches that have begun."""
        return sum(stage.total for stage in self.stages)

    @property
    def seconds_left(self) -> float | None:
        """Of the searches that have begun, by the median of their trials; None while none is over."""
        seconds = [
            trial.seconds for stage in self.stages for trial in stage.ended if trial.seconds is not None
        ]
        return statistics.median(seconds) * (self.total - self.done) / self.jobs if seconds else None


_RECORD = TypeAdapter(Annotated[SweepRecord, FROM_TABLE])


@contextlib.contextmanager
def running(folder: Path) -> Iterator[None]:
    """Until the end of the block, `is_running` says that somebody works on this sweep."""
    (folder / _LOCKS).mkdir(parents=True, exist_ok=True)
    with shared(folder / _LOCKS / "running"):
        yield


def is_running(folder: Path) -> bool:
    """Whether a process works on a sweep."""
    lock = folder / _LOCKS / "running"
    if not lock.exists():
        return False
    with try_exclusive(lock) as free:
        return not free and are_known(lock)  # without locks nobody can tell


def write_record(folder: Path, record: SweepRecord) -> None:
    """Writes the record of a sweep, unless another process has written one of as many trials that is further."""
    with exclusive(folder / _LOCKS / "record", lambda _: None):
        before = load_record(folder) if (folder / RECORD).exists() else None
        is_further = before is not None and len(before.stages) > len(record.stages)
        if before is not None and is_further and before.stages[0].total == record.stages[0].total:
            return
        if before is not None and record.conclusion is None and before.total == record.total:
            record = replace(record, conclusion=before.conclusion)
        write_json(folder / RECORD, asdict(record))


def load_record(folder: Path) -> SweepRecord:
    """The record of a sweep. Raises DamagedError, OSError."""
    hint = "it is not what a sweep writes: delete it and run the command again"
    return read_as(folder / RECORD, _RECORD, hint)


def find_records(base: Path) -> Iterator[Path]:
    """The folders of the sweeps in a run folder, the one that was written last first."""
    found = [path for path in base.glob(f"sweep-*/{RECORD}") if path.is_file()]
    yield from (path.parent for path in sorted(found, key=lambda path: -path.stat().st_mtime))
