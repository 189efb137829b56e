"""Training one network on several ranks where the loss is a mean over rows: each rank computes the loss of its rows.

Outputs of a language model are far larger than its gradients, and need not be sent: the gradient of the mean over all
rows is that of each rank's mean, weighted with how many of the rows are its own. The mean of the ranks' means would be
another one, as texts differ in length.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from decant.pipeline.config.settings import Training
from decant.pipeline.objectives import Terms
from decant.pipeline.support.notices import say_once
from decant.pipeline.training.data_parallel import DataParallel
from decant.pipeline.training.device import Inputs, autocast
from decant.pipeline.training.forward import Call, Criterion, forward, name_of
from decant.pipeline.training.group import Group, naming_loss


def parallel_of(network: nn.Module, settings: Training, group: Group, call: Call) -> DataParallel:
    """How several ranks train a network: one that is called in a way of its own has a loss that is a mean over rows."""
    if call is forward:
        return DataParallel(network, settings, group)
    return MeanParallel(network, settings, group, call)


class MeanParallel(DataParallel):
    """Forward and backward pass of a network on this rank's samples, where the criterion is a mean over rows of which
    samples have different numbers.
    """

    def __init__(self, network: nn.Module, settings: Training, group: Group, call: Call) -> None:
        """`call` calls the network, perhaps without its last layer. Every rank must call it."""
        super().__init__(_WithLoss(network, call, settings.precision), settings, group)
        self._looks = True

    def terms(
        self,
        criterion: Criterion,
        inputs: Inputs,
        targets: list[Tensor],
        progress: float,
        size: int,
        setting: str,
    ) -> tuple[Terms, Tensor]:
        """The terms of the whole batch, of `size` rows on all ranks, and what this rank differentiates."""
        rows = len(targets[0])
        divided = rows < size  # too few samples are computed whole by every rank; each has a row or more
        self._draw(divided)
        before = self._random_state(targets[0].device)
        own = self.network(criterion, inputs, targets, progress, setting)
        if divided:
            self._say_draws(before, self._random_state(targets[0].device))
        share = rows / size if divided else 1 / self.group.count
        return self._summed(own, share), own.total * (share * self.group.count)

    @staticmethod
    def _may_leave_out(network: nn.Module) -> bool:
        """A mixture of experts may have one that no token of a batch comes to; a network of images too is given none;
        and layers may be dropped at random.
        """
        whole = getattr(network.network, "config", None)
        config = getattr(whole, "text_config", whole)
        if config is None or config is not whole:
            return True
        return any(
            ("expert" in name and name[0] != "_") or ("layerdrop" in name and value)
            for name, value in vars(config).items()
        )

    def _summed(self, own: Terms, share: float) -> Terms:
        """The sum over the ranks of terms times the share of each."""
        zero = torch.zeros_like(own.total, dtype=torch.float32)
        values = torch.stack([zero if term is None else term.detach().float() for term in own]) * share
        with naming_loss():
            dist.all_reduce(values)
        total, hard, soft = values
        return Terms(total, None if own.hard is None else hard, None if own.soft is None else soft)

    def _draw(self, divided: bool) -> None:
        """Makes random numbers a function of seed, step and, where the batch is divided, rank: so that a checkpoint,
        which one rank writes, need not have the state of all.
        """
        own = self.group.rank + 1 if divided else 0
        (seed,) = np.random.SeedSequence([self._settings.seed, self.step, own]).generate_state(1, np.uint64)
        torch.manual_seed(int(seed) >> 1)

    def _random_state(self, device: torch.device) -> Tensor | None:
        if not self._looks:
            return None
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()

    def _say_draws(self, before: Tensor | None, after: Tensor | None) -> None:
        """Says once that a network draws random numbers, which are others on each number of ranks."""
        self._looks = False
        if before is not None and after is not None and not torch.equal(before, after):
            say_once(
                f"{name_of(self.of)}: draws random numbers, as for dropout, and others on each number of ranks: its "
                f"weights on {self.group.count:,} are not those of one process, but as good"
            )


class _WithLoss(nn.Module):
    """A network, called in a way of its own, and its loss, which may use the weight of the last layer: so what is used
    of the network is found from the loss.
    """

    def __init__(self, network: nn.Module, call: Call, precision: str) -> None:
        super().__init__()
        self.network, self._call, self._precision = network, call, precision
        self.described = name_of(network)

    def forward(
        self, criterion: Criterion, inputs: Inputs, targets: list[Tensor], progress: float, setting: str
    ) -> Terms:
        with autocast(targets[0].device, self._precision):
            outputs = self._call(self.network, inputs, setting)
        loss = criterion(outputs, *targets, progress=progress)
        return loss if isinstance(loss, Terms) else Terms(loss)
