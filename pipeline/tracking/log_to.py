"""The trackers of a command. One that fails is said once and left, and the training goes on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from decant.cache.io.redaction import redacted
from decant.pipeline.config.recipe import Recipe
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.plugins import in_words
from decant.pipeline.tracking.event_files import EventFiles
from decant.pipeline.tracking.mlflow_store import MLflowStore
from decant.pipeline.tracking.tracker import Run, Tracker, scalars_of
from decant.pipeline.tracking.weights_and_biases import WeightsAndBiases
from decant.pipeline.training.epoch_log import Epoch, read_epochs

TRACKERS: dict[str, type[Tracker]] = {
    "tensorboard": EventFiles,
    "wandb": WeightsAndBiases,
    "mlflow": MLflowStore,
}
"""By the name of `--log-to`, which is that of the library and of the extra that installs it."""


class LogTo:
    """Logs each epoch of a training to the trackers of these names.

    >>> from decant.pipeline.config.recipe import load_recipe
    >>> with LogTo().run("student", load_recipe("digits"), Path("runs/digits/student")) as log:  # to nothing
    ...     log({"epoch": 1, "loss": 0.5})
    """

    def __init__(self, names: Sequence[str] = (), base: Path = Path()) -> None:
        """`base` is the folder of all runs of the recipe. Raises ModelError, with the command that installs it, where a
        library is missing: before anything is trained.
        """
        self.names, self.base = tuple(dict.fromkeys(names)), base
        self._unused = bool(names)
        for name in self.names:
            TRACKERS[name].library()

    def say_if_unused(self) -> None:
        """Says on stderr that nothing was logged, as every network was finished before."""
        if self._unused:
            say_once(
                f"--log-to {', '.join(self.names)}: nothing was logged, as every network was found finished; "
                "`decant report --tensorboard` writes the curves of finished runs"
            )

    @contextlib.contextmanager
    def run(self, name: str, recipe: Recipe, folder: Path) -> Iterator[Callable[[Epoch], None]]:
        """Yields what logs the epochs of a training. Trackers begin with its first epoch, and get those that were
        trained before an interruption too.
        """
        if not self.names:
            yield lambda line: None
            return
        self._unused = False
        trackers = _Trackers(self.names, Run(redacted(name), recipe.name, folder, self.base, recipe.shared()))
        finished = False
        try:
            yield trackers.log
            finished = True
        finally:
            trackers.close(finished)


class _Trackers:
    """The trackers of one run that have not failed."""

    def __init__(self, names: Sequence[str], run: Run) -> None:
        self._names, self._run = names, run
        self._started: dict[str, Tracker] | None = None

    def log(self, line: Epoch) -> None:
        lines = [line]
        if self._started is None:
            self._started = {}
            for name in self._names:
                with self._guarded(name):
                    self._started[name] = TRACKERS[name](self._run)
            earlier = [one for one in read_epochs(self._run.folder) if one["epoch"] < line["epoch"]]
            lines = [*earlier, line]
        for name, tracker in list(self._started.items()):
            with self._guarded(name):
                for one in lines:
                    tracker.log(one["epoch"], scalars_of(one))

    def close(self, finished: bool) -> None:
        for name, tracker in list((self._started or {}).items()):
            with self._guarded(name):
                tracker.close(finished)

    @contextlib.contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # a tracker may fail in any way, and a training must not end with it
            if self._started is not None:
                self._started.pop(name, None)
            say_once(
                f"warning: {self._run.folder}: --log-to {name}: failed ({in_words(error)}) and is left out; the "
                "training goes on, and metrics.jsonl has every epoch",
                f"--log-to {name}",
            )
