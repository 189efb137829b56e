"""A step of an optimizer by PyTorch's fused kernel alone, on a processor.

`torch.optim` sorts the parameters by device and dtype before each step, and goes through wrappers that are for its
compiler. For a small network that takes twice as long as the kernels themselves.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_OTHERWISE = ("amsgrad", "maximize", "differentiable", "capturable")
"""Options with which a step is left to PyTorch."""


def fused_step(optimizer: torch.optim.Optimizer) -> bool:
    """What `optimizer.step()` does to parameters, gradients and state, bit for bit; whether it was done. It is not, and
    nothing is changed, unless the optimizer is PyTorch's SGD, Adam or AdamW with `fused`, has made its first step, and
    has one group of parameters of one dtype, which lie on a processor and whose gradients are dense.

    >>> weight = torch.nn.Parameter(torch.ones(1))
    >>> optimizer = torch.optim.SGD([weight], lr=0.5, momentum=0.9, fused=True)
    >>> weight.grad = torch.ones(1)
    >>> fused_step(optimizer), weight.item()  # the first is PyTorch's, which makes the state
    (False, 1.0)
    >>> optimizer.step()
    >>> fused_step(optimizer), round(weight.item(), 3)
    (True, -0.45)
    """
    if len(optimizer.param_groups) != 1:
        return False
    group = optimizer.param_groups[0]
    if not group.get("fused") or any(group.get(option) for option in _OTHERWISE):
        return False
    if isinstance(optimizer, torch.optim.AdamW):
        return _adam(torch._fused_adamw_, optimizer, group)
    if isinstance(optimizer, torch.optim.Adam) and not group.get("decoupled_weight_decay"):
        return _adam(torch._fused_adam_, optimizer, group)
    return isinstance(optimizer, torch.optim.SGD) and _sgd(optimizer, group)


def _adam(kernel: Any, optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    lists = _lists(optimizer, group["params"], ("exp_avg", "exp_avg_sq", "step"))
    if lists is None:
        return False
    parameters, gradients, means, squares, steps = lists
    beta1, beta2 = group["betas"]
    with torch.no_grad():
        torch._foreach_add_(steps, 1)
        kernel(
            parameters, gradients, means, squares, [], steps,
            lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"], eps=group["eps"],
            amsgrad=False, maximize=False, grad_scale=None, found_inf=None,
        )  # fmt: skip
    return True


def _sgd(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> bool:
    momentum = group["momentum"]
    lists = _lists(optimizer, group["params"], ("momentum_buffer",) if momentum else ())
    if lists is None:
        return False
    parameters, gradients, *buffers = lists
    with torch.no_grad():
        torch._fused_sgd_(
            parameters, gradients, buffers[0] if buffers else [],
            weight_decay=group["weight_decay"], momentum=momentum, lr=group["lr"], dampening=group["dampening"],
            nesterov=group["nesterov"], maximize=False, is_first_step=False, grad_scale=None, found_inf=None,
        )  # fmt: skip
    return True


def _lists(
    optimizer: torch.optim.Optimizer, parameters: list[Tensor], names: tuple[str, ...]
) -> list[list[Tensor]] | None:
    """The parameters that have a gradient, their gradients, and their state of these names, as kernels take them; None
    where there are none, or the kernel is not for them.
    """
    lists: list[list[Tensor]] = [[] for _ in range(2 + len(names))]
    kept, gradients, states = lists[0], lists[1], list(zip(names, lists[2:], strict=True))
    dtype = parameters[0].dtype if parameters else torch.bool
    if not dtype.is_floating_point:
        return None
    for parameter in parameters:
        gradient = parameter.grad
        if gradient is None:
            continue
        if not parameter.is_cpu or parameter.dtype is not dtype or gradient.layout is not torch.strided:
            return None
        kept.append(parameter)
        gradients.append(gradient)
        if names:
            state = optimizer.state.get(parameter, {})
            for name, values in states:
                value = state.get(name)
                if value is None:
                    return None
                values.append(value)
    return lists if kept else None
