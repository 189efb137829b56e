"""One network on its way through a training: its optimizer, its averages, the epoch that is kept, and its folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import nn

from decant.pipeline.config.settings import Training
from decant.pipeline.config.tasks import Metrics
from decant.pipeline.support.allocator import freed_memory_kept
from decant.pipeline.training.averaging import Average
from decant.pipeline.training.checkpoint import (
    Kept,
    Resumed,
    SparingWriter,
    resume,
    save_checkpoint,
    save_epoch,
)
from decant.pipeline.training.choosing import Choice
from decant.pipeline.training.device import make_scaler
from decant.pipeline.training.divergence import require_finite, section_of
from decant.pipeline.training.epoch_log import Epoch
from decant.pipeline.training.frozen import freeze
from decant.pipeline.training.group import ALONE, Group
from decant.pipeline.training.optimizer import make_optimizer
from decant.pipeline.training.partial_epoch import PartialEpoch


class Learner:
    """A network that is trained as `settings` say, from the checkpoint in `folder` where there is one. What makes its
    steps is elsewhere: in `loop` for one network, in `several` for many. That is done within it as a context: where it
    is left, by an error too, the checkpoint of the last epoch that was ended is there.
    """

    def __init__(
        self,
        network: nn.Module,
        settings: Training,
        folder: Path,
        *,
        evaluate_on: Callable[[nn.Module], Metrics],
        measured_on: Literal["test", "validation"] = "test",
        device: torch.device,
        check_unchanged: Callable[[], None] = lambda: None,
        log: Callable[[Epoch], None] = lambda line: None,
        group: Group = ALONE,
    ) -> None:
        """Moves the network to `device`, and freezes what is not trained."""
        self.network, self.settings, self.folder, self.group = network, settings, folder, group
        self._evaluate_on, self._measured_on = evaluate_on, measured_on
        self._check_unchanged, self._log = check_unchanged, log
        self._write = SparingWriter()
        self._device, self._memory = device, contextlib.ExitStack()
        network.to(device)
        if settings.channels_last:
            network.to(memory_format=torch.channels_last)
        section = section_of(settings)
        self.scaler = make_scaler(device, settings.precision, f"{section}.precision")
        self._trainable = [parameter for parameter in network.parameters() if parameter.requires_grad]
        self.frozen = (
            freeze(network, settings.freeze, f"{section}.freeze")
            if settings.freeze and settings.epochs
            else ()
        )
        self.optimizer = make_optimizer(network, settings, device)
        self.average = Average(network, settings) if settings.average else None
        chooses = settings.chooses and measured_on == "validation"
        self._choice = Choice(settings) if chooses else None
        self._kept = Kept(network, self.optimizer, self.scaler, self.average, self._choice)
        self.done = 0
        """Epochs that are done."""
        self.within: dict[str, Any] | None = None
        """What a checkpoint keeps of the next epoch, of which a part is done; None where it begins anew."""

    def resume(self) -> Resumed:
        """Goes on from the checkpoint, where there is one; of several ranks each must call it. Raises DamagedError for
        a file that is no checkpoint of this network.
        """
        found = resume(self.folder, self._kept, self.group)
        self.done, self.within = found
        return found

    def __enter__(self) -> Self:
        if self._device.type == "cpu":
            self._memory.enter_context(freed_memory_kept())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._memory, contextlib.suppress(OSError) if error is not None else contextlib.nullcontext():
            self._write.flush()

    @property
    def is_over(self) -> bool:
        """Whether no epoch is left to be trained."""
        over = self._choice is not None and self._choice.is_over(self.done)
        return over or self.done >= self.settings.epochs

    def keep_part(self, part: PartialEpoch) -> None:
        """Writes a checkpoint within an epoch, unless what was computed is not to be kept, which raises."""
        require_finite(part.means, self.done + 1, self.settings, self.folder)
        self._check_unchanged()
        save_checkpoint(self.folder, self._kept, self.done, part, self._write.at_once)

    def end_epoch(
        self, part: PartialEpoch, more: Mapping[str, Any] | None = None, writes: bool = True
    ) -> None:
        """Measures the network after an epoch, all of whose batches are in `part`, and writes the line of metrics.jsonl
        with what `more` adds to it, then the checkpoint, unless `writes` is false: then `write_checkpoint` does that,
        which any thread may call. Raises DivergedError before either where a number is none.
        """
        epoch, settings, losses = self.done + 1, self.settings, part.means
        require_finite(losses, epoch, settings, self.folder)
        if self.average is not None:
            self.average.after_epoch(epoch)
        metrics: dict[str, Any] = {"epoch": epoch, **losses, "seconds": part.seconds}
        metrics["lr"] = self.optimizer.param_groups[0]["lr"]
        metrics |= more or {}
        if part.running.lines:
            metrics["running"] = part.running.lines
        if epoch % settings.evaluate_every == 0 or epoch == settings.epochs:
            self._measure(epoch, metrics)
        self._check_unchanged()
        if self.group.is_first:
            save_epoch(self.folder, self._kept, epoch, metrics, self._write if writes else self._write.keep)
            self._log(metrics)
        self.done, self.within = epoch, None

    def write_checkpoint(self) -> None:
        """Writes the checkpoint of the epoch that was ended last, if it is not written, and not too early."""
        self._write.write_due()

    def finish(self) -> int:
        """Gives the network the weights that are kept; returns their epoch, counted from 1."""
        kept = self.done
        if self.average is not None and self.average.network is not self.network:
            self.network.load_state_dict(self.average.network.state_dict())
        if self._choice is not None and self._choice.restore(self.network):
            kept = self._choice.best_epoch
        for parameter in self._trainable:  # what was frozen counts among the parameters of a finished network
            parameter.requires_grad_(True)
        return kept

    def _measure(self, epoch: int, metrics: dict[str, Any]) -> None:
        measured = self.network if self.average is None else self.average.network
        self.group.take_buffers_of_first(measured)
        found = self._evaluate_on(measured)
        metrics[self._measured_on] = found
        require_finite(found, epoch, self.settings, self.folder)
        if self._choice is not None:
            self._choice.consider(epoch, found, measured)
