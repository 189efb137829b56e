"""The optimizers of recipes: those of PyTorch, bit for bit, without its compiler."""

from __future__ import annotations

import copy
import inspect
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from decant.pipeline.config.settings import Training
from decant.pipeline.training.fused_step import fused_step
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


@pytest.mark.parametrize("kind", [*KINDS, "sgd without momentum"])
def test_a_fused_step_is_pytorch_s_in_weights_and_state(kind: str) -> None:
    """Also of parameters that have no gradient, always or in one step, and along a schedule."""
    (of, arguments) = KINDS.get(kind, (torch.optim.SGD, {}))
    theirs = nn.ParameterList([torch.randn(4, 3), torch.randn(3), torch.randn(2), torch.tensor(1.0)])
    ours = copy.deepcopy(theirs)
    both = [
        of(each.parameters(), lr=0.1, weight_decay=0.01, fused=True, **arguments) for each in (theirs, ours)
    ]
    done = list[bool]()
    for number in range(5):
        gradients = [torch.randn_like(value) for value in theirs]
        for each, optimizer in zip((theirs, ours), both, strict=True):
            optimizer.param_groups[0]["lr"] = 0.1 / (number + 1)
            for place, (parameter, gradient) in enumerate(zip(each, gradients, strict=True)):
                parameter.grad = gradient.clone() if place != 2 and (place or number != 2) else None
        both[0].step()
        done.append(fused_step(both[1]))
        if not done[-1]:
            both[1].step()
    assert done == [kind == "sgd without momentum", True, True, True, True]
    assert torch.is_grad_enabled()
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.equal(found, expected)
    found, expected = (optimizer.state_dict() for optimizer in both)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def _in_two_groups(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([{"params": [weight]} for weight in weights], fused=True)


def _of_two_dtypes(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW([weights[0], nn.Parameter(weights[1].double())], fused=True)


@pytest.mark.parametrize(
    "make",
    [
        _in_two_groups,
        _of_two_dtypes,
        lambda weights: torch.optim.AdamW(weights),
        lambda weights: torch.optim.Adam(weights, fused=True, amsgrad=True),
        lambda weights: torch.optim.SGD(weights, fused=True, maximize=True),
        lambda weights: torch.optim.Adagrad(weights, fused=True),
    ],
)
def test_other_steps_are_left_to_pytorch(make: Callable[[list[nn.Parameter]], torch.optim.Optimizer]) -> None:
    optimizer = make([nn.Parameter(torch.ones(2)) for _ in range(2)])
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    before = [parameter.detach().clone() for parameter in parameters]
    assert not fused_step(optimizer)
    assert all(torch.equal(parameter, kept) for parameter, kept in zip(parameters, before, strict=True))


def test_what_pytorch_refuses_is_refused_as_ever() -> None:
    """A sparse gradient in the second step, after one that was none."""
    network, chosen = nn.Embedding(4, 2, sparse=True), settings("adamw")
    stepper = Stepper(network, make_optimizer(network, chosen, CPU), chosen)
    stepper.add(network.weight.square().sum(), 4)
    with pytest.raises(RuntimeError, match="does not support sparse gradients"):
        stepper.add(network(torch.tensor([1])).sum(), 1)
