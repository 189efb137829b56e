"""What the report of a sweep is about: its record, and the runs of its trials."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from decant.pipeline.config.tasks import MetricFormat
from decant.pipeline.errors import DamagedError
from decant.pipeline.runs.notes import pass_of
from decant.pipeline.runs.result import Result, load_result
from decant.pipeline.runs.saved_recipe import read_saved_recipe
from decant.pipeline.sweeps.record import RECORD, StageRecord, SweepRecord, TrialRecord, load_record
from decant.pipeline.training.epoch_log import Epoch, read_epochs


def is_sweep(path: Path) -> bool:
    """Whether a folder is that of a sweep, whose report is another than that of runs."""
    return (path / RECORD).is_file()


@dataclass(frozen=True)
class SweepSubject:
    """A sweep, finished or not."""

    folder: Path
    record: SweepRecord

    @classmethod
    def of(cls, folder: Path) -> SweepSubject:
        """The sweep in a folder. Raises DamagedError."""
        return cls(folder, load_record(folder))

    @property
    def title(self) -> str:
        """The heading of the page."""
        return f"{self.record.recipe}, sweep"

    @property
    def figure(self) -> MetricFormat:
        """The metric that was chosen by."""
        return self.record.figure

    @property
    def students(self) -> StageRecord:
        """The search over the settings of the sweep."""
        return self.record.stages[0]

    @property
    def best(self) -> TrialRecord | None:
        """The trial that was chosen, or would be now."""
        return self.record.best_of(self.students)

    @cached_property
    def paths(self) -> list[str]:
        """The settings that were varied."""
        return [text.partition("=")[0] for text in self.record.over]

    @property
    def fresh(self) -> list[TrialRecord]:
        """The students of the chosen settings with fresh seeds."""
        found = next((stage.trials for stage in self.record.stages if stage.name == "fresh seeds"), [])
        return [
            trial for trial in found if trial.settings.get("kind") == "distilled" and trial.value is not None
        ]

    @cached_property
    def results(self) -> dict[int, Result]:
        """The finished students of the search, by the number of their trial."""
        found = dict[int, Result]()
        for trial in self.students.trials:
            with contextlib.suppress(DamagedError, OSError):
                result = None if trial.folder is None else load_result(self.folder.parent / trial.folder)
                if result is not None:
                    found[trial.number] = result
        return found

    def epochs(self, trial: TrialRecord) -> list[Epoch]:
        """What a trial was like after each of its epochs."""
        if trial.folder is None:
            return []
        try:
            return read_epochs(self.folder.parent / trial.folder)
        except DamagedError:
            return []

    @property
    def shared(self) -> str | None:
        """What sharing one teacher's pass saved, in words; None where nobody recorded what the pass took."""
        keys = {result.cache for result in self.results.values() if result.cache is not None}
        passes = [pass_of(self.folder.parent, key) for key in keys]
        known = [one for one in passes if one is not None and one.rows]
        if not known or len(known) < len(keys):
            return None
        from decant.pipeline.report.page import seconds  # needs the extra `report`

        once = sum(one.seconds for one in known)
        each = max(one.seconds / one.rows for one in known) * max(self._samples(), 1)
        live = each * sum(len(lines) for lines in self._learned())
        return (
            f"{len(self.results):,} students, one teacher's pass: {seconds(once)}, instead of {seconds(live)} of a "
            "live teacher"
        )

    def _learned(self) -> Iterator[list[Epoch]]:
        for trial in self.students.trials:
            yield self.epochs(trial)

    def _samples(self) -> int:
        """The samples of one epoch: the rows of one view."""
        views = max((self._views(result) for result in self.results.values()), default=1)
        keys = {result.cache for result in self.results.values() if result.cache is not None}
        passes = [pass_of(self.folder.parent, key) for key in keys]
        return max((one.rows // views for one in passes if one is not None), default=0)

    def _views(self, result: Result) -> int:
        count = ((read_saved_recipe(result.folder) or {}).get("views") or {}).get("count", 1)
        return count if isinstance(count, int) and count > 0 else 1
