"""Weights & Biases: RUN/wandb, offline unless WANDB_MODE says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from decant.pipeline.errors import ModelError
from decant.pipeline.support.plugins import optional
from decant.pipeline.tracking.tracker import Run

PROJECT = "decant"


class WeightsAndBiases:
    """A run of the project `decant`, grouped by recipe. `wandb sync RUN/wandb/offline-run-…` sends it."""

    def __init__(self, run: Run) -> None:
        wandb = self.library()
        self._run = wandb.init(
            project=PROJECT,
            group=run.recipe,
            name=run.name,
            config=run.flat_settings(),
            dir=str(run.folder),
            mode=os.environ.get("WANDB_MODE", "offline"),
            reinit="create_new",  # a run of the caller's own goes on
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    @staticmethod
    def library() -> Any:
        return optional("wandb", "wandb", ModelError)

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        self._run.log(dict(scalars), step=epoch)

    def close(self, finished: bool) -> None:
        self._run.finish(exit_code=0 if finished else 1)
