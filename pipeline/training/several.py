"""Networks of one kind, as students of several seeds are, trained in one loop: each as if it were trained alone.

A batch holds those of all networks, one after the other, and is made and copied once. On a GPU the step of all is one
CUDA graph, in which each network is a branch, so that the kernels of small networks run side by side, where those of
one network leave most of the GPU idle. Every network is computed by the kernels that compute it alone: no operator is
another, so batch normalisation, and any loss, is as ever.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from decant.pipeline.config.settings import Training
from decant.pipeline.errors import DivergedError
from decant.pipeline.objectives import Terms
from decant.pipeline.support.progress import progress
from decant.pipeline.training.background import Beside
from decant.pipeline.training.device import stream_for
from decant.pipeline.training.forward import Criterion, name_of
from decant.pipeline.training.learner import Learner
from decant.pipeline.training.loading import BatchedData, EpochKeys, EpochViews, Keys, ShuffledKeys
from decant.pipeline.training.loop import batches_of, counted, require_batches, train_epoch
from decant.pipeline.training.optimizer import Stepper, make_optimizer
from decant.pipeline.training.partial_epoch import PartialEpoch, Regularly, RunningLoss
from decant.pipeline.training.recorded import Recorder
from decant.pipeline.training.step import Gradients, Step

Found = TypeVar("Found")


class Branches:
    """Calls of which none needs what another gives.

    >>> Branches(3, torch.device("cpu"))(lambda place: 2 * place)
    [0, 2, 4]
    """

    def __init__(self, count: int, device: torch.device) -> None:
        self.count, self._device = count, device

    def __call__(self, call: Callable[[int], Found]) -> list[Found]:
        """`call(0)`, …, `call(count − 1)`: while a CUDA graph is recorded each is a branch of it, and otherwise they
        are made one after the other.
        """
        if self._device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            return [call(place) for place in range(self.count)]
        streams = [stream_for(self._device, f"branch {place}") for place in range(self.count)]
        trunk, found = torch.cuda.current_stream(), list[Found]()
        for place, stream in enumerate(streams):
            stream.wait_stream(trunk)
            with torch.cuda.stream(stream):
                found.append(call(place))
        for stream in streams:
            trunk.wait_stream(stream)
        return found


class SeveralNetworks(nn.Module):
    """Networks as one: of inputs (S·B, …) each of S networks takes its B in order; outputs are (S·B, C).

    >>> both = SeveralNetworks([nn.Identity(), nn.Flatten(0)], torch.device("cpu"))
    >>> both(torch.tensor([1, 2, 3, 4])).tolist()
    [1, 2, 3, 4]
    """

    def __init__(self, networks: Sequence[nn.Module], device: torch.device) -> None:
        super().__init__()
        self.networks, self.branches = nn.ModuleList(networks), Branches(len(networks), device)
        self.described = name_of(networks[0])
        self.num_outputs = getattr(networks[0], "num_outputs", None)

    def forward(self, inputs: Tensor) -> Tensor:
        own = inputs.chunk(len(self.networks))
        return torch.cat(self.branches(lambda place: self.networks[place](own[place])))


class _SeveralSteps(Stepper):
    """The steps of several networks: gradients are those of each network's own loss, and clipped network by network."""

    def backward(self, loss: Tensor, size: int) -> None:
        """The same of the losses (S,) of batches of `size` / S samples each."""
        super().backward(loss.sum(), size // len(loss))

    def clip(self, norm: float) -> None:
        """Clips the gradients of each network to a norm."""
        assert isinstance(self.network, SeveralNetworks)
        for network in self.network.networks:
            nn.utils.clip_grad_norm_(network.parameters(), norm)


class _SeveralKeys(EpochKeys):
    """The batches of several networks, those of one step in one."""

    def __init__(self, each: Sequence[ShuffledKeys]) -> None:
        self._each = each

    def __len__(self) -> int:
        return len(self._each[0])

    def of_epoch(self, epoch: int, first: int = 0) -> Iterator[Keys]:
        """The batches of any epoch, from batch number `first` on."""
        for batches in zip(*(keys.of_epoch(epoch, first) for keys in self._each), strict=True):
            yield np.concatenate(batches)

    def size_of(self, batch: int) -> int:
        """Samples of one network in a batch."""
        return self._each[0].size_of(batch)


@dataclass(frozen=True)
class _Given:
    """What all networks have in common."""

    data: BatchedData
    criterion: Criterion
    views: EpochViews
    shares: NDArray[np.float64] | None
    device: torch.device
    lazy: bool
    record: bool
    recorder: Recorder[tuple[Terms, Gradients]] | None

    def keys(self, settings: Training) -> ShuffledKeys:
        """The batches of a network alone."""
        return ShuffledKeys(len(self.data), settings.batch_size, settings.seed, self.views, self.shares)


class _Loop:
    """The steps of networks that are at the same place of their trainings."""

    def __init__(self, learners: Sequence[Learner], given: _Given, advance: Callable[[int], None]) -> None:
        self.learners, self._device, self._advance = learners, given.device, advance
        self._settings: Training = learners[0].settings
        network = SeveralNetworks([learner.network for learner in learners], given.device)
        self._optimizer = make_optimizer(network, self._settings, given.device)
        frozen = [module for learner in learners for module in learner.frozen]
        stepper = _SeveralSteps(network, self._optimizer, self._settings, None, frozen)
        stepper.after_step = self._average
        loss = partial(_each_loss, given.criterion, network.branches)
        self._step = Step(network, loss, stepper, self._settings, given.record, given.recorder)
        self._keys = _SeveralKeys([given.keys(learner.settings) for learner in learners])
        self._batches = batches_of(given.data, self._keys, given.lazy, given.device, self._settings.epochs)

    def end_epoch(self) -> dict[Learner, DivergedError]:
        """Trains the rest of the epoch; returns the networks whose training ends with it, as they have diverged."""
        epoch, part = self.learners[0].done, self._begun()
        self._keys.epoch, self._keys.first = epoch, part.batches
        for learner in self.learners:
            self._optimizer.state.update(learner.optimizer.state)
        batches = counted(self._batches(), self._advance, len(self.learners))
        regularly = Regularly(self._settings, lambda: self._keep(part))
        train_epoch(self._step, batches, self._settings, epoch, self._keys, part, regularly)
        with Beside() as beside:
            return self._each(part, partial(self._end, beside))

    def _end(self, beside: Beside, learner: Learner, part: PartialEpoch) -> None:
        """The disk takes the checkpoint of a network while others are measured."""
        learner.end_epoch(part, {"together": len(self.learners)}, writes=False)
        beside(learner.write_checkpoint)

    def _keep(self, part: PartialEpoch) -> None:
        """Checkpoints within the epoch. A network that has diverged has none, and ends with the epoch."""
        self._each(part, lambda learner, own: learner.keep_part(own))

    def _begun(self) -> PartialEpoch:
        """What is done of the epoch, the same number of batches of each network."""
        parts = list[PartialEpoch]()
        for learner in self.learners:
            parts.append(PartialEpoch(RunningLoss(learner.done + 1, None)))
            if learner.within is not None:
                parts[-1].load(learner.within, self._device)
        return PartialEpoch.joined(parts)

    def _each(
        self, part: PartialEpoch, call: Callable[[Learner, PartialEpoch], None]
    ) -> dict[Learner, DivergedError]:
        diverged = dict[Learner, DivergedError]()
        for learner, own in zip(self.learners, part.divided(len(self.learners)), strict=True):
            self._give_back(learner)
            try:
                call(learner, own)
            except DivergedError as error:
                diverged[learner] = error
        return diverged

    def _give_back(self, learner: Learner) -> None:
        """Gives a network's own optimizer its part of the state."""
        for own, all_of_it in zip(learner.optimizer.param_groups, self._optimizer.param_groups, strict=True):
            own["lr"] = all_of_it["lr"]
            of_it = {one: self._optimizer.state[one] for one in own["params"] if one in self._optimizer.state}
            learner.optimizer.state.update(of_it)

    def _average(self) -> None:
        for learner in self.learners:
            if learner.average is not None:
                learner.average.after_step()


def train_together(
    learners: Sequence[Learner],
    data: BatchedData,
    criterion: Criterion,
    *,
    views: EpochViews,
    shares: NDArray[np.float64] | None = None,
    device: torch.device,
    lazy: bool = False,
    steps_alike: bool = False,
    description: str = "training",
    recorder: Recorder[tuple[Terms, Gradients]] | None = None,
) -> dict[Learner, DivergedError]:
    """Trains networks in one loop, as `loop.train` trains one, from their checkpoints where there are some. Their
    settings must differ in the seed alone; networks and loss must draw no random numbers, whose order would be another.
    `recorder` is that of `Recorded`, for a device that is no GPU.

    Each has the order, the views, the gradients, the clipping, the optimizer's state, the checkpoints and the metrics
    that it has when it is trained alone, bit for bit where kernels give the same each time, as on a CPU. `seconds` of
    metrics.jsonl are a network's share of the loop's, and `together` says how many networks were in it. Networks whose
    checkpoints are not of the same step, as after a kill, meet where the first of them is behind no more.

    Returns those that have diverged, which end there while the others go on; call `finish` of the others.
    """
    settings = learners[0].settings
    record = recorder is not None or (steps_alike and device.type == "cuda" and settings.cuda_graphs)
    given = _Given(data, criterion, views, shares, device, lazy, record, recorder)
    for learner in learners:
        learner.resume()
    if not all(learner.is_over for learner in learners):
        require_batches(learners[0].network, data, settings, device)
    diverged, batches = dict[Learner, DivergedError](), len(given.keys(settings))
    loop: _Loop | None = None
    with contextlib.ExitStack() as stack:
        for learner in learners:
            stack.enter_context(learner)
        advance = stack.enter_context(progress(description, settings.epochs * batches * len(learners)))
        advance(sum(learner.done * batches + _begun(learner) for learner in learners))
        while left := [one for one in learners if not one.is_over and one not in diverged]:
            place = min((one.done, _begun(one)) for one in left)
            now = [one for one in left if (one.done, _begun(one)) == place]
            if loop is None or loop.learners != now:
                loop = _Loop(now, given, advance)
            diverged |= loop.end_epoch()
    return diverged


def _begun(learner: Learner) -> int:
    """Batches of the next epoch that are done."""
    return 0 if learner.within is None else int(learner.within["batches"])


def _each_loss(
    criterion: Criterion, branches: Branches, outputs: Tensor, *targets: Tensor, progress: float
) -> Terms:
    """The terms of each network's loss, (S,)."""
    rows: list[Any] = [value.chunk(branches.count) for value in (outputs, *targets)]

    def terms(place: int) -> Terms:
        loss = criterion(*(value[place] for value in rows), progress=progress)
        return loss if isinstance(loss, Terms) else Terms(loss)

    each = branches(terms)
    total, hard, soft = (None if one[0] is None else torch.stack(one) for one in zip(*each, strict=True))
    assert total is not None
    return Terms(total, hard, soft)
