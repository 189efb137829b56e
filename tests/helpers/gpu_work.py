"""What a GPU would be given to do, seen on a processor: tensors that have a device and a shape, and no values.

Operators on tensors of several devices fail as on a GPU, and so does whatever needs a value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.helpers.gpu_calls import GpuCalls

GPU = torch.device("cuda", 0)
_ALLOCATES = ("empty", "empty_like", "new_empty", "empty_strided", "empty_permuted", "new_empty_strided")
_COMPOSED = {"logsumexp": (5, 6), "topk": (5, 5), "sort": (2, 2)}
"""Kernels that PyTorch makes such an operator of, and how often they go over what it reads."""
_WAITS = ("_local_scalar_dense", "nonzero", "equal", "is_nonzero", "masked_select", "_unique2", "unique_dim")


class GpuWork(TorchDispatchMode):
    """Counts what is started on a GPU: an operator of PyTorch that is no view is at least one kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.launches, self.waits, self.bytes = Counter[str](), Counter[str](), Counter[str]()
        self.copies = 0
        """To the host, which waits for none of them."""

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: Any = (), named: dict[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket.__name__
        # a step of the optimizer changes tensors in place, and PyTorch has it for real ones alone
        found = None if name.startswith("_fused_") else function(*arguments, **(named or {}))
        given = [one for one in tree_leaves((arguments, named)) if isinstance(one, Tensor)]
        made = [one for one in tree_leaves(found) if isinstance(one, Tensor)]
        if function.namespace == "prim" or not any(one.is_cuda for one in (*given, *made)):
            return found
        to_host = name in ("_to_copy", "copy_") and any(not one.is_cuda for one in made)
        if to_host and name == "copy_" and (*arguments[2:], *(named or {}).values()) == (True,):
            self.copies += 1
        elif to_host or name in _WAITS:
            self.waits[name] += 1
        if not function.is_view and name not in (*_ALLOCATES, "detach", "record_stream"):
            kernels, passes = _COMPOSED.get(name, (1, 1))
            self.launches[name] += kernels
            self.bytes[name] += passes * _octets_of(name, given, made)
        return found


def _octets_of(name: str, given: list[Tensor], made: list[Tensor]) -> int:
    """What an operator reads and writes: of what it looks up by number only what it finds, or puts there."""
    if name in ("gather", "index", "index_select", "embedding", "scatter_", "index_put_"):
        by = given[1:] if name.endswith("_") else [*given[1:], *made, *made]
        return sum(map(_octets, by))
    return sum(map(_octets, (*given, *made)))


def _octets(tensor: Tensor) -> int:
    """What is read or written of a tensor: an element that stands for many counts once."""
    count = 1
    for size, stride in zip(tensor.shape, tensor.stride(), strict=True):
        count *= size if stride else 1
    return count * tensor.element_size()


@contextmanager
def gpu_work(patch: pytest.MonkeyPatch) -> Iterator[tuple[GpuCalls, GpuWork]]:
    """Within it tensors on `GPU` have no values; streams and events, and what is started and waited for, are noted."""
    calls, work = GpuCalls(patch), GpuWork()
    patch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    patch.setattr(Tensor, "record_stream", lambda tensor, stream: calls.log.append(f"used in {stream.name}"))
    plain: Callable[..., Tensor] = torch.empty_like
    patch.setattr(torch, "empty_like", lambda value, pin_memory=False, **named: plain(value, **named))
    with FakeTensorMode(allow_non_fake_inputs=True), work:
        yield calls, work


def gradients(network: nn.Module) -> None:
    """In place of a backward pass, which PyTorch begins on a real GPU alone."""
    for parameter in network.parameters():
        parameter.grad = torch.empty_like(parameter)
