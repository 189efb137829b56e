"""The teacher's pass over views of one's own: batches in order, logits and checksums of every missing row."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate

from decant.cache import LogitCacheWriter, Manifest, input_crc32, pick, recognise, warn
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.own_loop import teacher as teachers
from decant.pipeline.own_loop.dataset import Views
from decant.pipeline.own_loop.labels import Labels
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import in_words
from decant.pipeline.support.progress import progress
from decant.pipeline.training.device import OnHost, autocast
from decant.pipeline.training.handout import Run, Units, whole
from decant.pipeline.training.loading import Keys, MissingKeys, loader
from decant.pipeline.training.teacher_rows import Rows, units_of, write_missing_rows, written_rows

Collate: TypeAlias = Callable[[list[Any]], Any]
"""Makes a batch of a list of inputs."""

_TIMED_BATCHES = 5
_ROUNDING = 2**-5


class TeacherBatches:
    """Batches of (index, view) keys as the teacher takes them, with labels and checksums."""

    def __init__(self, views: Views, collate: Collate | None) -> None:
        self.views, self.collate = views, collate or default_collate

    def __len__(self) -> int:
        return len(self.views)

    def batch(self, keys: Keys) -> tuple[Any, list[Any], NDArray[np.uint32]]:
        """(inputs (B, …), labels, CRC-32 (B,) of what student and teacher share). Raises DataError."""
        items, shared, labels = self.views.read_for_teacher(keys)
        inputs = [self._input(item) for item in items]
        try:
            batch = self.collate(inputs)
        except RAISED as error:
            raise DataError(
                f"views: {len(inputs)} inputs of type {type(inputs[0]).__name__} cannot be made a batch "
                f"({in_words(error)}); end the transform with one that gives tensors of one shape, or give collate=…"
            ) from error
        return (
            batch,
            [_plain(label) for label in labels],
            np.array([input_crc32(value) for value in shared], np.uint32),
        )

    def _input(self, item: Any) -> Any:
        keys = self.views.item_keys
        if isinstance(item, Mapping) and not _has(item, keys[0]):
            keys = recognise(item) or keys  # the teacher's own part may have renamed them
        return pick(item, keys)[0]


class TeacherPass:
    """A teacher that is ready to run; as a context manager it is in evaluation mode on its device."""

    def __init__(
        self,
        teacher: teachers.Teacher,
        views: Views,
        device: torch.device,
        precision: str,
        batch_size: int,
        num_workers: int,
        output: teachers.Output,
        collate: Collate | None,
        show_progress: bool,
    ) -> None:
        self._show_progress = show_progress
        self._teacher, self._device, self._precision = teacher, device, precision
        self.batch_size, self._num_workers, self._output = batch_size, num_workers, output
        self._batches = TeacherBatches(views, collate)
        self._context = contextlib.ExitStack()

    def __enter__(self) -> TeacherPass:
        self._context.enter_context(teachers.evaluating(self._teacher, self._device))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._context.close()

    @cached_property
    def num_outputs(self) -> int:
        """C, from one batch of at most two samples. Raises ModelError where the teacher's answers to it change; warns
        where its answer to a sample changes with the other sample of the batch.
        """
        inputs, twice = self._view_0([0, 1]), self._view_0([0, 0])
        first, again = self._probed(inputs), self._probed(inputs)
        if not _are_close(first, again):
            raise ModelError(
                f"{teachers.class_name(self._teacher)}: gives other logits when it is called again with the same "
                "batch, as with dropout left on; put what it calls into evaluation mode"
            )
        beside_itself = self._probed(twice)
        if len(first) > 1 and not _are_close(first[:1], beside_itself[:1]):
            change = float((first[0] - beside_itself[0]).abs().max())
            warn(
                f"{teachers.class_name(self._teacher)}: the logits of sample 0 change by {change:.3g} with the other "
                "samples of its batch, as with batch norm in training mode, or padding "
                "without an attention mask; put what it calls into evaluation mode, and give it the mask"
            )
        return int(first.shape[1])

    @property
    def name(self) -> str:
        """What messages call the teacher."""
        return teachers.class_name(self._teacher)

    @property
    def is_half(self) -> bool:
        """Whether it runs in half precision, by its weights or by autocast."""
        return self._precision != "float32" or teachers.is_half(self._teacher)

    def answers(self, keys: Keys) -> NDArray[np.float32]:
        """Logits (B, C) of a few views, as one batch. Raises ModelError where the teacher fails."""
        return self._probed((self._batches.batch(keys)[0], len(keys))).cpu().numpy()

    def _view_0(self, samples: list[int]) -> tuple[Any, int]:
        """A batch of view 0 of samples, as many as there are, and its length."""
        keys = np.array([(sample, 0) for sample in samples if sample < len(self._batches)], np.int64)
        return self._batches.batch(keys)[0], len(keys)

    def _probed(self, batch: tuple[Any, int]) -> Tensor:
        """Logits (B, C) float32 of a batch, which stays as it is: a teacher may change its inputs in place."""
        inputs, count = batch
        return self.logits(with_tensors(inputs, lambda tensor: tensor.detach().clone()), count).float()

    @torch.inference_mode()
    def logits(self, inputs: Any, count: int) -> Tensor:
        """Raw outputs (B, C), on the device."""
        moved = to_device(inputs, self._device)
        with autocast(self._device, self._precision):
            returned = teachers.call(self._teacher, moved)
        return teachers.logits_of(self._teacher, returned, count, self._output)

    def seconds_per_row(self) -> float:
        """Of reading and computing, from the third batch on, or fewer where there are not so many."""
        keys = MissingKeys(np.zeros((1, len(self._batches)), bool), self.batch_size)
        started, timed = time.perf_counter(), 0
        for number, (batch, (inputs, _, _)) in enumerate(
            zip(keys, loader(self._batches, keys, self._num_workers), strict=True)
        ):
            self.logits(inputs, len(batch)).cpu()
            timed += len(batch)
            if number == 1 and len(keys) > 2:  # what came before was starting
                started, timed = time.perf_counter(), 0
            if number == _TIMED_BATCHES:
                break
        return (time.perf_counter() - started) / timed

    def fill(self, writer: LogitCacheWriter, labels: Labels, runs: Iterable[Run] | None = None) -> int:
        """Computes and writes every missing row of runs, by default of all; returns their number."""
        num_outputs, written = writer.manifest.num_outputs, written_rows(writer)

        def answer(batch: Keys, made: tuple[Any, list[Any], NDArray[np.uint32]]) -> Callable[[], Rows]:
            inputs, given, crc32 = made
            logits = OnHost(self.logits(inputs, len(batch)).float())
            return lambda: Rows(logits.wait().numpy(), labels.stored(given, num_outputs), crc32)

        with progress("caching logits", sum(map(len, written)), silent=not self._show_progress) as advance:
            advance(int(sum(map(np.count_nonzero, written))))
            return write_missing_rows(
                writer,
                whole(units_of(writer.manifest, self.batch_size)) if runs is None else runs,
                self._batches,
                answer,
                self.batch_size,
                advance,
                workers=self._num_workers,
                ahead=False,  # a dataset of the user's may draw from generators that the teacher draws from too
            )

    def units(self, manifest: Manifest, processes: int) -> Units:
        """How the rows of a cache are handed out to processes."""
        return units_of(manifest, self.batch_size, processes)


def _are_close(first: Tensor, second: Tensor) -> bool:
    """Whether logits are the same but for the rounding of half precision."""
    scale = float(torch.nan_to_num(first.abs(), nan=0.0, posinf=0.0).max())
    return torch.allclose(first, second, rtol=_ROUNDING, atol=_ROUNDING * scale, equal_nan=True)


def to_device(inputs: Any, device: torch.device) -> Any:
    """Tensors in dictionaries and lists on a device; anything else as it is."""
    return with_tensors(inputs, lambda tensor: tensor.to(device, non_blocking=True))


def with_tensors(inputs: Any, function: Callable[[Tensor], Tensor]) -> Any:
    """Dictionaries and lists with `function` of each tensor; anything else as it is."""
    if isinstance(inputs, Tensor):
        return function(inputs)
    if isinstance(inputs, Mapping):
        return {name: with_tensors(value, function) for name, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return [with_tensors(value, function) for value in inputs]
    return inputs


def _has(item: Mapping[str, Any], key: object) -> bool:
    names = key if isinstance(key, Sequence) and not isinstance(key, str) else [key]
    return all(name in item for name in names)


def _plain(label: Any) -> Any:
    """A label without its tensor, which would take a file descriptor on its way from a worker."""
    return label.detach().cpu().numpy() if isinstance(label, Tensor) else label
