"""A teacher of more classes than the data: which of its outputs are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from decant.pipeline.config.settings import TeacherSettings
from decant.pipeline.data.kept_classes import kept_columns
from decant.pipeline.data.samples import num_outputs, task_of
from decant.pipeline.errors import RecipeError
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.networks.foreign_weights import count_outputs, names_in_file
from decant.pipeline.networks.kept_columns import OtherOutputsError
from decant.pipeline.networks.library_classes import classes_of_library
from decant.pipeline.networks.spec import KEPT_CLASSES, NetworkSpec
from decant.pipeline.views import ViewedData


class _Outputs(NamedTuple):
    number: int
    names: Sequence[str] | None


def specify_teacher(settings: TeacherSettings, viewed: ViewedData) -> NetworkSpec:
    """The spec of a teacher for views of these data; with `teacher.classes` of all its own classes, and of the columns
    that are kept.

    Raises ModelError and WeightsError as `specify_network`, `build_network` and the loader of weights do, DataError
    where the classes do not fit, and RecipeError of a regression.
    """
    spec, data = specify_network(settings.network, viewed), viewed.data
    if settings.classes is None:
        return spec
    if (task := task_of(data)) in ("regression", "binary"):
        raise RecipeError(f"teacher.classes: keeps classes, and {data.name} is a {task}; leave it out")
    outputs = _outputs(spec, settings)
    columns = kept_columns(settings.classes, outputs.number, outputs.names, num_outputs(data), data.classes)
    return _keeping(spec, columns, outputs.number)


def _keeping(spec: NetworkSpec, columns: Sequence[int], outputs: int) -> NetworkSpec:
    args: dict[str, Any] = {**spec.args, KEPT_CLASSES: {"columns": list(columns), "of": outputs}}
    if "config" in args:  # of the transformers library, which counts classes there
        args["config"] = {**args["config"], "num_labels": outputs}
    return replace(spec, args=args)


def _outputs(spec: NetworkSpec, settings: TeacherSettings) -> _Outputs:
    """All outputs of a teacher: its library's, else those of the network itself where it gives others than the data
    have, else those in its file.
    """
    names = classes_of_library(spec.name, settings.network.args)
    if names is not None:
        return _Outputs(len(names), names)
    try:
        network, count = build_network(spec), spec.num_classes
    except OtherOutputsError as error:
        network, count = None, error.outputs
    if settings.weights is None:
        return _Outputs(count, None)
    if network is not None:
        count = count_outputs(network, settings.weights, key=settings.weights_key) or count
    return _Outputs(count, names_in_file(Path(settings.weights), count))
