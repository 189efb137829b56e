"""A finished teacher: its network, and how its hidden states are stored."""

from __future__ import annotations

import json

import torch
from torch import nn

from decant.cache import Hidden
from decant.pipeline.errors import WeightsError
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.loading import load_causal_network
from decant.pipeline.networks.causal import ELSEWHERE
from decant.pipeline.networks.weights import weights_sha256
from decant.pipeline.runs.json_files import write_json
from decant.pipeline.runs.result import WEIGHTS, Result
from decant.pipeline.runs.saved_network import load_network

_HEAD = "head.json"
_PROBE = torch.tensor([[0, 1], [1, 0]])


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
