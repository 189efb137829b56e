"""The checkpoint that training writes after every epoch, and resumes from.

The line of metrics.jsonl is written first, the checkpoint last: a line whose checkpoint was not written is dropped on
resuming.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import torch
from torch import nn

from decant.cache.io.files import write_atomically
from decant.cache.io.opening import open_read
from decant.pipeline.errors import DamagedError
from decant.pipeline.training.epoch_log import append_epoch, keep_epochs

CHECKPOINT = "checkpoint.pt"


def resume(
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    folder: Path,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Loads the checkpoint of `folder` where there is one; returns the number of epochs that are done. Raises
    DamagedError for a file that is no checkpoint of this network.
    """
    path = folder / CHECKPOINT
    if not os.path.lexists(path):
        keep_epochs(folder, 0)
        return 0
    try:
        with open_read(path, follow=False) as file:
            saved = torch.load(file, map_location="cpu", weights_only=True)
        network.load_state_dict(saved["network"])
        optimizer.load_state_dict(saved["optimizer"])
        if scaler is not None:
            scaler.load_state_dict(saved["scaler"])
        epoch = int(saved["epoch"])
    except Exception as error:  # a file that is no checkpoint may end in any error of what reads it
        raise DamagedError(
            f"{path}: not a checkpoint of this network ({type(error).__name__}); delete it to begin this "
            "network anew"
        ) from error
    keep_epochs(folder, epoch)
    return epoch


def save_epoch(
    folder: Path,
    network: nn.Module,
    optimizer: torch.optim.Optimizer,
    epoch: int,
    metrics: dict[str, Any],
    scaler: torch.amp.GradScaler | None = None,
) -> None:
    """Writes the metrics of an epoch, then the checkpoint after it; `epoch` counts from 1."""
    append_epoch(folder, metrics)
    content = io.BytesIO()  # torch.save to a file would report a full disk with an error of its own
    saved = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": epoch}
    if scaler is not None:
        saved["scaler"] = scaler.state_dict()
    torch.save(saved, content)
    write_atomically(folder / CHECKPOINT, content.getbuffer())
