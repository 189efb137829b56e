"""The learning-rate schedules: a pure function of the step, so that a resumed run needs no state."""

from __future__ import annotations

import math

from decant.pipeline.config.settings import Training


def learning_rate(step: int, steps_per_epoch: int, settings: Training) -> float:
    """The rate of optimizer step `step` (from 0): linear warm-up, then the schedule over the remaining steps.

    one-cycle (Smith, Topin, 2018) rises over its first 30 % and falls to nearly 0, both along a cosine; it
    has its own warm-up.
    """
    warmup = settings.warmup_epochs * steps_per_epoch
    if step < warmup:
        return settings.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1.0, settings.epochs * steps_per_epoch - warmup)
    match settings.schedule:
        case "constant":
            return settings.lr
        case "cosine":
            return settings.lr * _cosine(progress)
        case "step":
            passed = sum(step >= milestone * steps_per_epoch for milestone in settings.milestones)
            return settings.lr * settings.gamma**passed
        case "one-cycle":
            rise = 0.3
            if progress < rise:
                return settings.lr * (0.04 + 0.96 * _cosine(1 - progress / rise))
            return settings.lr * _cosine((progress - rise) / (1 - rise))


def _cosine(progress: float) -> float:
    """1 at 0, 0 at 1."""
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
