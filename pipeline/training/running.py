"""The loss while an epoch runs: its mean over every so many steps, printed as it comes."""

from __future__ import annotations

from torch import Tensor


class RunningLoss:
    """Is told the loss of each step of one epoch; `lines` are what it printed."""

    def __init__(self, epoch: int, every: int | None) -> None:
        """`epoch` counts from 1; with `every` None nothing is printed, and no step waits for the device."""
        self.epoch, self.every = epoch, every
        self.lines: list[dict[str, float]] = []
        self._total: Tensor | float = 0.0
        self._step = 0

    def add(self, loss: Tensor) -> None:
        """A scalar."""
        if self.every is None:
            return
        self._step += 1
        self._total = self._total + loss.detach()
        if self._step % self.every == 0:
            mean = float(self._total) / self.every
            self.lines.append({"step": self._step, "loss": mean})
            print(f"[{self.epoch}, {self._step:,}] loss {mean:.3f}", flush=True)
            self._total = 0.0
