"""A teacher's last hidden states, and the last layer that makes logits of them: exact at every temperature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import Head, LogitCache
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives.fused.last_layer import LastLayer


@dataclass(frozen=True)
class HiddenTargets:
    """Hidden states of a teacher at Q positions, and the last layer that makes logits of C outputs of them. `fused_kd`
    makes these logits for some positions at a time.

    `HiddenTargets.read` takes them from a cache, `HiddenTargets.of` from tensors.

    >>> import torch
    >>> targets = HiddenTargets.of(torch.tensor([[1.0, 4.0]]), torch.eye(3, 2), logit_scale=2.0)
    >>> targets.logits().tolist()
    [[2.0, 8.0, 0.0]]
    """

    hidden: Tensor
    """(Q, d)."""
    weight: Tensor
    """(C, d)."""
    bias: Tensor | None = None
    """(C,), if any."""
    layer: LastLayer = field(default=LastLayer())
    """Scale and soft cap."""

    @classmethod
    def of(
        cls,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *,
        logit_scale: float = 1.0,
        soft_cap: float | None = None,
    ) -> Self:
        """hidden: (Q, d), weight: (C, d), bias: (C,). The logits are z = logit_scale·(hidden·weightᵀ) + bias, and
        cap·tanh(z/cap) with a `soft_cap`. Of a layer with padding rows give those of the outputs alone. No gradient
        goes to them. Raises RecipeError for shapes that do not fit, ValueError for a scale or cap that cannot be.
        """
        shapes = [tuple(one.shape) for one in (hidden, weight)]
        if hidden.ndim != 2 or weight.ndim != 2 or hidden.shape[1] != weight.shape[1] or not len(weight):
            raise RecipeError(
                f"targets: expected hidden (Q, d) and weight (C, d) of a teacher, found {shapes[0]} and {shapes[1]}"
            )
        if bias is not None and bias.shape != weight.shape[:1]:
            raise RecipeError(f"targets: expected bias ({len(weight)},), found {tuple(bias.shape)}")
        if not all(one is None or one.is_floating_point() for one in (hidden, weight, bias)):
            raise RecipeError(f"targets: expected floats, found {hidden.dtype} and {weight.dtype}")
        given = (None if one is None else one.detach() for one in (hidden, weight, bias))
        states, matrix, vector = given
        assert states is not None
        assert matrix is not None
        return cls(states, matrix, vector, LastLayer(logit_scale, soft_cap))

    @classmethod
    def read(
        cls,
        cache: LogitCache,
        indices: NDArray[np.integer] | Sequence[int] | slice,
        view: int = 0,
        device: torch.device | str | None = None,
    ) -> Self:
        """The hidden states of some samples of a cache that has these. The weights are copied to a device once, and
        kept there as long as the cache is. Raises TypeError for a cache of another encoding.

        >>> import tempfile
        >>> import numpy as np
        >>> from decant import LogitCacheWriter, Manifest
        >>> from decant.encodings import Hidden
        >>> head, folder = Head.of(np.eye(3, 2)), tempfile.TemporaryDirectory()
        >>> manifest = Manifest.build(num_samples=2, num_outputs=3, encoding=Hidden.of(head))
        >>> with LogitCacheWriter(f"{folder.name}/toy.h5", manifest, head=head) as writer:
        ...     writer.write([0, 1], [[1.0, 0.0], [2.0, 4.0]])
        ...     targets = HiddenTargets.read(LogitCache.open(writer.publish()), [1])
        >>> targets.logits().tolist()
        [[2.0, 4.0, 0.0]]
        >>> folder.cleanup()
        """
        states = torch.from_numpy(np.array(cache.hidden(indices, view))).to(device)
        return TeacherHead.of(cache).targets(states)  # type: ignore[return-value]

    @property
    def num_outputs(self) -> int:
        """C."""
        return len(self.weight)

    def logits(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """(Q, C), computed in `dtype`."""
        bias = None if self.bias is None else self.bias.to(dtype)
        return self.layer.logits(self.hidden.to(dtype), self.weight.to(dtype), bias)

    def __len__(self) -> int:
        return len(self.hidden)

    def __getitem__(self, rows: slice | Tensor) -> Self:
        """Some of the rows: a slice, a boolean mask (Q,), or their numbers."""
        return replace(self, hidden=self.hidden[rows])

    def to(self, device: torch.device | str) -> Self:
        """The same on a device. The weights too, each time: `read` keeps those that it made."""
        moved = {name: getattr(self, name).to(device, non_blocking=True) for name in ("hidden", "weight")}
        return replace(self, **moved, bias=None if self.bias is None else self.bias.to(device))


class TeacherHead:
    """The last layer that a cache of hidden states holds, copied to each device once.

    >>> head = TeacherHead(Head.of(np.eye(3, 2), scale=2.0))
    >>> head.logits(torch.tensor([[1.0, 4.0]])).tolist()
    [[2.0, 8.0, 0.0]]
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._layer = LastLayer(head.scale, head.soft_cap)
        self._on: dict[torch.device, tuple[Tensor, Tensor | None]] = {}

    @classmethod
    def of(cls, cache: LogitCache) -> TeacherHead:
        """That of a cache, one for each. Raises TypeError for a cache of another encoding."""
        if cache not in _of_caches:
            _of_caches[cache] = cls(cache.head)
        return _of_caches[cache]

    def targets(self, hidden: Tensor) -> HiddenTargets:
        """Hidden states (Q, d) with the layer, on the device of these."""
        if hidden.device not in self._on:
            self._on[hidden.device] = self._copied(hidden.device)
        return HiddenTargets(hidden, *self._on[hidden.device], self._layer)

    def logits(self, hidden: Tensor) -> Tensor:
        """(Q, C) float32 from (Q, d), on the device of these."""
        return self.targets(hidden).logits()

    def __reduce__(self) -> tuple[type[TeacherHead], tuple[Head]]:
        return TeacherHead, (self._head,)

    def _copied(self, device: torch.device) -> tuple[Tensor, Tensor | None]:
        weight = torch.from_numpy(np.array(self._head.weight, np.float32)).to(device)
        bias = self._head.bias
        return weight, None if bias is None else torch.from_numpy(np.array(bias, np.float32)).to(device)


_of_caches: WeakKeyDictionary[LogitCache, TeacherHead] = WeakKeyDictionary()
