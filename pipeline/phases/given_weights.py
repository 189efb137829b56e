"""The weights that a teacher begins with: loaded, or refused; what is doubtful about them is said once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from decant.cache import accuracy_of, doubt_class_order
from decant.pipeline.config.settings import TeacherSettings
from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.phases.initial_weights import load_initial_weights
from decant.pipeline.support.notices import say


def take_weights(network: nn.Module, spec: NetworkSpec, settings: TeacherSettings) -> None:
    """Loads the file that `teacher.weights` names, where there is one, and says what is doubtful about it on stderr.

    Raises WeightsError where the file does not fit, and where `epochs = 0` leaves the last layer of a pretrained
    network as it was drawn, because the data have other classes.
    """
    if settings.weights is None:
        untrained: str = getattr(network, "untrained_head", "")
        if untrained and not settings.epochs:
            raise WeightsError(
                f"network {spec.name!r}: its last layer is a new one, which epochs = 0 leaves untrained: "
                f"{untrained}; set teacher.epochs, or give teacher.weights of these classes, or keep their outputs "
                "with teacher.classes"
            )
        return
    load_initial_weights(network, spec, settings, Path(settings.weights), "teacher")


def warn_at_chance(logits: Tensor, labels: Tensor, classes: Sequence[str] = ()) -> None:
    """Says on stderr that a teacher taken as it is, with logits (N, C) and labels (N,), does not know these classes, or
    has them in another order.

    `decant.cache.Accuracy` says what chance is.
    """
    accuracy = accuracy_of(logits.numpy(), labels.numpy())
    if accuracy is None or accuracy.num_labels < 2:
        return
    exchanged = doubt_class_order(logits.numpy(), labels.numpy(), list(classes))
    if accuracy.top1 <= accuracy.chance + accuracy.margin or exchanged:
        causes = exchanged or (
            "likely causes are classes in another order than the data's, inputs normalised otherwise than it was "
            "trained with (teacher.network.mean and std), or a last layer that was never trained (teacher.epochs)"
        )
        say(
            f"warning: the teacher's top-1 is {accuracy.top1:.2%} on {accuracy.samples:,} samples, and chance is "
            f'{accuracy.chance:.2%}: {causes}; teacher.at_chance = "accept" says nothing'
        )
