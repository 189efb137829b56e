"""Files of weights that networks begin with: loaded, or refused; what is doubtful about them is said once."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from decant.cache.io.bus_errors import naming
from decant.pipeline.config.settings import StudentSettings, TeacherSettings, Training
from decant.pipeline.networks.foreign_weights import load_foreign_weights
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.support.notices import say_once
from decant.pipeline.support.weight_files import require_unchanged
from decant.pipeline.training.divergence import section_of


def load_initial_weights(
    network: nn.Module,
    spec: NetworkSpec,
    settings: TeacherSettings | StudentSettings,
    path: Path,
    section: str,
) -> None:
    """Loads the file at `path`, which `section` of the recipe names, and says what is doubtful about it on stderr.
    Raises WeightsError where it does not fit; a last layer of other classes begins anew where it is trained.
    """
    with naming(path):
        loaded = load_foreign_weights(
            network,
            path,
            key=settings.weights_key,
            num_classes=spec.own_outputs,
            new_head=settings.epochs > 0,
            setting=section,
        )
    require_unchanged(path)
    for note in loaded.notes:
        say_once(f"warning: {note}")
    if not loaded.has_normalisation:
        _warn_of_normalisation(spec, settings, path, section)


def warn_of_frozen(settings: Training) -> None:
    """Says once on stderr that layers stay as they were drawn, where they are frozen and no weights are given."""
    name, args = settings.network.name, settings.network.args
    own = ":" in name and not name.startswith(("torchvision:", "timm:"))  # may well bring its weights
    given = own or args.get("weights") or args.get("pretrained") or getattr(settings, "weights", None)
    if settings.freeze and settings.epochs and not given:
        section = section_of(settings)
        say_once(
            f"warning: {section}.freeze: these layers stay as they are drawn, as the network begins without weights; "
            f"give {section}.weights, or leave freeze out"
        )


def _warn_of_normalisation(
    spec: NetworkSpec, settings: TeacherSettings | StudentSettings, path: Path, section: str
) -> None:
    """Says by what inputs are normalised, where neither the file nor the recipe tells."""
    args = settings.network.args
    unknown = [name for name in ("mean", "std") if name not in args]
    if not (spec.mean and unknown) or args.get("weights") or args.get("pretrained"):
        return
    shown = ", ".join(f"{name} {[round(value, 4) for value in getattr(spec, name)]}" for name in unknown)
    switches = " and ".join(f"{section}.network.{name}" for name in unknown)
    say_once(
        f"warning: {path}: does not tell how its inputs were normalised; the data's own {shown} is taken, "
        f"and a network that was trained with another is less accurate; set {switches} to what it was trained with"
    )
