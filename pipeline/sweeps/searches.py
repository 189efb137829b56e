"""The trials of one search, in Optuna's journal in the sweep's folder.

Processes share a search by that file alone. A trial belongs to the process that holds its lock; the lock of a process
that died is free, and the trial is gone on with. Trials are drawn and claimed under one lock of the whole sweep, so
that no two processes ever run the same one, and no more are drawn than the sweep has.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import optuna
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from decant.cache import differences
from decant.cache.io.locks import are_known, exclusive, may_live, try_exclusive
from decant.cache.io.opening import require_folder
from decant.pipeline.errors import DamagedError
from decant.pipeline.support.notices import say_once
from decant.pipeline.sweeps.sampling import Listed, Points, Repeatable, suggest, value_of
from decant.pipeline.sweeps.space import Setting

JOURNAL = "journal.log"
_LOCKS = ".locks"
_DEFINITION = "definition"
_NAMING_TIME = timedelta(minutes=1)  # between drawing a trial and saying which process runs it
_MADE_OF = ("caches", "students")
"""Of the definition: what follows from the rest, and from files that it names."""


@dataclass(frozen=True)
class SearchPlan:
    """What a search draws: its settings, how many trials, and by which sampler and pruner."""

    name: str
    space: tuple[Setting, ...]
    trials: int
    less_is_better: bool = False
    """Whether the trial with the smallest metric is the best."""
    sampler: str = "tpe"
    seed: int = 0
    points: Points | None = None
    """The values of each trial, instead of a sampler's."""
    epochs: int | None = None
    """Of a trial, where Hyperband prunes; None prunes nothing."""


@dataclass
class Claim:
    """A trial that this process runs, and no other."""

    trial: Trial
    values: tuple[str, ...]
    """Of the settings, as --set takes them."""

    @property
    def number(self) -> int:
        """Of the trial in its search, from 0."""
        return int(self.trial.number)


class Search:
    """A search of a sweep, which goes on where other processes, or earlier ones, have left it."""

    def __init__(self, folder: Path, plan: SearchPlan, definition: dict[str, Any], command: str = "") -> None:
        """`folder` is the sweep's, and `definition` what the sweep is; `command` is the one that this process is a
        worker of, which records itself what its other workers leave when they die. Raises DamagedError where the
        journal is none, or of another sweep.
        """
        require_folder(folder)
        (folder / _LOCKS).mkdir(parents=True, exist_ok=True)
        self.plan, self._folder, self._command = plan, folder, command
        path = folder / JOURNAL
        _quiet()
        try:
            with exclusive(self._claims, _do_not_mind), warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                self._study = optuna.create_study(
                    storage=_storage(path),
                    study_name=plan.name,
                    direction="minimize" if plan.less_is_better else "maximize",
                    load_if_exists=True,
                    sampler=self._sampler(),
                    pruner=self._pruner(),
                )
                found = self._study.user_attrs.get(_DEFINITION)
                if found is None:
                    self._study.set_user_attr(_DEFINITION, definition)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise DamagedError(
                f"{path}: not a journal of a sweep ({reason}); move it away, and finished students are found again"
            ) from None
        known = {name: value for name, value in definition.items() if name in (found or ())}
        if found is not None and found != json.loads(json.dumps(known)):
            given = sorted({*known, *found} - set(_MADE_OF))
            others = [*differences(known, found, given), *differences(known, found, _MADE_OF)]
            fields = "; ".join(map(str, others[:4]))
            raise DamagedError(
                f"{path}: is the journal of another sweep: {fields}; move it away, or give the data and settings that "
                "it is of"
            )

    @property
    def trials(self) -> list[FrozenTrial]:
        """Every trial that was drawn, in order."""
        return list(self._study.get_trials(deepcopy=False))

    @property
    def is_over(self) -> bool:
        """Whether every trial has ended."""
        trials = self.trials
        return len(trials) >= self.plan.trials and all(trial.state.is_finished() for trial in trials)

    @property
    def best(self) -> FrozenTrial | None:
        """The finished trial with the best metric, the first of several; None where none is finished."""
        done = [trial for trial in self.trials if trial.state == TrialState.COMPLETE]
        sign = -1 if self.plan.less_is_better else 1
        return max(done, key=lambda trial: (sign * (trial.value or 0.0), -trial.number), default=None)

    def values(self, trial: FrozenTrial) -> tuple[str, ...]:
        """The settings of a trial, as --set takes them; of one that is being drawn those that it has."""
        return tuple(
            value_of(setting, trial.params[setting.path])
            for setting in self.plan.space
            if setting.path in trial.params
        )

    @contextlib.contextmanager
    def claim(self) -> Iterator[Claim | None]:
        """Yields a trial that no other process runs until the end of the block: one that a process left when it died,
        or a new one; None where there is none.
        """
        with contextlib.ExitStack() as held:
            with exclusive(self._claims, _do_not_mind):
                trial = self._abandoned(held) or self._new(held)
                if trial is not None:  # first, as where there are no locks nothing else keeps others from it
                    trial.set_user_attr("worker", worker_name())
                    trial.set_user_attr("command", self._command)
                claim = None if trial is None else Claim(trial, self._drawn(trial))
            yield claim

    def tell(self, claim: Claim, value: float) -> None:
        """Ends a trial with its metric."""
        self._study.tell(claim.number, value, skip_if_finished=True)

    def prune(self, claim: Claim) -> None:
        """Ends a trial that fell behind."""
        self._study.tell(claim.number, state=TrialState.PRUNED, skip_if_finished=True)

    def fail(self, number: int, reason: str) -> None:
        """Ends a trial that failed, with the reason."""
        trial = self.trials[number]
        if not trial.state.is_finished():
            Trial(self._study, trial._trial_id).set_user_attr("reason", reason)
            self._study.tell(number, state=TrialState.FAIL, skip_if_finished=True)

    def importances(self) -> dict[str, float]:
        """How much each setting decides about the metric, by PED-ANOVA (Watanabe et al., 2023), summing to 1; empty
        where too few trials have ended to say.
        """
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            try:
                found = optuna.importance.get_param_importances(self._study, evaluator=evaluator)
            except (ValueError, RuntimeError, Warning):  # all of them did alike, or there are too few
                return {}
        return {name: round(float(share), 4) for name, share in found.items()}

    def _abandoned(self, held: contextlib.ExitStack) -> Trial | None:
        for found in self.trials:
            if self._command and found.user_attrs.get("command") == self._command:
                continue
            if found.state.is_finished():
                continue
            lock = self._lock_of(found.number)
            if not held.enter_context(try_exclusive(lock)) and not self._is_left(found, lock):
                continue
            if not self.trials[found.number].state.is_finished():  # its process may have ended it meanwhile
                return Trial(self._study, found._trial_id)
        return None

    def _is_left(self, trial: FrozenTrial, lock: Path) -> bool:
        """Whether the process of a trial has ended, where no lock tells; of another machine's that is not known, which
        is said once no other trial is left to be drawn.
        """
        if are_known(lock):
            return False
        worker = str(trial.user_attrs.get("worker", ""))
        if worker == worker_name():  # of an earlier one, as in a container that was started again
            return True
        if not worker:  # it has been drawn just now, or its process was killed before it could name itself
            drawn = trial.datetime_start
            return drawn is not None and datetime.now() - drawn > _NAMING_TIME
        is_elsewhere = may_live(worker) and not worker.endswith(f" on {socket.gethostname()}")
        if is_elsewhere and len(self.trials) >= self.plan.trials:
            say_once(
                f"waiting: trial {trial.number} is of {worker}, and {self._folder} has no file locks by which to tell "
                f"whether that lives; where it has ended, move {JOURNAL} away, and finished students are found again"
            )
        return not may_live(worker)

    def _new(self, held: contextlib.ExitStack) -> Trial | None:
        if len(self.trials) >= self.plan.trials:
            return None
        trial = self._study.ask()
        held.enter_context(try_exclusive(self._lock_of(trial.number)))
        return trial

    def _drawn(self, trial: Trial) -> tuple[str, ...]:
        """The value of each setting: those that are known as they are, others drawn now."""
        for setting in self.plan.space:
            suggest(trial, setting)
        return tuple(value_of(setting, trial.params[setting.path]) for setting in self.plan.space)

    def _sampler(self) -> optuna.samplers.BaseSampler:
        if self.plan.points is not None:
            return Listed(self.plan.space, self.plan.points)
        return Repeatable(self.plan.sampler, self.plan.seed)

    def _pruner(self) -> optuna.pruners.BasePruner:
        if self.plan.epochs is None:
            return optuna.pruners.NopPruner()
        return optuna.pruners.HyperbandPruner(min_resource=1, max_resource=self.plan.epochs)

    @property
    def _claims(self) -> Path:
        return self._folder / _LOCKS / "claims"

    def _lock_of(self, number: int) -> Path:
        return self._folder / _LOCKS / f"{self.plan.name}-{number}"


def _storage(journal: Path) -> optuna.storages.JournalStorage:
    lock: Any = _KernelLock(journal)  # Optuna's class of locks is private: it asks for these two methods
    return optuna.storages.JournalStorage(JournalFileBackend(str(journal), lock_obj=lock))


class _KernelLock:
    """The lock of the journal, which the system frees when a process dies; Optuna's own waits half a minute for it."""

    def __init__(self, journal: Path) -> None:
        self._journal, self._held = journal, contextlib.ExitStack()

    def acquire(self) -> bool:
        self._held.enter_context(exclusive(self._journal.parent / _LOCKS / "journal", _do_not_mind))
        _drop_torn_line(self._journal)
        return True

    def release(self) -> None:
        self._held.close()


def _drop_torn_line(journal: Path) -> None:
    """Removes the end of a last line that a process did not finish, so that the next one begins a line."""
    with contextlib.suppress(FileNotFoundError), open(journal, "r+b") as file:
        size = file.seek(0, os.SEEK_END)
        back = min(size, 1 << 20)
        file.seek(size - back)
        end = file.read(back)
        if end and not end.endswith(b"\n"):
            file.truncate(size - back + end.rfind(b"\n") + 1)


def worker_name(pid: int | None = None) -> str:
    """What a trial says of the process that runs it.

    >>> worker_name(1) == f"process 1 on {socket.gethostname()}"
    True
    """
    return f"process {os.getpid() if pid is None else pid} on {socket.gethostname()}"


def fail_trials_of(folder: Path, worker: str, reason: str) -> None:
    """Records the trials that a process ran, which has died of what a trial may do again, as failed."""
    path = folder / JOURNAL
    _quiet()
    storage = _storage(path)
    for summary in optuna.get_all_study_summaries(storage):
        study = optuna.load_study(study_name=summary.study_name, storage=storage)
        for trial in study.get_trials(deepcopy=False):
            if not trial.state.is_finished() and trial.user_attrs.get("worker") == worker:
                storage.set_trial_user_attr(trial._trial_id, "reason", reason)
                study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)


def _do_not_mind(_: str) -> None:
    """Nothing is said of who holds a lock for a moment."""


def _quiet() -> None:
    """What Optuna says of itself is no message to a person who sweeps."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
