"""The teacher's pass over the data: every missing row of a cache, computed once.

Loading, computing and writing overlap: a thread prefetches the next batches, and another computes a batch's checksums,
copies its logits to the host and writes them, at most a few batches behind.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decant.cache import Encoding, LogitCacheWriter, Sparse, input_checksums
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.support.progress import progress
from decant.pipeline.training.background import BackgroundWriter, prefetch
from decant.pipeline.training.device import Inputs, OnHost, autocast, to_device
from decant.pipeline.training.encoding import RowsOnHost, encode_sparse, encodes_on
from decant.pipeline.training.forward import forward as checked_forward
from decant.pipeline.training.loading import Keys, MissingKeys, default_workers, loader, written_or_of_others
from decant.pipeline.training.on_device import device_views
from decant.pipeline.training.recorded import Recorded
from decant.pipeline.views import ViewedData


def fill(
    writer: LogitCacheWriter,
    viewed: ViewedData,
    network: nn.Module,
    settings: CacheSettings,
    device: torch.device,
    same_every_batch: bool = False,
    part: tuple[int, int] = (0, 1),
) -> int:
    """Computes and writes every missing row of a part, of every n-th batch from the i-th on, and returns their number.
    Raises what the writer raises.

    Batch b of a view always has samples b·B to (b+1)·B − 1. A pass that was killed therefore computes missing rows
    from the same batches, and ends in the same file. On a GPU that has room, the views are computed there too;
    `same_every_batch` says that the network does the same whatever the values, so that a GPU may record and replay it.
    """
    network.to(device).to(memory_format=torch.channels_last)
    written = np.stack([writer.is_written(view) for view in range(writer.manifest.num_views)])
    skipped = written_or_of_others(written, settings.batch_size, part)
    keys = MissingKeys(skipped, settings.batch_size)
    workers = default_workers(viewed.data.lazy)
    batches = loader(
        device_views(viewed, device), keys, workers, pin_memory=device.type == "cuda" and workers > 0
    )
    compute = _Teacher(network, device, settings.precision, same_every_batch)
    with progress("caching logits", written.size) as advance, BackgroundWriter() as write_later:

        def store(batch: Keys, inputs: OnHost, outputs: OnHost | RowsOnHost) -> None:
            indices, view = batch[:, 0], int(batch[0, 1])
            missing = ~written[view, indices]
            beside = {
                "labels": viewed.data.labels[indices[missing]],
                "input_crc32": input_checksums(inputs.wait(), len(indices))[missing],
            }
            if isinstance(outputs, RowsOnHost):
                rows = outputs.wait(indices, view).items()
                encoded = {name: row[missing] for name, row in rows}
                writer.write_encoded(indices[missing], encoded, **beside, view=view)
            else:
                writer.write(indices[missing], outputs.wait().numpy()[missing], **beside, view=view)
            advance(int(missing.sum()))

        advance(int(skipped.sum()))
        for batch, (inputs, _) in zip(keys, batches if workers else prefetch(batches), strict=True):
            outputs = _to_host(compute(inputs), writer.manifest.encoding, batch)
            write_later(store, batch, OnHost(inputs), outputs)
    return int((~skipped).sum())


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
