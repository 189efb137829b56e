"""The teacher's pass over views of samples that have one row each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from decant.cache import Head, LogitCacheWriter, Positions
from decant.pipeline.config.settings import CacheSettings
from decant.pipeline.data.image_folder import PackedData
from decant.pipeline.data.samples import check_unchanged
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import require_trainable
from decant.pipeline.phases.teacher_pass import fill, forward
from decant.pipeline.phases.untrainable import say_if_untrainable
from decant.pipeline.ranks.launch import is_first
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.source_code import is_users
from decant.pipeline.training import handout
from decant.pipeline.training.forward import name_of
from decant.pipeline.training.handout import Run, Units
from decant.pipeline.training.on_device import device_views
from decant.pipeline.training.steadiness import doubt_of_outputs
from decant.pipeline.training.teacher_rows import units_of, written_rows
from decant.pipeline.views import ViewedData

_PROBES = 32
"""Samples whose answers are looked at twice: enough for a mean, and no time of the pass."""


class ViewsPass:
    """See `passes.TeacherPass`."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.positions: Positions | None = None
        self.head: Head | None = None

    def units(self, writer: LogitCacheWriter, processes: int) -> list[Run]:
        """Runs of whole blocks, or of whole batches, and then single batches."""
        units = self._units(writer, processes)
        return handout.divided_at_the_end(units, processes, units.batches)

    def part(self, writer: LogitCacheWriter, number: int, of: int) -> list[Run]:
        """The runs of a part."""
        return handout.part(self._units(writer, of), number, of)

    def _units(self, writer: LogitCacheWriter, processes: int) -> Units:
        return units_of(writer.manifest, self._plan.settings.cache.batch_size, processes)

    def fill(
        self,
        writer: LogitCacheWriter,
        device: torch.device,
        units: Iterable[Run] | None = None,
        advance: Callable[[int], object] | None = None,
    ) -> int:
        """Computes the rows of runs that are missing."""
        plan, viewed = self._plan, self._plan.data.student_train
        first = next(left := iter(units), None) if units is not None else None
        if (units is not None and first is None) or all(map(np.all, written_rows(writer))):
            return 0
        say_if_untrainable(partial(require_trainable, plan))
        teacher = plan.teacher
        with ThreadPoolExecutor(1) as thread:
            # While the network is read, data are copied to a GPU, or files begin to be decoded.
            held = thread.submit(device_views, viewed, device)
            if isinstance(viewed.data, PackedData):
                thread.submit(viewed.data.raw, _first(viewed, plan.settings.cache))
            network = load_network(teacher)
            if is_first():
                _say_doubt(network, viewed, plan.settings.cache, device)
            return fill(
                writer,
                viewed,
                network,
                plan.settings.cache,
                device,
                same_every_batch=plan.settings.teacher.cuda_graphs and not is_users(teacher.network.name),
                runs=None if first is None else itertools.chain([first], left),
                advance=advance,
                held=held.result,
            )

    def require_unchanged(self) -> None:
        """Raises CorruptError where the data have changed since the teacher saw them."""
        check_unchanged(self._plan.data.student_data, checksums=True)


def _first(viewed: ViewedData, settings: CacheSettings) -> NDArray[np.int64]:
    """The samples whose answers are looked at twice."""
    return np.arange(min(settings.batch_size, len(viewed), _PROBES))


def _say_doubt(network: nn.Module, viewed: ViewedData, settings: CacheSettings, device: torch.device) -> None:
    """Says where the teacher's answers to the first samples are others each time, or in another batch."""
    first = _first(viewed, settings)
    inputs, _ = viewed.batch(np.stack([first, np.zeros_like(first)], axis=1))
    network.to(device).to(memory_format=torch.channels_last)
    doubt = doubt_of_outputs(lambda some: forward(network, some, device, settings.precision), inputs)
    if doubt is not None:
        say_once(f"warning: {name_of(network)}: {doubt}; what its one pass gives is cached")
