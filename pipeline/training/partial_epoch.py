"""How far an epoch is: what a checkpoint within it keeps, so that the rest of it is as if nothing had happened."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from decant.pipeline.config.settings import Training
from decant.pipeline.training.loss_totals import LossTotals


class RunningLoss:
    """Prints the mean loss of every so many steps of one epoch, and keeps it in `lines`."""

    def __init__(self, epoch: int, every: int | None) -> None:
        """`epoch` counts from 1; with `every` None nothing is printed, and no step waits for the device."""
        self.epoch, self.every = epoch, every
        self.lines: list[dict[str, float]] = []
        self._total: Tensor | float = 0.0
        self._step = 0

    def add(self, loss: Tensor) -> None:
        """Adds the loss of a step, a scalar."""
        if self.every is None:
            return
        self._step += 1
        self._total = self._total + loss.detach()
        if self._step % self.every == 0:
            mean = float(self._total) / self.every
            self.lines.append({"step": self._step, "loss": mean})
            print(f"[{self.epoch}, {self._step:,}] loss {mean:.3f}", flush=True)
            self._total = 0.0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {"step": self._step, "total": float(self._total), "lines": list(self.lines)}

    def load(self, state: dict[str, Any]) -> None:
        """Goes on from what `state` returned. Raises ValueError, TypeError or KeyError for what is none."""
        self._step, self._total = int(state["step"]), float(state["total"])
        self.lines = [{"step": int(line["step"]), "loss": float(line["loss"])} for line in state["lines"]]


@dataclass
class PartialEpoch:
    """The batches of an epoch that are done, and what was added up over them."""

    running: RunningLoss
    batches: int = 0
    count: int = 0
    """What these batches count in means."""
    totals: LossTotals = field(default_factory=LossTotals)
    """Of each term of the loss."""
    seconds: float = 0.0
    """That they took."""

    def add(self, terms: dict[str, Tensor | None], size: int) -> None:
        """Adds a batch that counts `size`. No step waits for the host."""
        self.totals.add(terms, size)
        self.batches, self.count = self.batches + 1, self.count + size

    @property
    def means(self) -> dict[str, float]:
        """The mean of each term so far, over all networks. Waits for the device."""
        return {
            name: float(total.mean() if total.ndim else total) / self.count
            for name, total in self.totals.sums.items()
        }

    @classmethod
    def joined(cls, parts: Sequence[PartialEpoch]) -> PartialEpoch:
        """The parts of several networks that have done the same number of batches, as one; its seconds are theirs
        together.
        """
        first = parts[0]
        totals = LossTotals.joined([part.totals for part in parts])
        return cls(first.running, first.batches, first.count, totals, sum(part.seconds for part in parts))

    def divided(self, count: int) -> list[PartialEpoch]:
        """The part of each of so many networks, which have an equal share of the seconds."""
        return [
            PartialEpoch(
                RunningLoss(self.running.epoch, None), self.batches, self.count, totals, self.seconds / count
            )
            for totals in self.totals.divided(count)
        ]

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, and of the generators of random numbers."""
        totals = self.totals.sums
        device = next((total.device for total in totals.values()), torch.device("cpu"))
        gpu = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        return {
            "batches": self.batches,
            "count": self.count,
            "totals": {name: total.detach().cpu().clone() for name, total in totals.items()},
            "seconds": self.seconds,
            "running": self.running.state(),
            "generators": {"cpu": torch.get_rng_state(), **gpu},
        }

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Goes on from what `state` returned, which `require_part` has let through."""
        self.batches, self.count, self.seconds = state["batches"], state["count"], state["seconds"]
        self.totals = LossTotals({name: total.to(device) for name, total in state["totals"].items()})
        self.running.load(state["running"])
        torch.set_rng_state(state["generators"]["cpu"])
        if device.type == "cuda" and "cuda" in state["generators"]:
            torch.cuda.set_rng_state(state["generators"]["cuda"], device)


def require_part(state: dict[str, Any]) -> None:
    """Raises ValueError, TypeError, RuntimeError or KeyError for what `PartialEpoch.state` does not return."""
    for name in ("batches", "count"):
        if type(state[name]) is not int or not 0 < state[name] < 2**62:
            raise ValueError(f"within.{name}: expected a number, found {state[name]!r:.40}")
    for name, total in state["totals"].items():
        if (
            not isinstance(total, Tensor)
            or total.ndim
            or not total.is_floating_point()
            or not total.isfinite()
        ):
            raise ValueError(f"within.totals.{name}: expected a number, found {total!r:.40}")
    if type(state["seconds"]) is not float or not 0 <= state["seconds"] < 1e12:
        raise ValueError(f"within.seconds: expected an amount, found {state['seconds']!r:.40}")
    RunningLoss(1, None).load(state["running"])
    torch.Generator().set_state(state["generators"]["cpu"])


class Regularly:
    """Calls `save` after so many steps or minutes as the settings of checkpoints say.

    >>> from decant.pipeline.config.settings import Training
    >>> settings = Training(network={"name": "linear"}, epochs=1, checkpoint_steps=2, checkpoint_minutes=60)
    >>> each_step = Regularly(settings, lambda: print("saved"))
    >>> for step in range(5):
    ...     each_step()
    saved
    saved
    """

    def __init__(self, settings: Training, save: Callable[[], None]) -> None:
        self._steps, self._seconds, self._save = (
            settings.checkpoint_steps,
            60 * settings.checkpoint_minutes,
            save,
        )
        self._done, self._saved_at = 0, time.monotonic()

    def __call__(self) -> None:
        """Counts a step."""
        self._done += 1
        due = self._steps is not None and self._done % self._steps == 0
        if due or time.monotonic() - self._saved_at >= self._seconds:
            self._save()
            self._saved_at = time.monotonic()
