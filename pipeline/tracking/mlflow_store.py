"""MLflow: runs/RECIPE/mlruns, a folder of files, unless MLFLOW_TRACKING_URI says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from decant.pipeline.errors import ModelError
from decant.pipeline.support.plugins import optional
from decant.pipeline.tracking.tracker import Run

FOLDER = "mlruns"
_RUN_FOLDER = "decant.folder"
_LONGEST = 500
"""Characters of a parameter; every MLflow takes so many."""


class MLflowStore:
    """A run of the experiment that is called as the recipe. A training that goes on after an interruption goes on with
    its run.
    """

    def __init__(self, run: Run) -> None:
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        if uri is None:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # which newer versions ask for
            uri = (run.base / FOLDER).absolute().as_uri()
        self._client = self.library().MlflowClient(tracking_uri=uri)
        found = self._client.get_experiment_by_name(run.recipe)
        experiment = self._client.create_experiment(run.recipe) if found is None else found.experiment_id
        self._id, self._logged = self._interrupted(experiment, run) or (self._new(experiment, run), 0)

    @staticmethod
    def library() -> Any:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # which it reads when it is imported
        return optional("mlflow", "mlflow", ModelError)

    def _new(self, experiment: str, run: Run) -> str:
        tags = {_RUN_FOLDER: str(run.folder.absolute())}
        found: str = self._client.create_run(experiment, run_name=run.name, tags=tags).info.run_id
        for name, value in run.flat_settings().items():
            self._client.log_param(found, name, str(value)[:_LONGEST])
        return found

    def _interrupted(self, experiment: str, run: Run) -> tuple[str, int] | None:
        """The run of this folder that was not finished, and the last epoch that it has."""
        for found in self._client.search_runs([experiment]):
            here = found.data.tags.get(_RUN_FOLDER) == str(run.folder.absolute())
            if here and found.info.status != "FINISHED":
                self._client.update_run(found.info.run_id, status="RUNNING")
                history = self._client.get_metric_history(found.info.run_id, "train/loss")
                return found.info.run_id, max((one.step for one in history), default=0)
        return None

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        if epoch > self._logged:
            for name, value in scalars.items():
                self._client.log_metric(self._id, name, value, step=epoch)

    def close(self, finished: bool) -> None:
        self._client.set_terminated(self._id, status="FINISHED" if finished else "KILLED")
