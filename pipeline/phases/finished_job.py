"""What the training of a network leaves in its folder: its weights, and then its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from decant.pipeline.config.settings import Training
from decant.pipeline.networks.build import num_parameters
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.attempts import require_unchanged
from decant.pipeline.runs.latency import device_name
from decant.pipeline.runs.result import Kind, Result
from decant.pipeline.runs.saved_network import save_network
from decant.pipeline.training.epoch_log import CHECKPOINT, trained_seconds


class Job(Protocol):
    """What is saved of the job of a network, whatever it is trained on."""

    @property
    def kind(self) -> Kind: ...

    @property
    def spec(self) -> NetworkSpec: ...

    @property
    def settings(self) -> Training: ...

    @property
    def folder(self) -> Path: ...

    @property
    def origin(self) -> Mapping[str, Any]: ...

    @property
    def check_unchanged(self) -> Callable[[bool], None]: ...


def save_finished(
    job: Job,
    network: nn.Module,
    device: torch.device,
    kept_epoch: int,
    latency_ms: Callable[[], float | None],
    check: Callable[[], None] = lambda: None,
    **fields: Any,
) -> Result:
    """Saves weights and then the result of a trained network, and removes its checkpoint.

    latency_ms: measures the network. check: raises where what it was measured on is not what it was. fields: of the
    result, those that only networks of this kind have. Raises CorruptError or ChangedError where what it was trained on
    has changed.
    """
    size, digest = save_network(job.folder, network, job.spec)
    result = Result(
        kind=job.kind,
        network=job.spec,
        seed=job.settings.seed,
        parameters=num_parameters(network),
        weights_bytes=size,
        weights_sha256=digest,
        seconds=trained_seconds(job.folder),
        latency_ms=latency_ms(),
        latency_on=device_name(device),
        kept_epoch=kept_epoch if job.settings.chooses else None,
        folder=job.folder,
        **fields,
        **job.origin,
    )
    require_unchanged(job.folder, job.check_unchanged)
    check()
    result.save()
    (job.folder / CHECKPOINT).unlink(missing_ok=True)
    return result
