"""Which files hold the weights that a path names: one file, the shards that an index lists, or those of a folder."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from decant.cache.io.opening import open_read
from decant.pipeline.errors import WeightsError

_INDEX_BYTES = 64 << 20  # no index of real weights is near this
_USUAL = (  # what libraries call them, the first choice first
    "model.safetensors.index.json",
    "model.safetensors",
    "weights.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
)
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")
_digested: dict[Path, tuple[str, list[tuple[int, ...]]]] = {}
"""The digest that this process last took of each file or folder, and what the system noted of its files before."""
_ELSEWHERE = {
    "zero_to_fp32.py": "a DeepSpeed checkpoint in parts; run its zero_to_fp32.py, and give the file that it writes",
    ".metadata": "a distributed checkpoint of torch; run: python -m torch.distributed.checkpoint.format_utils "
    "dcp_to_torch FOLDER weights.pth",
    "saved_model.pb": "a TensorFlow SavedModel; convert it to a PyTorch state dict",
}


def weight_files(path: Path) -> list[Path]:
    """The files to read, in order: `path` itself, or the shards of an index, which may be named by its folder.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "model.safetensors").write_bytes(b"")
    >>> [file.name for file in weight_files(folder)]
    ['model.safetensors']

    Raises WeightsError where there is no such file, a folder has none or several, or a shard is missing.
    """
    chosen = _in_folder(path) if path.is_dir() else path
    if not chosen.is_file():
        raise WeightsError(f"{chosen}: no such weights file")
    shards = shard_names(chosen)
    if shards is None:
        return [chosen]
    files = [chosen.parent / name for name in shards]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        raise WeightsError(
            f"{chosen}: {len(missing):,} of its {len(files):,} shards are missing: {', '.join(missing[:3])}"
        )
    return files


def content_sha256(path: Path) -> str | None:
    """SHA-256, in hexadecimal, of what `path` names: of a file its bytes, of shards those of all; None where it is not
    readable.
    """
    try:
        files = weight_files(path)
    except (WeightsError, OSError):
        return None
    stamps = _stamps(files)
    if files == [path]:
        digest = _sha256(path)
    else:
        digests = {file.name: _sha256(file) for file in files}
        digest = hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()
    _digested[path] = digest, stamps
    return digest


def require_unchanged(path: Path) -> None:
    """Raises WeightsError where the files of weights at `path`, which were just read, are no longer those whose digest
    this process has taken; nothing where it has taken none. They are read again only where size or times are others.
    """
    if path not in _digested:
        return
    digest, stamps = _digested[path]
    with contextlib.suppress(WeightsError, OSError):
        if _stamps(weight_files(path)) == stamps:
            return
    if content_sha256(path) != digest:
        raise WeightsError(
            f"{path}: its content has changed while this command ran; run the same command again"
        )


def _stamps(files: list[Path]) -> list[tuple[int, ...]]:
    """What the system notes of files, of which any write changes something."""
    found = [file.stat() for file in files]
    return [(one.st_dev, one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns) for one in found]


def shard_names(path: Path) -> list[str] | None:
    """The files that an index lists, sorted; None where `path` is no index. Raises WeightsError where one lies outside
    of its folder.
    """
    try:
        with open_read(path) as file:
            if file.read(1) != b"{" or path.stat().st_size > _INDEX_BYTES:
                return None
            content = json.loads(b"{" + file.read())
        names = sorted(set(content["weight_map"].values()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    odd = next((name for name in names if not _is_plain(name)), None)
    if odd is not None or not names:
        raise WeightsError(f"{path}: an index must name files of its own folder, found {str(odd)!r}")
    return names


def _is_plain(name: object) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and not set(name) & set("/\\\0\n")


def _in_folder(folder: Path) -> Path:
    """The one file of weights, or their index, in a folder."""
    names = sorted(entry.name for entry in folder.iterdir())
    for name in _USUAL:
        if name in names:
            return folder / name
    for name, what in _ELSEWHERE.items():
        if name in names:
            raise WeightsError(f"{folder}: {what}")
    found = [name for name in names if name.endswith(".index.json")] or list(_weights_among(names))
    if len(found) == 1:
        return folder / found[0]
    if found:
        raise WeightsError(
            f"{folder}: has several files of weights, {', '.join(found[:5])}; give one of them"
        )
    shown = ", ".join(names[:5]) or "nothing"
    raise WeightsError(f"{folder}: a folder without a file of weights; found {shown}")


def _weights_among(names: list[str]) -> Iterator[str]:
    for name in names:
        if name.endswith(_ENDINGS) and not name.startswith(
            ("optimizer", "scheduler", "training_args", "rng_")
        ):
            yield name


def _sha256(path: Path) -> str:
    with open_read(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
