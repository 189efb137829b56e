"""The networks of a recipe of a language model: their specs, and the weights that they begin with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from decant.cache import Hidden
from decant.pipeline.config.language_settings import CUT
from decant.pipeline.errors import WeightsError
from decant.pipeline.language.head import CausalModel
from decant.pipeline.language.loading import load_causal_network
from decant.pipeline.language.students import take_layers
from decant.pipeline.networks.causal import ELSEWHERE, specify_causal
from decant.pipeline.networks.spec import NetworkSpec
from decant.pipeline.networks.weights import weights_sha256
from decant.pipeline.runs.json_files import write_json
from decant.pipeline.runs.result import Result
from decant.pipeline.runs.saved_network import WEIGHTS, load_network

if TYPE_CHECKING:
    from decant.pipeline.phases.language.plan import LanguagePlan

_HEAD = "head.json"
_PROBE = torch.tensor([[0, 1], [1, 0]])


def teacher_spec(plan: LanguagePlan) -> NetworkSpec:
    """What builds the teacher. Raises ModelError."""
    return _spec(plan, plan.settings.teacher.network, None)


def student_spec(plan: LanguagePlan) -> NetworkSpec:
    """What builds a student. Raises ModelError, and NotMadeError for layers of a teacher that is not finished."""
    network = plan.settings.student.network
    return _spec(plan, network, plan.teacher.network if network.name == CUT else None)


def initial_weights(plan: LanguagePlan, spec: NetworkSpec) -> Callable[[nn.Module], None] | None:
    """What loads the weights that a network begins with: those of a folder or the hub, or layers of its teacher. None
    where they are drawn from the seed. Raises NotMadeError where the teacher is not finished.
    """
    if spec.name == CUT:
        teacher, layers = plan.teacher, spec.args["layers"]
        return lambda network: take_layers(network, load_teacher(teacher), layers)
    if spec.name.startswith(ELSEWHERE):
        name = spec.name.removeprefix(ELSEWHERE)
        return lambda network: _take(network, load_causal_network(name, "float32"), name)
    return None


def load_teacher(teacher: Result) -> nn.Module:
    """A finished teacher, from its run folder; one that was taken as it is, from where it was taken.

    Raises WeightsError where its weights are not those that `result.json` speaks of.
    """
    if (teacher.folder / WEIGHTS).exists() or not teacher.network.name.startswith(ELSEWHERE):
        return load_network(teacher)
    name = teacher.network.name.removeprefix(ELSEWHERE)
    network = load_causal_network(name)
    if weights_sha256(network.state_dict()) != teacher.weights_sha256:
        raise WeightsError(
            f"{name}: has other weights than when it was taken for {teacher.folder}: delete that folder and run the "
            "teacher again, or put them back"
        )
    return network


def hidden_encoding(teacher: Result, num_outputs: int, precision: str) -> Hidden:
    """The encoding of a teacher's hidden states; without its head, which is read from the teacher's weights once and
    noted in its folder by its digest.
    """
    note = teacher.folder / _HEAD
    about = {"weights": teacher.weights_sha256, "outputs": num_outputs, "precision": precision}
    try:
        noted = json.loads(note.read_bytes())
        if noted["of"] == about:
            return Hidden.from_identity(noted["encoding"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    network = load_teacher(teacher).to(getattr(torch, precision))
    model = CausalModel(network, num_outputs)
    model.prepare(_PROBE)
    encoding = Hidden.of(model.head())
    write_json(note, {"of": about, "encoding": encoding.identity})
    return encoding


def _spec(plan: LanguagePlan, network: Any, teacher: NetworkSpec | None) -> NetworkSpec:
    tokenizer = plan.data.tokenizer
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    tokens = {name: getattr(tokenizer, name, None) for name in names}
    return specify_causal(network, plan.data.num_outputs, plan.data.max_length, tokens, teacher)


def _take(network: nn.Module, loaded: nn.Module, name: str) -> None:
    """Copies weights. Raises WeightsError where they do not fit, as of a folder that has changed."""
    try:
        network.load_state_dict(loaded.state_dict())
    except RuntimeError as error:
        raise WeightsError(f"{name}: its weights are not of its configuration ({error})") from error
