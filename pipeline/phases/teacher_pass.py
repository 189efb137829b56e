"""The teacher's pass over the data of a recipe: every missing row of a cache, computed once."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from decant.cache import Encoding, LogitCacheWriter, Manifest, Sparse, input_checksums, rows_per_block
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.support.allocator import freed_memory_kept
from decant.pipeline.support.progress import progress
from decant.pipeline.training.device import CopiedAhead, Inputs, OnHost, autocast, to_device
from decant.pipeline.training.encoding import RowsOnHost, encode_sparse, encodes_on
from decant.pipeline.training.forward import forward as checked_forward
from decant.pipeline.training.handout import Run, whole
from decant.pipeline.training.loading import Keys, default_workers
from decant.pipeline.training.on_device import DeviceViews, device_views
from decant.pipeline.training.recorded import Recorded, Recorder
from decant.pipeline.training.teacher_rows import Rows, units_of, write_missing_rows, written_rows
from decant.pipeline.views import ViewedData

_BYTES_AT_ONCE = 8 << 20
"""Of inputs and logits that are written together, and that a GPU's views are made by."""


def fill(
    writer: LogitCacheWriter,
    viewed: ViewedData,
    network: nn.Module,
    settings: CacheSettings,
    device: torch.device,
    same_every_batch: bool = False,
    runs: Iterable[Run] | None = None,
    advance: Callable[[int], object] | None = None,
    held: Callable[[], ViewedData | DeviceViews] | None = None,
) -> int:
    """Computes and writes every missing row of runs, by default of all, and returns their number. Raises what the
    writer raises.

    A pass that was killed computes missing rows from the same batches, and ends in the same file. On a GPU that has
    room, the views are computed there too; `same_every_batch` says that the network does the same whatever the values,
    so that a GPU may record and replay it. advance: is given the number of rows after each batch; by default a bar
    shows them. held: gives what `device_views` makes of the data, where that has begun already.
    """
    if runs is None:
        runs = whole(units_of(writer.manifest, settings.batch_size))
    if advance is None:
        written = written_rows(writer)
        with progress("caching logits", sum(map(len, written))) as show:
            show(int(sum(map(np.count_nonzero, written))))
            return fill(writer, viewed, network, settings, device, same_every_batch, runs, show, held)
    network.to(device).to(memory_format=torch.channels_last)
    data = device_views(viewed, device) if held is None else held()
    on_host = not isinstance(data, DeviceViews)
    input_bytes = _input_bytes(data) if isinstance(data, ViewedData) else data.input_bytes
    several = _batches_at_once(writer.manifest, settings.batch_size, input_bytes)
    with freed_memory_kept() if device.type == "cpu" else nullcontext():
        return write_missing_rows(
            writer,
            runs,
            data,
            _Answers(_Teacher(network, device, settings, same_every_batch), writer.manifest.encoding, viewed),
            settings.batch_size,
            advance,
            workers=default_workers(viewed.data.lazy),
            pin_memory=on_host and device.type == "cuda",
            at_once=1 if on_host else several,
            together=several if on_host else 1,
            prepare=_Copied(device) if on_host and device.type == "cuda" else None,
        )


class _OnBoth(NamedTuple):
    """The inputs of a batch."""

    host: Inputs
    device: Inputs


class _Copied:
    """Copies the inputs that the data made to a GPU, beside what that computes."""

    def __init__(self, device: torch.device) -> None:
        self._copied = CopiedAhead(device)

    def __call__(self, made: tuple[Inputs, Tensor]) -> _OnBoth:
        return _OnBoth(made[0], self._copied(made[0]))


class _Answers:
    """See `teacher_rows.Answer`: the teacher's outputs, and the checksums of what it saw."""

    def __init__(self, compute: _Teacher, encoding: Encoding, viewed: ViewedData) -> None:
        self._compute, self._encoding, self._viewed = compute, encoding, viewed

    def __call__(self, batch: Keys, made: _OnBoth | tuple[Inputs, Tensor]) -> Callable[[], Rows]:
        """made: by `_Copied`, or by the data."""
        both = made if isinstance(made, _OnBoth) else _OnBoth(made[0], made[0])
        inputs = OnHost(both.host, computed=True)
        outputs = _to_host(self._compute(both.device), self._encoding, batch)

        def wait() -> Rows:
            if isinstance(outputs, RowsOnHost):
                found = outputs.wait(batch[:, 0], int(batch[0, 1]))
            else:
                found = outputs.wait().numpy()
            crc32 = input_checksums(inputs.wait(), len(batch))
            return Rows(found, self._viewed.data.labels[batch[:, 0]], crc32)

        return wait


def _input_bytes(viewed: ViewedData) -> int:
    """Of one view; of a text as if it were as long as any."""
    inputs, _ = viewed.batch(np.zeros((1, 2), np.int64))
    if isinstance(inputs, dict):
        return math.prod(viewed.input_shape) * sum(value.element_size() for value in inputs.values())
    return int(inputs.nbytes)


def _batches_at_once(manifest: Manifest, batch_size: int, input_bytes: int) -> int:
    """How many batches have their rows written together, and on a GPU their views made and their copies started, as
    each of these takes the host about as long for one as for several: what fits into some MiB, and then whole blocks,
    of which nothing is read back and no row marked by itself.
    """
    row_bytes = input_bytes + 4 * manifest.num_outputs
    fitting = max(1, _BYTES_AT_ONCE // row_bytes // batch_size)
    whole = math.lcm(batch_size, rows_per_block(manifest)) // batch_size
    return max(fitting - fitting % whole, min(fitting, whole))


def _to_host(logits: Tensor, encoding: Encoding, batch: Keys) -> OnHost | RowsOnHost:
    """What is stored of a batch, on its way to the host: of a GPU's logits sparse rows alone."""
    if not isinstance(encoding, Sparse) or not encodes_on(logits.device):
        return OnHost(logits)
    rows = encode_sparse(logits, encoding, batch[:, 0], int(batch[0, 1]))
    return RowsOnHost(rows, encoding, logits.shape[1])


class _Teacher:
    """`teacher(inputs)` → raw outputs (B, C) float32 on the device, which the next call may overwrite. The network has
    at most `settings.batch_size` inputs at a time.
    """

    def __init__(
        self,
        network: nn.Module,
        device: torch.device,
        settings: CacheSettings,
        record: bool,
        recorder: Recorder[Tensor] | None = None,
    ) -> None:
        """recorder: that of `Recorded`, for any device; by default a GPU's is recorded."""
        self._network, self._device, self._settings = network, device, settings
        can = device.type == "cuda" or recorder is not None
        self._recorded = Recorded(self._compute, recorder) if record and can else None

    def __call__(self, inputs: Inputs) -> Tensor:
        if isinstance(inputs, dict):
            return self._compute(inputs)
        parts = inputs.split(self._settings.batch_size)
        if len(parts) == 1:
            return self._of_batch(inputs)
        first = self._of_batch(parts[0])
        outputs = first.new_empty(len(inputs), first.shape[1])
        for place, part in zip(outputs.split(self._settings.batch_size), parts, strict=True):
            place.copy_(first if part is parts[0] else self._of_batch(part))
        return outputs

    def _of_batch(self, inputs: Tensor) -> Tensor:
        if self._recorded is None:
            return self._compute(inputs)
        return self._recorded(inputs.to(self._device, non_blocking=True))

    def _compute(self, inputs: Inputs) -> Tensor:
        return forward(self._network, inputs, self._device, self._settings.precision).float()


_with_filters: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _has_filters(network: nn.Module) -> bool:
    """Whether a network has weights that the channels_last memory format is for. One without, such as an mlp, would
    only bring its images back from it, in several times the time of its arithmetic.
    """
    if network not in _with_filters:
        weights = itertools.chain(network.parameters(), network.buffers())
        _with_filters[network] = any(is_lazy(weight) or weight.ndim == 4 for weight in weights)
    return _with_filters[network]


@torch.inference_mode()
def forward(network: nn.Module, inputs: Inputs, device: torch.device, precision: str) -> Tensor:
    """Raw outputs (B, C) of the teacher in evaluation mode, on the device. Does not wait for a GPU to compute them."""
    network.eval()
    on_device = to_device(inputs, device, channels_last=_has_filters(network))
    with autocast(device, precision):
        return checked_forward(network, on_device, "cache.batch_size")


def teacher_logits(
    network: nn.Module, inputs: Inputs, device: torch.device, precision: str
) -> NDArray[np.float32]:
    """Raw outputs (B, C) float32 of the teacher in evaluation mode, on the host."""
    return forward(network, inputs, device, precision).float().cpu().numpy()
