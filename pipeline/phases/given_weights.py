"""The weights that a teacher begins with: loaded, or refused; what is doubtful about them is said once."""

from __future__ import annotations

import math
import sys
from pathlib import Path

from torch import Tensor, nn

from decant.pipeline.config.settings import TeacherSettings
from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.objectives import NO_LABEL
from decant.pipeline.phases.initial_weights import load_initial_weights

_ERRORS = 2.0  # standard errors of an accuracy that is no better than chance
_ENOUGH = 20  # samples, below which the error of an accuracy is not known


def take_weights(network: nn.Module, spec: NetworkSpec, settings: TeacherSettings) -> None:
    """Loads the file that `teacher.weights` names, where there is one, and says what is doubtful about it on stderr.

    Raises WeightsError where the file does not fit, and where `epochs = 0` leaves the last layer of a pretrained
    network as it was drawn, because the data have other classes.
    """
    if settings.weights is None:
        untrained: str = getattr(network, "untrained_head", "")
        if untrained and not settings.epochs:
            raise WeightsError(
                f"network {spec.name!r}: epochs = 0 leaves its last layer untrained, as the one of its weights was "
                f"replaced: {untrained}; set teacher.epochs, or give teacher.weights of these classes, or keep their "
                "outputs with teacher.classes"
            )
        return
    load_initial_weights(network, spec, settings, Path(settings.weights), "teacher")


def warn_at_chance(logits: Tensor, labels: Tensor) -> None:
    """Says on stderr that a teacher taken as it is, with logits (N, C) and labels (N,), does not know these classes.

    Chance is how often its answers would be right if they had nothing to do with the labels: the sum, over the classes,
    of their share of the answers times their share of the labels.
    """
    known = labels != NO_LABEL
    answers, truth = logits[known].argmax(1), labels[known]
    count = len(truth)
    if len(truth.unique()) < 2:
        return
    shares = [of.bincount(minlength=logits.shape[1]).double() / count for of in (answers, truth)]
    chance = float((shares[0] * shares[1]).sum())
    top1 = float((answers == truth).double().mean())
    error = math.sqrt(chance * (1 - chance) / count) if count >= _ENOUGH else 0.0
    if top1 <= chance + _ERRORS * error:
        print(
            f"warning: the teacher's top-1 is {top1:.2%} on {count:,} samples, and chance is {chance:.2%}: likely "
            "causes are classes in another order than the data's, inputs normalised otherwise than it was trained with "
            "(teacher.network.mean and std), or a last layer that was never trained (teacher.epochs)",
            file=sys.stderr,
        )
