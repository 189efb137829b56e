"""One batch of training: forward, loss, backward, and perhaps a step of the optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction

from decant.pipeline.config.settings import Training
from decant.pipeline.objectives import Terms
from decant.pipeline.training.data_parallel import DataParallel
from decant.pipeline.training.device import Inputs, autocast, to_device
from decant.pipeline.training.divergence import section_of
from decant.pipeline.training.forward import Call, Criterion, forward
from decant.pipeline.training.optimizer import Stepper
from decant.pipeline.training.recorded import Recorded, Recorder

Batch = tuple[Any, ...]
"""What a dataset yields: inputs (B, …), then labels, and for a distilled student teacher logits."""

Gradients = list[Tensor | None]
"""Of each parameter; None where it has none."""


class Step:
    """`step(batch, progress)` → the terms of the loss, without their graph, and the size of the batch."""

    def __init__(
        self,
        network: nn.Module,
        criterion: Criterion,
        stepper: Stepper,
        settings: Training,
        record: bool = False,
        recorder: Recorder[tuple[Terms, Gradients]] | None = None,
        parallel: DataParallel | None = None,
        call: Call = forward,
        setting: str = "batch_size",
    ) -> None:
        """With `record`, forward and backward pass are recorded and replayed where nothing stands against it: no
        accumulated gradients, no scaler, no compiled network. `recorder` is that of `Recorded`. With `parallel` a batch
        has the rows of this rank, and loss and gradient are those of the whole batch.
        """
        self.network, self.criterion, self.stepper, self.settings = network, criterion, stepper, settings
        self.parallel, self._call = parallel, call
        self._parameters = list(network.parameters())
        self.setting = f"{section_of(settings)}.{setting}"
        """What is named where memory runs out."""
        self._device = self._parameters[0].device
        self._autocast = autocast(self._device, settings.precision)
        self._computes_as_it_is = settings.precision == "float32"
        self._recorded: Recorded[tuple[Terms, Gradients]] | None = None
        if record and settings.accumulate == 1 and stepper.scaler is None and not settings.compile:
            self._recorded = Recorded(self._with_gradients, recorder)

    def __call__(
        self, batch: Batch, progress: float, size: int | None = None, last: bool = False, number: int = 0
    ) -> tuple[Terms, int]:
        """`size` is that of the whole batch, of which `batch` may be the rows of this rank; None is that of `batch`.
        A step of the optimizer follows the `last` batch of an epoch, also where others would be added to it. `number`
        counts batches since training began.
        """
        inputs = to_device(batch[0], self._device, self.settings.channels_last)
        targets = [
            value
            if isinstance(value, Tensor) and value.device == self._device
            else value.to(self._device, non_blocking=True)
            for value in batch[1:]
        ]
        size = len(targets[0]) if size is None else size
        if self.parallel is not None:
            self.parallel.step = number
            with self.parallel.adding_up(last or self.stepper.steps_next):
                terms = self._differentiate_part(self.parallel, inputs, targets, progress, size)
        elif self._recorded is None or isinstance(inputs, dict) or targets[0].ndim != 1:
            terms = self._differentiate(inputs, targets, progress)
        else:
            replayed, gradients = self._recorded(inputs, *targets)
            terms = _copied(replayed)  # the next replay writes over what this one returned
            for parameter, gradient in zip(self._parameters, gradients, strict=True):
                parameter.grad = gradient
        self.stepper.count(size)
        if last:
            self.stepper.finish()
        return terms, size

    def _differentiate(self, inputs: Inputs, targets: Sequence[Tensor], progress: float = 0.0) -> Terms:
        """Forward and backward pass. Nothing that is returned holds the graph of the loss, whose nodes would tie a
        recording to the stream of the step before it.
        """
        if self._computes_as_it_is and not torch.is_autocast_enabled(self._device.type):
            # A context that changes nothing takes its time.
            outputs = self._call(self.network, inputs, self.setting)
        else:
            with self._autocast:
                outputs = self._call(self.network, inputs, self.setting)
        loss = self.criterion(outputs, *targets, progress=progress)
        terms = loss if isinstance(loss, Terms) else Terms(loss)
        self.stepper.backward(terms.total, len(outputs))
        return _detached(terms)

    def _with_gradients(self, inputs: Inputs, *targets: Tensor) -> tuple[Terms, Gradients]:
        """The same, as it is recorded."""
        terms = self._differentiate(inputs, targets)
        return terms, [parameter.grad for parameter in self._parameters]

    def _differentiate_part(
        self, parallel: DataParallel, inputs: Inputs, targets: list[Tensor], progress: float, size: int
    ) -> Terms:
        """The same of the rows of this rank, of a batch of `size`: the terms are those of the whole batch."""
        terms, own = parallel.terms(self.criterion, inputs, targets, progress, size, self.setting)
        self.stepper.backward(own, size)
        return _detached(terms)


def _detached(terms: Terms) -> Terms:
    """Without their graph, to be kept. A term whose memory the next call of the criterion may write over is copied."""
    hard, soft = (None if term is None else _kept(term) for term in (terms.hard, terms.soft))
    return Terms(_kept(terms.total), hard, soft)


def _kept(term: Tensor) -> Tensor:
    return term.detach() if _has_memory_of_its_own(term) else term.clone().detach()


def _has_memory_of_its_own(term: Tensor) -> bool:
    """Whether an operator of PyTorch has just made it. Without a graph it may be a buffer of the criterion's; a
    function of Python, as what `torch.compile(mode="reduce-overhead")` makes of a criterion, may fill the same memory
    each time.
    """
    made_by = term.grad_fn
    return not (made_by is None or isinstance(made_by, BackwardCFunction) or term._is_view() or term._version)


def _copied(terms: Terms) -> Terms:
    hard, soft = (None if term is None else term.clone() for term in (terms.hard, terms.soft))
    return Terms(terms.total.clone(), hard, soft)
