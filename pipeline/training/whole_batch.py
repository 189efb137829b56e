"""Functions of a network that look at more than one sample of a batch, computed over the shares of all ranks.

Batch normalisation takes mean and variance of the whole batch, and dropout the numbers that it would draw for the whole
batch: so several ranks compute what one process does. Both are met where PyTorch calls them, so it does not matter
which layer does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from decant.pipeline.training.group import Group, naming_loss

_DROPOUTS: tuple[Any, ...] = (
    functional.dropout,
    functional.dropout1d,
    functional.dropout2d,
    functional.dropout3d,
)


class WholeBatch(TorchFunctionMode):
    """Within it, `batch_norm` in training and dropout are those of a batch of which this rank has some rows."""

    def __init__(
        self, group: Group, size: int, synchronise: bool, watched: torch.device | None = None
    ) -> None:
        """`size` is that of the whole batch; without `synchronise` batch normalisation takes the rows of this rank
        alone. With `watched`, `draws_of_others` tells whether anything but dropout drew random numbers on that device.
        """
        super().__init__()
        self._group, self._size, self._synchronise, self._watched = group, size, synchronise, watched
        self._state: Tensor | None = None
        self.draws_of_others = False

    def __enter__(self) -> WholeBatch:
        self._state = self._state_now()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._look()

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: tuple[Any, ...] = (),
        named: dict[str, Any] | None = None,
    ) -> Any:
        named = named or {}
        if function is functional.batch_norm and self._synchronise:
            return batch_norm(self._group, *arguments, **named)
        if function in _DROPOUTS:
            return self._dropout(function, *arguments, **named)
        return function(*arguments, **named)

    def _dropout(
        self,
        function: Callable[..., Tensor],
        input: Tensor,
        p: float = 0.5,
        training: bool = True,
        inplace: bool = False,
    ) -> Tensor:
        """Draws for the rows of all ranks, whose generators so stay in one state, and takes those of this one."""
        rows = self._group.rows(self._size)
        own = rows.stop - rows.start
        if not (training and p) or input.ndim < 2 or len(input) % own:
            return function(input, p, training, inplace)
        self._look()
        each = len(input) // own  # rows of the tensor that a sample has, as tokens or heads may be
        everyones = input.new_ones((self._size * each, *input.shape[1:]))
        if input.ndim == 4 and not input.is_contiguous():  # numbers are drawn in the order of memory
            everyones = everyones.contiguous(memory_format=torch.channels_last)
        kept = function(everyones, p, True)[rows.start * each : rows.stop * each]
        self._state = self._state_now()
        return input.mul_(kept) if inplace else input * kept

    def _look(self) -> None:
        """Notes it where random numbers were drawn since the last look."""
        now = self._state_now()
        if now is not None and self._state is not None and not torch.equal(now, self._state):
            self.draws_of_others = True

    def _state_now(self) -> Tensor | None:
        if self._watched is None:
            return None
        of_gpu = self._watched.type == "cuda"
        return torch.cuda.get_rng_state(self._watched) if of_gpu else torch.get_rng_state()


def batch_norm(
    group: Group,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """`torch.nn.functional.batch_norm` of a batch of which each rank has some rows."""
    if not training:
        return functional.batch_norm(input, running_mean, running_var, weight, bias, training, momentum, eps)
    normalised, mean, variance, count = _Normalise.apply(input, eps, group)
    with torch.no_grad():
        if running_mean is not None:
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        if running_var is not None:
            unbiased = variance * (count / (count - 1))
            running_var.lerp_(unbiased.to(running_var.dtype), momentum)
    shape = _as_channels(input)
    if weight is not None:
        normalised = normalised * weight.reshape(shape)
    if bias is not None:
        normalised = normalised + bias.reshape(shape)
    return normalised.to(input.dtype)


class _Normalise(torch.autograd.Function):
    """(input − mean) / √(variance + ε) of each channel, over the rows of all ranks: as `torch.nn.SyncBatchNorm`, which
    is for GPUs alone.
    """

    @staticmethod
    def forward(
        context: Any, input: Tensor, eps: float, group: Group
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        values = input.to(torch.promote_types(input.dtype, torch.float32))
        axes, shape = _others(values), _as_channels(values)
        own_mean = values.mean(axes)
        squares = (values - own_mean.reshape(shape)).square().sum(axes)
        own_count = values.new_tensor([values.numel() // values.shape[1]])
        mean, variance, count = _combine(torch.cat([own_mean, squares, own_count]), group)
        scale = (variance + eps).rsqrt()
        normalised = (values - mean.reshape(shape)) * scale.reshape(shape)
        context.save_for_backward(normalised, scale, count)
        context.dtype = input.dtype
        context.mark_non_differentiable(mean, variance, count)
        return normalised, mean, variance, count

    @staticmethod
    def backward(context: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None]:
        normalised, scale, count = context.saved_tensors
        axes, shape = _others(gradient), _as_channels(gradient)
        sums = torch.cat([gradient.sum(axes), (gradient * normalised).sum(axes)])
        with naming_loss():
            dist.all_reduce(sums)
        mean, along = (sums / count).chunk(2)
        centred = gradient - mean.reshape(shape) - normalised * along.reshape(shape)
        return (centred * scale.reshape(shape)).to(context.dtype), None, None


def _combine(statistics: Tensor, group: Group) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, variance and count (1,) over all ranks, of (mean, sum of squared differences from it, count) of each: Chan,
    Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances" (1979).
    """
    of_each = [torch.empty_like(statistics) for _ in range(group.count)]
    with naming_loss():
        dist.all_gather(of_each, statistics)
    channels = (len(statistics) - 1) // 2
    means, squares, counts = torch.stack(of_each).split([channels, channels, 1], dim=1)
    count = counts.sum(dim=0)
    mean = (means * counts).sum(dim=0) / count
    squares = squares.sum(dim=0) + (counts * (means - mean).square()).sum(dim=0)
    return mean, squares / count, count


def _others(values: Tensor) -> list[int]:
    """Every axis but that of the channels."""
    return [axis for axis in range(values.ndim) if axis != 1]


def _as_channels(values: Tensor) -> tuple[int, ...]:
    """The shape in which values of each channel meet `values`."""
    return (1, -1, *(1,) * (values.ndim - 2))
