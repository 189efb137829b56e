"""A teacher of one's own: any module or callable. What identifies it, how it is called, and where its logits are."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError
from decant.pipeline.own_loop.description import class_name, code_of, codes, describe, read_of
from decant.pipeline.support.modules import RAISED
from decant.pipeline.support.plugins import in_words
from decant.pipeline.support.signatures import signature

Teacher: TypeAlias = nn.Module | Callable[..., Any]
Output: TypeAlias = str | int | Callable[[Any], Tensor] | None
"""Which field of a dictionary, place of a tuple, or function of what the teacher returns; None recognises it."""


def identity(teacher: Teacher, name: str | None) -> dict[str, Any]:
    """What tells a teacher from any other: its class and its code, and the SHA-256 of its weights; or a name that is
    given. Raises ValueError for a callable without weights that has no name.
    """
    inner = _unwrapped(teacher)
    if not isinstance(inner, nn.Module) or not inner.state_dict():
        if name is None:
            raise ValueError(
                "teacher: has no weights by which it could be told from another; give cache_logits a name that stands "
                "for it, and another one whenever it changes: name=…"
            )
        return {"network": {"name": name}}
    _require_whole(inner)
    code = code_of(type(inner))
    return {
        "network": {"name": name or class_name(inner)},
        "weights_sha256": state_sha256(inner),
        **({} if code is None else {"code": code}),
    }


def _require_whole(teacher: nn.Module) -> None:
    """Raises ModelError for weights of which each process has a part, as by FSDP or tensor parallelism: such processes
    compute every batch together, and here each takes batches of its own.
    """
    spread = next((name for name, value in teacher.named_parameters() if hasattr(value, "full_tensor")), None)
    if spread is not None:
        raise ModelError(
            f"{class_name(teacher)}: {spread} is spread over processes (DTensor), which then compute each batch "
            "together, and ranks that make a cache compute batches of their own: give every rank the whole network; a "
            "language model that does not fit is asked behind a server (decant.language.ServedTeacher)"
        )


def state_sha256(module: nn.Module) -> str:
    """SHA-256 of names, shapes, dtypes and bytes of all parameters and buffers, in the order of their names.

    >>> layer = nn.Linear(2, 2)
    >>> state_sha256(layer) == state_sha256(nn.Sequential(layer)[0])
    True
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode())
        if isinstance(value, Tensor):
            digest.update(f" {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(_bytes(value))
        else:
            digest.update(read_of(value).encode())
    return digest.hexdigest()


def reading(output: Output, collate: Callable[[list[Any]], Any] | None) -> dict[str, Any]:
    """What tells these logits from others of the same teacher: which of its outputs they are, and the function that
    makes its batches, by its name and the digest of the user's code. Nothing, where neither is given.

    >>> reading("aux", None)
    {'output': 'aux'}
    """
    given: dict[str, Any] = {}
    if output is not None:
        given["output"] = output if isinstance(output, str | int) else [*describe(output), codes(output)]
    if collate is not None:
        given["collate"] = [class_name(collate), codes(collate)]
    return given


@contextlib.contextmanager
def evaluating(teacher: Teacher, device: torch.device) -> Iterator[None]:
    """The teacher in evaluation mode on a device; at the end each of its modules is in the mode and the teacher on the
    device that it was.
    """
    if not isinstance(teacher, nn.Module):
        yield
        return
    modes = {module: module.training for module in teacher.modules()}
    places = {value.device for value in _tensors(teacher)}
    moves = len(places) == 1 and places != {device}
    with contextlib.suppress(NotImplementedError):  # an exported program is in evaluation mode for good
        teacher.eval()
    try:
        if moves:
            teacher.to(device)
        yield
    finally:
        if moves:
            teacher.to(places.pop())
        for module, training in modes.items():
            module.training = training


def device_of(teacher: Teacher, device: str | torch.device | None) -> torch.device:
    """The device that was asked for, or else the one that the teacher is on."""
    if device is not None:
        return torch.device(device)
    first = next(iter(_tensors(teacher)), None) if isinstance(teacher, nn.Module) else None
    return torch.device("cpu") if first is None else first.device


def is_half(teacher: Teacher) -> bool:
    """Whether any of its weights is in half precision."""
    weights = _tensors(teacher) if isinstance(teacher, nn.Module) else iter(())
    return any(value.dtype in (torch.float16, torch.bfloat16) for value in weights)


def call(teacher: Teacher, inputs: Any) -> Any:
    """What the teacher returns for a batch; of named inputs each is a keyword, unless it takes one argument.

    Raises ModelError, naming the teacher and the line of the user's code, where it fails.
    """
    try:
        if isinstance(inputs, Mapping) and _takes_keywords(teacher, inputs):
            return teacher(**inputs)
        return teacher(inputs)
    except RAISED as error:
        raise ModelError(
            f"{class_name(teacher)}: failed on {_batch(inputs)} ({in_words(error)}){_hint(teacher, inputs)}"
        ) from error


def logits_of(teacher: Teacher, returned: Any, count: int, output: Output) -> Tensor:
    """Logits (B, C) among what the teacher returned for B inputs. Raises ModelError where they are not recognised."""
    if callable(output):
        logits = _as_tensors(output(returned))
    elif output is not None:
        logits = _as_tensors(_field(teacher, returned, output))
    else:
        logits = _recognised(teacher, _as_tensors(returned), count)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        raise ModelError(
            f"{class_name(teacher)}: logits must be a tensor ({count}, C), found {_kind(logits)}; "
            + _instead([logits], count)
        )
    if not logits.is_floating_point():
        raise ModelError(f"{class_name(teacher)}: logits must be floats, found {logits.dtype}")
    return logits.detach()


def _as_tensors(returned: Any) -> Any:
    """What a teacher returned, with arrays as tensors, as other runtimes (ONNX, TensorFlow) give them."""
    if isinstance(returned, np.ndarray):
        return torch.from_numpy(np.array(returned)) if returned.dtype.kind in "iufb" else returned
    if type(returned) in (tuple, list):
        return type(returned)(map(_as_tensors, returned))
    if type(returned) is dict:
        return {name: _as_tensors(value) for name, value in returned.items()}
    return returned


def _recognised(teacher: Teacher, returned: Any, count: int) -> Any:
    """The tensor itself, the field "logits", or the one tensor (B, C) of several values."""
    if isinstance(returned, Tensor):
        return returned
    named = dict(returned.items()) if isinstance(returned, Mapping) else None
    if named is None and hasattr(returned, "logits"):
        return returned.logits
    if named is not None and "logits" in named:
        return named["logits"]
    values = named if named is not None else dict(enumerate(returned)) if _is_tuple(returned) else {}
    fitting = [
        key
        for key, value in values.items()
        if isinstance(value, Tensor) and value.ndim == 2 and len(value) == count and value.is_floating_point()
    ]
    if len(fitting) == 1:
        return values[fitting[0]]
    which = "say which: output=NAME or a place" if fitting else _instead(values.values(), count)
    raise ModelError(
        f"{class_name(teacher)}: returned {_kind(returned)}, in which {len(fitting)} values can be logits ({count}, C)"
        f"{': ' + ', '.join(map(repr, fitting)) if fitting else ''}; {which}"
    )


def _instead(values: Iterable[Any], count: int) -> str:
    """What to give in place of values of which none is (B, C)."""
    ranks = {
        value.ndim for value in values if isinstance(value, Tensor) and value.ndim and len(value) == count
    }
    if ranks == {1}:
        return "of one number a sample make (B, 1): output=lambda returned: returned[:, None]"
    if ranks and min(ranks) > 2:
        return (
            "rows of tokens, frames or pixels are written by decant.LogitCacheWriter with decant.Positions, see "
            "docs/guides/positions.md; of one row a sample take it by output=NAME, a place or a function"
        )
    return "say which part of what it returns they are: output=NAME, a place or a function"


def _field(teacher: Teacher, returned: Any, output: str | int) -> Any:
    try:
        if isinstance(output, str) and not isinstance(returned, Mapping):
            return getattr(returned, output)
        return returned[output]
    except (KeyError, IndexError, TypeError, AttributeError):
        raise ModelError(
            f"{class_name(teacher)}: output={output!r}: not in what it returned, {_kind(returned)}"
        ) from None


def _takes_keywords(teacher: Teacher, inputs: Mapping[str, Any]) -> bool:
    try:
        signature(teacher.forward if isinstance(teacher, nn.Module) else teacher).bind(**inputs)
    except (TypeError, ValueError):
        return False
    return True


def _unwrapped(teacher: Teacher) -> Teacher:
    """The module in a `torch.compile`d or a parallel one."""
    while True:
        inner = getattr(teacher, "_orig_mod", None)
        if inner is None and type(teacher).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = getattr(teacher, "module", None)
        if inner is None:
            return teacher
        teacher = inner


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def _bytes(value: Tensor) -> Any:
    if value.layout != torch.strided:
        value = value.to_dense()
    flat = value.detach().cpu().contiguous().reshape(-1)
    return np.ascontiguousarray(flat.view(torch.uint8).numpy()).data if flat.numel() else b""


def _is_tuple(value: object) -> bool:
    return isinstance(value, tuple | list)


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a {type(value).__name__} of {', '.join(map(str, value))}"
    return f"a {type(value).__name__} of {len(value)}" if _is_tuple(value) else f"a {type(value).__name__}"


def _batch(inputs: Any) -> str:
    if isinstance(inputs, Mapping):
        return ", ".join(f"{name} {_kind(value)}" for name, value in inputs.items())
    return _kind(inputs)


def _hint(teacher: Teacher, inputs: Any) -> str:
    if isinstance(inputs, Tensor) and inputs.dtype == torch.uint8:
        return "; these are uint8: end the transform with one that makes floats, or give Views teacher=…, student=…"
    if isinstance(inputs, Mapping):
        return "; where one of these is the input, say which: decant.Views(…, keys=(INPUT, LABEL))"
    first = next(iter(_tensors(teacher)), None) if isinstance(teacher, nn.Module) else None
    if first is None or not isinstance(inputs, Tensor) or first.dtype == inputs.dtype:
        return ""
    weights = str(first.dtype).removeprefix("torch.")
    if weights in ("float16", "bfloat16"):
        return f'; its weights are {weights}: precision="{weights}" runs it under autocast'
    return f"; its weights are {weights}: give teacher.float()" if weights == "float64" else ""
