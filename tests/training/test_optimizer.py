"""The optimizers of recipes: those of PyTorch, bit for bit, without its compiler."""

from __future__ import annotations

import copy
import inspect
import sys
from typing import Any

import pytest
import torch
from torch import nn

from decant.pipeline.config.settings import Training
from decant.pipeline.training.optimizer import Stepper, make_optimizer

CPU = torch.device("cpu")
KINDS: dict[str, tuple[type[torch.optim.Optimizer], dict[str, Any]]] = {
    "sgd": (torch.optim.SGD, {"momentum": 0.9, "nesterov": True}),
    "adam": (torch.optim.Adam, {}),
    "adamw": (torch.optim.AdamW, {}),
}


def settings(kind: str) -> Training:
    return Training.model_validate(
        {"network": "linear", "epochs": 1, "optimizer": kind, "lr": 0.1, "weight_decay": 0.01}
        | ({"nesterov": True} if kind == "sgd" else {})
    )


@pytest.mark.parametrize("kind", KINDS)
def test_steps_are_pytorch_s_without_its_compiler(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after the state went through a checkpoint. To import `torch._dynamo` takes a second of a command."""
    ours, of, arguments = nn.Linear(4, 3), *KINDS[kind]
    theirs = copy.deepcopy(ours)
    chosen = settings(kind)
    reference = of(
        theirs.parameters(), lr=chosen.lr, weight_decay=chosen.weight_decay, fused=True, **arguments
    )
    inputs = [torch.randn(5, 4) for _ in range(4)]
    for batch in inputs:
        reference.zero_grad()
        theirs(batch).square().mean().backward()
        reference.step()
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # an import raises
    optimizer = make_optimizer(ours, chosen, CPU)
    stepper = Stepper(ours, optimizer, chosen)
    for number, batch in enumerate(inputs):
        if number == 2:
            state = copy.deepcopy(optimizer.state_dict())
            stepper.optimizer = optimizer = make_optimizer(ours, chosen, CPU)
            optimizer.load_state_dict(state)
        stepper.add(ours(batch).square().mean(), len(batch))
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        method = getattr(type(optimizer), name)
        assert inspect.unwrap(method) is method, name  # a wrapper keeps what it has imported once
    assert isinstance(optimizer, of)
    assert repr(optimizer).splitlines()[0] == f"{of.__name__} ("
    assert torch.is_grad_enabled()
