"""Weights on disk: safetensors when written, safetensors or a published .pth when read.

A file is replaced in one step, so under its name there is a whole file or none. Nothing but tensors and plain values
is ever unpickled.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import pickle
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from decant.cache.io.files import write_atomically
from decant.pipeline.errors import WeightsError

_PICKLED = (".pth", ".pt", ".bin", ".tar")  # .tar as in checkpoint.pth.tar
_NESTED_UNDER = ("state_dict", "model_state_dict", "model", "net")
_WRAPPERS = ("module.", "_orig_mod.")  # DataParallel's and torch.compile's


def save_weights(path: str | os.PathLike[str], module: nn.Module, metadata: Mapping[str, str]) -> None:
    """Write the parameters and buffers of `module` to `path` as safetensors, with `metadata` in its header.

    The folder is made if need be. Raises OSError when it cannot be written; `path` is then as it was.
    """
    # Copies, as safetensors refuses tensors that share memory, which tied weights do.
    tensors = {
        name: tensor.detach().to("cpu", copy=True, memory_format=torch.contiguous_format)
        for name, tensor in module.state_dict().items()
    }
    write_atomically(Path(path), safetensors.torch.save(tensors, dict(metadata)))


def load_weights(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Copy the weights in `path` into `module`: all of them, or none and a WeightsError.

    `path` is .safetensors, or a .pth or .pt that holds a state dict, as it is or under a usual key. It may
    be of the whole module or of its child `body` alone, whose published checkpoints know nothing of
    preprocessing.
    Raises WeightsError when the file is missing, unreadable, holds code, or does not fit.
    """
    path = Path(path)
    own = module.state_dict()
    state = _named_like(own, _read_state(path))
    misfits = _misfits(own, state)
    if misfits:
        classes = _other_classes(own, state)
        shown = "; ".join(misfits[:3]) + (f"; and {len(misfits) - 3} more" if len(misfits) > 3 else "")
        raise WeightsError(f"{path} does not fit this network: {classes}{shown}")
    module.load_state_dict(state, strict=False)  # what may be missing, _misfits has decided


def weights_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256, in hexadecimal, of a state dict: of every name, dtype, shape and value, by sorted name.

    Values are hashed as little-endian bytes in row-major order, so neither the device, the memory format
    nor the order of the dict matters. Each tensor is preceded by a line of JSON, [name, dtype, shape],
    which also says how many bytes follow: no two state dicts give the same stream.
    """
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().clone(memory_format=torch.contiguous_format)
        header = [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape)]
        digest.update(json.dumps(header).encode() + b"\n")
        octets = tensor.reshape(-1).view(torch.uint8)  # numpy has no bfloat16, but any dtype is bytes
        if sys.byteorder == "big":
            octets = octets.view(-1, tensor.itemsize).flip(1).contiguous()
        digest.update(octets.numpy().data)
    return digest.hexdigest()


def _check_file(path: Path) -> None:
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")


def _read_state(path: Path) -> dict[str, Tensor]:
    _check_file(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    if path.suffix in _PICKLED:
        return _read_pickled(path)
    raise WeightsError(f"{path}: weights end in .safetensors, .pth or .pt, not {path.suffix or 'nothing'}")


def _read_pickled(path: Path) -> dict[str, Tensor]:
    try:
        # Many published checkpoints hold the training script's options: a Namespace of plain values.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if foreign is None:
            raise WeightsError(f"{path} is not a readable torch file") from error
        reason = f"it holds {foreign[1]}, and unpickling that could run code; save its state dict alone"
        raise WeightsError(f"{path} was not loaded: {reason}") from error
    except Exception as error:  # a file that is no pickle may end in any error of what reads it
        raise WeightsError(f"{path} is not a readable torch file") from error
    state = _unwrap(content)
    if not state:
        keys = ", ".join(map(str, content)) if isinstance(content, Mapping) else type(content).__name__
        raise WeightsError(f"{path} holds no state dict; found {keys or 'nothing'}")
    return state


def _unwrap(content: object) -> dict[str, Tensor]:
    """The tensors of a state dict, however deep it lies under the usual keys; empty when there is none."""
    if not isinstance(content, Mapping):
        return {}
    for key in _NESTED_UNDER:
        if isinstance(content.get(key), Mapping):
            return _unwrap(content[key])
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _named_like(own: Mapping[str, Tensor], state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` under the names of `own`: wrappers' prefixes off, and "body." on where it is a body's alone."""
    while prefix := next((p for p in _WRAPPERS if all(name.startswith(p) for name in state) and state), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    state = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    of_body = {f"body.{name}": tensor for name, tensor in state.items()}
    if len(of_body.keys() & own.keys()) <= len(state.keys() & own.keys()):
        return state
    preprocess = {name: tensor for name, tensor in own.items() if name.startswith("preprocess.")}
    return preprocess | of_body


def _misfits(own: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> list[str]:
    """What keeps `state` from fitting, a phrase for each tensor; empty when it fits."""
    # Batch counters are younger than many published checkpoints, and nothing is computed from them.
    missing = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in own]
    reshaped = [name for name in own if name in state and own[name].shape != state[name].shape]
    return [
        *(f"{name} is {tuple(state[name].shape)}, expected {tuple(own[name].shape)}" for name in reshaped),
        *(f"{name} is missing" for name in missing),
        *(f"{name} is unexpected" for name in unexpected),
    ]


def _other_classes(own: dict[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """The plain cause of a last layer that differs in its first dimension alone, or nothing."""
    last = next((name for name in reversed(own) if own[name].ndim >= 2), None)
    if last is None or last not in state:
        return ""
    expected, got = own[last].shape, state[last].shape
    if expected[1:] != got[1:] or expected == got:
        return ""
    return f"it has {got[0]} classes, the data has {expected[0]}; "
