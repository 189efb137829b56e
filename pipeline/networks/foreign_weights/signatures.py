"""What a file is by its first bytes: a form that weights are read from, or what else it is and what to do about it."""

from __future__ import annotations

import re
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Literal

from decant.cache.io.opening import open_read

Form = Literal["safetensors", "torch", "legacy torch", "torchscript"]

_LEGACY_TORCH = b"\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19"
"""What `torch.save` before 1.6 began with: its magic number, pickled."""
_HTML = re.compile(rb"\s*<(!doctype|html|head|body|\?xml|script)", re.IGNORECASE)
_LFS = b"version https://git-lfs.github.com/spec/"
_BEGINNINGS: dict[bytes, str] = {
    b"\x89HDF\r\n\x1a\n": "an HDF5 file, as Keras and TensorFlow keep weights in; convert them to a PyTorch state dict",
    b"GGUF": "a GGUF file of quantised weights; give the weights that it was made from",
    b"\x93NUMPY": "a NumPy array; save a PyTorch state dict",
    b"MATLAB": "a MATLAB file; save a PyTorch state dict",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
    b"BZh": "compressed with bzip2; unpack it first",
    b"\xfd7zXZ\x00": "compressed with xz; unpack it first",
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive; unpack it first",
    b"Rar!": "a RAR archive; unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with Zstandard; unpack it first",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
}
_AT_FOUR: dict[bytes, str] = {
    b"TFL3": "a TensorFlow Lite network; give the weights that it was made from",
    b"PTMF": "a PyTorch Mobile file; give the weights that it was made from",
    b"ET12": "an ExecuTorch program; give the weights that it was made from",
}
_LUA = "a file of Lua Torch, which PyTorch cannot read; save its weights as a PyTorch state dict"


class NotWeightsError(Exception):
    """Why a file is not one that weights are read from: a phrase that goes after "it is"."""


def form_of(path: Path) -> Form:
    """The form of a file of weights. Raises NotWeightsError, saying what the file is instead."""
    size = path.stat().st_size
    if not size:
        raise NotWeightsError("empty")
    with open_read(path) as file:
        head = file.read(2048)
    if head.startswith(b"PK"):
        return _form_of_zip(path, size)
    if _LEGACY_TORCH in head[:32]:
        return "legacy torch"
    if _is_safetensors(head, size):
        return "safetensors"
    raise NotWeightsError(_what_else(path, head, size))


def _is_safetensors(head: bytes, size: int) -> bool:
    """Whether a file begins as safetensors do; raises NotWeightsError where one was cut short."""
    if len(head) < 10 or head[8:9] != b"{":
        return False
    (header,) = struct.unpack("<Q", head[:8])
    if header > 100_000_000:  # what the format allows
        return False
    if 8 + header > size:
        raise NotWeightsError(
            f"cut short: it has {size:,} bytes, of which its header alone takes {8 + header:,}"
        )
    return True


def _form_of_zip(path: Path, size: int) -> Form:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except Exception:  # a damaged archive ends in any error
        raise NotWeightsError(
            f"cut short or damaged: it has {size:,} bytes; copy or download it again"
        ) from None
    inner = {name.partition("/")[2] for name in names}
    if "data.pkl" in inner:
        return "torchscript" if "constants.pkl" in inner else "torch"
    if inner & {"archive_format", "models/model.json"} or "serialized_exported_program.json" in names:
        raise NotWeightsError(
            "a program of torch.export; save its weights alone: torch.save(torch.export.load(FILE).state_dict, …)"
        )
    if "model.weights.h5" in names:
        raise NotWeightsError("a Keras archive; convert its weights to a PyTorch state dict")
    if names and all(name.endswith(".npy") for name in names):
        raise NotWeightsError("an archive of NumPy arrays; save a PyTorch state dict")
    shown = ", ".join(names[:3]) or "nothing"
    raise NotWeightsError(
        f"a zip archive without torch's data.pkl; found {shown}; if weights are in it, unpack it"
    )


def _what_else(path: Path, head: bytes, size: int) -> str:
    """What a file is that holds no weights."""
    if head.startswith(_LFS):
        length = re.search(rb"\nsize (\d+)", head)
        real = f" to a file of {int(length[1]):,} bytes" if length else ""
        return f"a Git LFS pointer{real}, and not the file itself; run: git lfs pull"
    if _HTML.match(head):
        return "an HTML page, as a failed download leaves; download it again"
    for beginning, what in _BEGINNINGS.items():
        if head.startswith(beginning):
            return what
    if head[4:8] in _AT_FOUR:
        return _AT_FOUR[head[4:8]]
    if path.suffix == ".pb" or _is_onnx(head):
        return "an ONNX or TensorFlow graph; give the PyTorch weights that it was made from"
    if re.match(rb"[34]\x00\x00\x00\x01\x00\x00\x00|[34]\n1\n", head.replace(b"\x03\0\0\0", b"3\0\0\0", 1)):
        return _LUA
    if head[:4] == b"\x04\0\0\0" or path.suffix == ".t7":
        return _LUA
    if head[257:262] == b"ustar":
        return _tar(path)
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return (
            "a plain pickle, and unpickling that could run code; where it was made, save its state dict alone with "
            "torch.save or safetensors"
        )
    if head.lstrip()[:1] in (b"{", b"["):
        return "JSON text, and no index of shards"
    return f"of no known form, or damaged ({size:,} bytes, which begin with {head[:8].hex(' ')})"


def _is_onnx(head: bytes) -> bool:
    """Whether it begins as an ONNX ModelProto does: ir_version, then producer_name, opset or graph."""
    return len(head) > 16 and head[0] == 0x08 and 0 < head[1] < 32 and head[2] in (0x12, 0x1A, 0x3A, 0x42)


def _tar(path: Path) -> str:
    try:
        with tarfile.open(path) as archive:
            names = archive.getnames()
    except Exception:
        return "a damaged tar archive"
    if "storages" in names and "tensors" in names:
        return (
            "in the tar format of the first PyTorch; load it with an old torch and save its state dict again"
        )
    return f"a tar archive of {', '.join(names[:3])}; unpack it first"
