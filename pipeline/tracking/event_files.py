"""TensorBoard: RUN/tensorboard, a file of events."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from decant.cache.io.opening import require_folder
from decant.pipeline.errors import ModelError
from decant.pipeline.support.plugins import optional
from decant.pipeline.tracking.tracker import Run

FOLDER = "tensorboard"


class EventWriter:
    """Writes scalars into a file of events in `folder`."""

    def __init__(self, folder: Path) -> None:
        """Raises ModelError if TensorBoard is not installed."""
        self.library()
        from torch.utils.tensorboard.writer import SummaryWriter

        self._writer = SummaryWriter(str(folder))

    @staticmethod
    def library() -> Any:
        return optional("tensorboard", "tensorboard", ModelError)

    def log(self, epoch: int, scalars: Mapping[str, float]) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def close(self, finished: bool) -> None:
        self._writer.close()


class EventFiles(EventWriter):
    """Writes the events of a run anew: a second file beside the first would double its curves."""

    def __init__(self, run: Run) -> None:
        require_folder(run.folder / FOLDER)
        shutil.rmtree(run.folder / FOLDER, ignore_errors=True)
        super().__init__(run.folder / FOLDER)
