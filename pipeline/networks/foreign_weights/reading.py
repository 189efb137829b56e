"""Files of weights read as nested containers of tensors, whatever their form; nothing in them is ever run."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import warnings
import zipfile
from pathlib import Path

import safetensors.torch
import torch

from decant.cache.io.opening import open_read
from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.foreign_weights.pickled_types import allowed
from decant.pipeline.networks.foreign_weights.signatures import NotWeightsError, form_of
from decant.pipeline.networks.foreign_weights.wording import listed, shown
from decant.pipeline.support.archives import require_fair
from decant.pipeline.support.weight_files import weight_files

_CLAIMED = {
    ".safetensors": "safetensors",
    ".pth": "torch",
    ".pt": "torch",
    ".bin": "torch",
    ".tar": "torch",
    ".ckpt": "torch",
}


def read_checkpoint(path: Path) -> object:
    """What lies in a file, in the shards of an index, or in a folder of either: nested containers of tensors and plain
    values.

    The content decides how a file is read, not its ending: safetensors, either format of `torch.save`, or TorchScript.
    Raises WeightsError where there is no such file, or it is unreadable, holds code, or is something else.
    """
    files = weight_files(path)
    if len(files) == 1:
        return _read_quietly(files[0])
    merged: dict[object, object] = {}
    for file in files:
        content = _read_quietly(file)
        if not isinstance(content, dict):
            raise WeightsError(f"{file}: a shard must hold a state dict, found {type(content).__name__}")
        merged.update(content)
    return merged


def _read_quietly(path: Path) -> object:
    """`_read` without what torch and zipfile warn of: an odd file is read, or refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return _read(path)


def _read(path: Path) -> object:
    claimed = _CLAIMED.get(path.suffix.lower(), "weights")
    try:
        with open_read(path) as file:
            require_fair(file)
        form = form_of(path)
        match form:
            case "safetensors":
                claimed = form
                return safetensors.torch.load_file(path)
            case "torchscript":
                return _read_torchscript(path)
            case _:
                return _read_pickled(path)
    except NotWeightsError as error:
        raise WeightsError(f"{path} is not a readable {claimed} file: it is {error}") from None
    except WeightsError:
        raise
    except OSError as error:
        raise WeightsError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:  # a damaged file ends in any error of the machinery that reads it
        size = path.stat().st_size
        reason = f"it is damaged or cut short ({size:,} bytes): {_one_line(error)}"
        raise WeightsError(f"{path} is not a readable {claimed} file: {reason}") from error


def _read_pickled(path: Path) -> object:
    with allowed():
        try:
            with open_read(path) as file:  # by its path torch would go by its ending
                return torch.load(file, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise WeightsError(f"{path} was not loaded: {_why_refused(path, error)}") from error


def _why_refused(path: Path, error: pickle.UnpicklingError) -> str:
    """What a pickle has that is not read. Raises `error` again where it is damaged."""
    names = _refused_types(path, error)
    if "DTensor" in str(error) or "DTensor" in names:
        return "it holds DTensors, the parts of a distributed run; save the full tensors of its state dict"
    if names:
        return (
            f"it holds {names}, and unpickling that could run code; where the file comes from, save its state dict "
            "alone: torch.save(network.state_dict(), FILE)"
        )
    protocol = _protocol(path)
    if protocol > 2:
        return f"it was saved with pickle_protocol = {protocol}; save it again with that of torch.save, which is 2"
    raise error


def _protocol(path: Path) -> int:
    """The protocol of a pickle in either format of torch.save; 2 where that is not to be found."""
    try:
        with zipfile.ZipFile(path) as archive:
            head = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))[:2]
    except Exception:
        with open_read(path) as file:
            head = file.read(2)
    return head[1] if head[:1] == b"\x80" and head[1] <= pickle.HIGHEST_PROTOCOL else 2


def _read_torchscript(path: Path) -> object:
    """The modules of a TorchScript archive as `ScriptObject`, with their tensors by name.

    Only the archive's pickle and the storages that it refers to are copied, into an archive that `torch.load` reads
    with `weights_only`: its code is neither compiled nor run, which torch.jit.load would do.
    """
    copied = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copied, "w", zipfile.ZIP_STORED) as target:
        for member in archive.infolist():
            inner = member.filename.partition("/")[2]
            if inner.startswith("data/") or inner in ("data.pkl", "version", "byteorder", ".format_version"):
                if member.compress_type != zipfile.ZIP_STORED:
                    raise ValueError(f"{member.filename} is compressed")
                target.writestr(f"archive/{inner}", archive.read(member))
        types = _types_in(archive.read(next(n for n in archive.namelist() if n.endswith("/data.pkl"))))
    own = tuple(name for name in types if name.startswith(("__torch__.", "torch.jit._pickle.")))
    copied.seek(0)
    with allowed(own):
        return torch.load(copied, map_location="cpu", weights_only=True)


def _types_in(pickled: bytes) -> list[str]:
    """Full names of the globals that a pickle asks for."""
    found = (str(arg).replace(" ", ".") for op, arg, _ in pickletools.genops(pickled) if op.name == "GLOBAL")
    return sorted(set(found))


def _refused_types(path: Path, error: pickle.UnpicklingError) -> str:
    """The types for which a file was refused, at most three of them named; empty where it was refused for another
    reason.
    """
    first = re.search(r"GLOBAL (\S+)", str(error))
    if first is None:
        return ""
    try:
        with open_read(path) as file:
            names = sorted(torch.serialization.get_unsafe_globals_in_checkpoint(file))
    except Exception:  # of the legacy format the list is not to be had
        names = []
    if first[1] not in names and f"builtins.{first[1]}" not in names:
        return shown(first[1])
    return listed(names, 3)


def _one_line(error: Exception) -> str:
    inner = re.search(r"WeightsUnpickler error: (.*)", str(error))  # torch puts half a page around it
    return shown(" ".join((inner[1] if inner else str(error)).split()) or type(error).__name__)
