"""The teacher's pass over the data of a recipe: every missing row of a cache, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decant.cache import Encoding, LogitCacheWriter, Sparse, input_checksums
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.support.progress import progress
from decant.pipeline.training.device import Inputs, OnHost, autocast, to_device
from decant.pipeline.training.encoding import RowsOnHost, encode_sparse, encodes_on
from decant.pipeline.training.forward import forward as checked_forward
from decant.pipeline.training.handout import Run, whole
from decant.pipeline.training.loading import Keys, default_workers
from decant.pipeline.training.on_device import device_views
from decant.pipeline.training.recorded import Recorded
from decant.pipeline.training.teacher_rows import Rows, units_of, write_missing_rows, written_rows
from decant.pipeline.views import ViewedData


def fill(
    writer: LogitCacheWriter,
    viewed: ViewedData,
    network: nn.Module,
    settings: CacheSettings,
    device: torch.device,
    same_every_batch: bool = False,
    runs: Iterable[Run] | None = None,
    advance: Callable[[int], object] | None = None,
) -> int:
    """Computes and writes every missing row of runs, by default of all, and returns their number. Raises what the
    writer raises.

    A pass that was killed computes missing rows from the same batches, and ends in the same file. On a GPU that has
    room, the views are computed there too; `same_every_batch` says that the network does the same whatever the values,
    so that a GPU may record and replay it. advance: is given the number of rows after each batch; by default a bar
    shows them.
    """
    if runs is None:
        runs = whole(units_of(writer.manifest, settings.batch_size))
    if advance is None:
        written = written_rows(writer)
        with progress("caching logits", sum(map(len, written))) as show:
            show(int(sum(map(np.count_nonzero, written))))
            return fill(writer, viewed, network, settings, device, same_every_batch, runs, show)
    network.to(device).to(memory_format=torch.channels_last)
    compute = _Teacher(network, device, settings.precision, same_every_batch)
    workers = default_workers(viewed.data.lazy)

    def answer(batch: Keys, made: tuple[Inputs, Tensor]) -> Callable[[], Rows]:
        outputs = _to_host(compute(made[0]), writer.manifest.encoding, batch)
        inputs = OnHost(made[0])

        def wait() -> Rows:
            if isinstance(outputs, RowsOnHost):
                found = outputs.wait(batch[:, 0], int(batch[0, 1]))
            else:
                found = outputs.wait().numpy()
            crc32 = input_checksums(inputs.wait(), len(batch))
            return Rows(found, viewed.data.labels[batch[:, 0]], crc32)

        return wait

    return write_missing_rows(
        writer,
        runs,
        device_views(viewed, device),
        answer,
        settings.batch_size,
        advance,
        workers=workers,
        pin_memory=device.type == "cuda" and workers > 0,
    )


def _to_host(logits: Tensor, encoding: Encoding, batch: Keys) -> OnHost | RowsOnHost:
    """What is stored of a batch, on its way to the host: of a GPU's logits sparse rows alone."""
    if not isinstance(encoding, Sparse) or not encodes_on(logits.device):
        return OnHost(logits)
    rows = encode_sparse(logits, encoding, batch[:, 0], int(batch[0, 1]))
    return RowsOnHost(rows, encoding, logits.shape[1])


class _Teacher:
    """`teacher(inputs)` → raw outputs (B, C) float32 on the device, which the next call may overwrite."""

    def __init__(self, network: nn.Module, device: torch.device, precision: str, record: bool) -> None:
        self._network, self._device, self._precision = network, device, precision
        self._recorded = Recorded(self._compute) if record and device.type == "cuda" else None

    def __call__(self, inputs: Inputs) -> Tensor:
        if self._recorded is None or isinstance(inputs, dict):
            return self._compute(inputs)
        return self._recorded(inputs.to(self._device, non_blocking=True))

    def _compute(self, inputs: Inputs) -> Tensor:
        return forward(self._network, inputs, self._device, self._precision).float()


@torch.inference_mode()
def forward(network: nn.Module, inputs: Inputs, device: torch.device, precision: str) -> Tensor:
    """Raw outputs (B, C) of the teacher in evaluation mode, on the device. Does not wait for a GPU to compute them."""
    network.eval()
    with autocast(device, precision):
        return checked_forward(network, to_device(inputs, device, channels_last=True), "cache.batch_size")


def teacher_logits(
    network: nn.Module, inputs: Inputs, device: torch.device, precision: str
) -> NDArray[np.float32]:
    """Raw outputs (B, C) float32 of the teacher in evaluation mode, on the host."""
    return forward(network, inputs, device, precision).float().cpu().numpy()
