"""Weights of finished runs: safetensors, written in one step, so under their name there is a whole file or none.

What users bring, in other forms and layouts, is read by `foreign_weights`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from decant.cache.io.files import write_atomically
from decant.cache.io.opening import require_file
from decant.pipeline.errors import WeightsError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
    "C64": torch.complex64,
}
"""Those that a network may have, by their names in a header."""


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
    """Copy the weights in `path`, which `save_weights` wrote, into `module`: all of them, or none and a WeightsError.

    What users bring is loaded by `foreign_weights.load_foreign_weights`.

    Raises WeightsError when the file is missing, unreadable, or does not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    own = module.state_dict()
    try:
        require_file(path)
        misfits = _misfits(own, path)
        if misfits:
            shown = "; ".join(misfits[:3]) + (f"; and {len(misfits) - 3:,} more" if len(misfits) > 3 else "")
            raise WeightsError(f"{path} does not fit this network: {shown}")
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file: {error}") from error
    for name, tensor in state.items():
        if not torch.equal(tensor.isfinite(), own[name].isfinite()):
            raise WeightsError(f"{path}: {name} has NaN or infinity, which no finished network has")
    module.load_state_dict(with_versions(module, state))


def with_versions(module: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the versions of the module's own state dict, which some modules ask for when they load one.

    >>> with_versions(nn.Linear(1, 1), {"bias": torch.zeros(1)})._metadata[""]
    {'version': 1}
    """
    versioned = module.state_dict()
    versioned.clear()
    versioned.update(state)
    return versioned


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


def _misfits(own: Mapping[str, Tensor], path: Path) -> list[str]:
    """What keeps the tensors of a file from being those of `own`, by its header: a phrase for each; none when they
    are.
    """
    with safetensors.safe_open(path, "pt") as file:
        theirs = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        shapes = {name: tuple(found.get_shape()) for name, found in theirs.items()}
        dtypes = {name: _DTYPES.get(found.get_dtype()) for name, found in theirs.items()}
    known = [name for name in own if name in theirs]
    return [
        *(
            f"{name} is {shapes[name]}, expected {tuple(own[name].shape)}"
            for name in known
            if shapes[name] != tuple(own[name].shape)
        ),
        *(
            f"{name} is {theirs[name].get_dtype()}, expected {str(own[name].dtype).removeprefix('torch.')}"
            for name in known
            if dtypes[name] != own[name].dtype
        ),
        *(f"{name} is missing" for name in own if name not in theirs),
        *(f"{name} is unexpected" for name in theirs if name not in own),
    ]
