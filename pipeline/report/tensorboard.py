"""Writes metrics.jsonl as TensorBoard event files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from decant.pipeline.errors import ModelError
from decant.pipeline.runs.result import Result
from decant.pipeline.support.plugins import optional
from decant.pipeline.training.epoch_log import read_epochs

FOLDER = "tensorboard"


def write_events(results: Sequence[Result]) -> list[Path]:
    """Writes RUN/tensorboard of every run anew: one scalar for each number of each epoch. Raises ModelError if
    TensorBoard is not installed.
    """
    optional("tensorboard", "tensorboard", ModelError)
    from torch.utils.tensorboard.writer import SummaryWriter

    folders = []
    for result in results:
        lines = read_epochs(result.folder)
        if not lines:
            continue
        folder = result.folder / FOLDER
        shutil.rmtree(
            folder, ignore_errors=True
        )  # a second file of events beside the first would double the curves
        with SummaryWriter(str(folder)) as writer:
            for line in lines:
                scalars = {
                    f"train/{name}": line.get(name) for name in ("loss", "hard", "soft", "lr", "seconds")
                }
                scalars |= {f"test/{name}": value for name, value in line.get("test", {}).items()}
                for name, value in scalars.items():
                    if value is not None:
                        writer.add_scalar(name, value, line["epoch"])
        folders.append(folder)
    return folders
