"""Training one network on several ranks: each computes its rows of every batch, and all take the same step.

Every rank computes the loss of the whole batch, from the outputs of all ranks, and its gradient through the rank's own
rows. The sum of these gradients is the gradient of one process. That holds for any loss: a mean over the labelled
samples alone, one with weights, or a relation between samples. Outputs are small beside gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from decant.pipeline.config.settings import Training
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives import Terms
from decant.pipeline.support.notices import say_once
from decant.pipeline.training.device import Inputs, autocast
from decant.pipeline.training.divergence import section_of
from decant.pipeline.training.forward import Criterion, forward, name_of
from decant.pipeline.training.group import Group, naming_loss
from decant.pipeline.training.whole_batch import WholeBatch


def divided(group: Group, settings: Training, counts_samples: bool = True) -> Group:
    """The ranks as they divide the batches of a training, which are of `settings.batch_size` samples where
    `counts_samples`. Raises RecipeError where they cannot.
    """
    section, own = section_of(settings), settings.batch_norm_ranks
    if own is not None and own != group.count:
        raise RecipeError(
            f"{section}.batch_norm_ranks: {own:,} ranks take the statistics of their own shares, and the job has "
            f"{group.count:,}; start it on {own:,}, or leave this out, and statistics are those of the whole batch"
        )
    if group.count == 1:
        return group
    group = replace(group, least=1 if own is None else 2)
    if counts_samples and not group.divides(settings.batch_size):
        least = group.least * group.count
        raise RecipeError(
            f"{section}.batch_size: {settings.batch_size:,} samples are too few for {group.count:,} ranks: it is the "
            f"batch of all ranks together; set it to {least:,} or more, or start fewer ranks"
        )
    return group


class DataParallel:
    """Forward and backward pass of a network on this rank's rows, as parts of those of the whole batch."""

    def __init__(self, network: nn.Module, settings: Training, group: Group) -> None:
        """`group` is that of `divided`. The network of rank 0 is copied to all. Every rank must call it."""
        self.group, self._synchronise = group, settings.batch_norm_ranks is None
        self.of, self._first_batch, self._settings = network, True, settings
        self.step = 0
        """The number of the batch since training began, by which random numbers may be drawn."""
        for known in ("Grad strides do not match", "find_unused_parameters=True", "`broadcast_buffers` is"):
            warnings.filterwarnings("ignore", message=known)  # none is a mistake of the user's
        self.network = _Summed(
            network, broadcast_buffers=False, find_unused_parameters=self._may_leave_out(network)
        )

    @staticmethod
    def _may_leave_out(network: nn.Module) -> bool:
        """Whether a step may leave out some of the parameters."""
        return ":" in name_of(network)

    @contextmanager
    def adding_up(self, last: bool) -> Iterator[None]:
        """Around forward and backward pass: gradients are summed over the ranks in the `last` batch of a step alone."""
        with naming_loss(), nullcontext() if last else self.network.no_sync():
            yield

    @contextmanager
    def forward(self, size: int) -> Iterator[None]:
        """The forward pass of a batch of `size` samples, of which this rank has its rows."""
        if not self.group.divides(size):
            yield
            return
        watched = next(self.of.parameters()).device if self._first_batch else None
        with WholeBatch(self.group, size, self._synchronise, watched) as whole:
            yield
        if whole.draws_of_others:
            say_once(
                f"{name_of(self.of)}: draws random numbers beside those of dropout, and others on each number "
                f"of ranks: its weights on {self.group.count:,} are not those of one process, but as good"
            )
        self._first_batch = False

    def terms(
        self,
        criterion: Criterion,
        inputs: Inputs,
        targets: list[Tensor],
        progress: float,
        size: int,
        setting: str,
    ) -> tuple[Terms, Tensor]:
        """The terms of the loss of the whole batch, of `size`, and what this rank differentiates. `setting` is named
        where memory runs out.
        """
        with self.forward(size), autocast(targets[0].device, self._settings.precision):
            own = forward(self.network, inputs, setting)
        outputs, targets = self.whole(own, targets, size)
        loss = criterion(outputs, *targets, progress=progress)
        terms = loss if isinstance(loss, Terms) else Terms(loss)
        return terms, terms.total * self.factor(size)

    def whole(self, outputs: Tensor, targets: list[Tensor], size: int) -> tuple[Tensor, list[Tensor]]:
        """The outputs and targets of the whole batch."""
        everyones = self.group.gather([outputs, *targets], size)
        return everyones[0], everyones[1:]

    def factor(self, size: int) -> int:
        """What the loss is multiplied by, so that the mean of the gradients of all ranks is their sum; or the gradient
        of each, where every rank has all rows.
        """
        return self.group.count if self.group.divides(size) else 1


class _Summed(DistributedDataParallel):
    """Has what messages say of the network inside it."""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)
