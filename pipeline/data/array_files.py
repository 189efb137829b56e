"""Arrays in files of other programs: .npy, .npz, .pt, and HDF5 datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from decant.cache.io import bus_errors
from decant.cache.io.mapped import MappedFile
from decant.cache.io.opening import open_read, require_file
from decant.cache.io.system import available_memory
from decant.pipeline.data.stored_arrays import stored_arrays
from decant.pipeline.errors import DataError
from decant.pipeline.support.archives import require_fair


def read_table(source: str) -> NDArray[Any]:
    """An array from FILE.npy, FILE.npz, FILE.pt (tensors, nothing else is unpickled) or FILE.h5. Where a file has
    several, FILE:NAME says which.

    Raises DataError for anything else, FileNotFoundError.
    """
    path, inner = Path(source), ""
    if not path.is_file():
        name, _, inner = source.rpartition(":")
        path = Path(name or source)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with _named(source, "a table", "save it as FILE.npy, which is not read whole"):
        require_file(path)
        if path.suffix == ".npy" and not inner:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(table, np.memmap):  # and not the many of an .npz under another name
                return _mapped(path, table)
        if path.suffix == ".npz":
            with open_read(path) as file:
                require_fair(file)
            with np.load(path, allow_pickle=False) as tables:
                return np.asarray(tables[_only(path, inner, tables.files)])
        if path.suffix in (".pt", ".pth"):
            return _tensor(path, inner)
        if path.suffix in (".h5", ".hdf5"):
            with h5py.File(path, "r") as file:
                return _dataset(file, _only(path, inner, _datasets(file)))
    raise DataError(f"{source}: expected FILE.npy, FILE.npz:NAME, FILE.pt or FILE.h5:DATASET")


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a .npz file; those that are not compressed, as `numpy.savez` leaves them, are mapped and not read
    whole. Raises DataError for anything else, FileNotFoundError.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    with _named(path, "a .npz file", "import it in parts"):
        with open_read(path) as file:
            require_fair(file)
        with np.load(path, allow_pickle=False) as tables:
            if isinstance(tables, np.ndarray):
                raise DataError(f"{path}: expected a .npz file of several arrays, found one array")
            mapped = stored_arrays(path)
            return {
                name: mapped[name] if name in mapped else np.asarray(tables[name]) for name in tables.files
            }


@contextmanager
def _named(source: str | Path, kind: str, instead: str) -> Iterator[None]:
    """Raises DataError, naming the file, for whatever ends its reading. instead: what to do where memory is short."""
    try:
        yield
    except DataError:
        raise
    except MemoryError:
        raise DataError(f"{source}: out of memory; {instead}") from None
    except Exception as error:  # a damaged file ends in any error of what reads it
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{source}: cannot be read as {kind} ({reason})") from None


def _mapped(path: Path, table: np.memmap[Any, Any]) -> NDArray[Any]:
    """The same array, of a file that may be cut short while it is read: what is gone is then zeros, and no signal."""
    if not table.nbytes:
        return table
    with open_read(path) as file:
        mapped = MappedFile(file.fileno(), table.offset + table.nbytes, path)
    bus_errors.guard()
    order: Literal["C", "F"] = "C" if table.flags.c_contiguous else "F"
    return np.ndarray(table.shape, table.dtype, mapped, table.offset, order=order)


def _only(path: Path, inner: str, names: Sequence[str]) -> str:
    """The array that is named, or the only one. Raises DataError where there are others and none is named."""
    if inner in names or (inner and inner.strip("/") in names):
        return inner
    if not inner and len(names) == 1:
        return names[0]
    listed = ", ".join(names) or "no arrays"
    if inner:
        raise DataError(f"{path}: has no array {inner!r}; it has {listed}")
    raise DataError(f"{path}: has {listed}; say which, as {path}:{names[0] if names else 'NAME'}")


def _dataset(file: h5py.File, name: str) -> NDArray[Any]:
    """An array of an HDF5 file. Raises ValueError where its bytes lie in other files, which nobody has named."""
    found = file[name]
    if found.is_virtual or found.external:
        raise ValueError(f"{name} has its values in other files; copy them into this one")
    _require_room(found.nbytes)
    return np.asarray(found)


def _datasets(file: h5py.File) -> list[str]:
    names: list[str] = []

    def note(name: str, item: object) -> None:
        if isinstance(item, h5py.Dataset):
            names.append(name)

    file.visititems(note)
    return names


def _tensor(path: Path, inner: str) -> NDArray[Any]:
    import pickle

    import torch

    with open_read(path) as file:
        require_fair(file)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"{path}: not a file of tensors") from error
    if isinstance(found, dict):
        tensors = [str(name) for name, value in found.items() if isinstance(value, torch.Tensor)]
        found = found.get(_only(path, inner, tensors))
    elif inner:
        raise DataError(f"{path}: has no names, so no {inner!r}")
    if not isinstance(found, torch.Tensor):
        raise DataError(f"{path}: expected a tensor, found {type(found).__name__}")
    tensor = found.detach()
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized or tensor.is_complex():
        raise DataError(f"{path}: expected a plain tensor of real numbers, found {_kind(tensor)}")
    _require_room(tensor.nbytes)  # one that repeats its rows may say more than its file holds
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()


def _kind(tensor: Any) -> str:
    return "one without values (meta)" if tensor.is_meta else f"{tensor.dtype}, {tensor.layout}"


def _require_room(size: int) -> None:
    """Raises ValueError where a table takes more bytes than are free in memory."""
    free = available_memory()
    if size > free:
        raise ValueError(
            f"its {size:,} bytes are more than the {free:,} that are free in memory; save it as FILE.npy, which is "
            "not read whole"
        )
