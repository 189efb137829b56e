"""Arrays in files of other programs: .npy, .pt, and HDF5 datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from decant.pipeline.errors import DataError


def read_table(source: str) -> NDArray[Any]:
    """An array from FILE.npy, FILE.pt (one tensor, nothing else is unpickled) or FILE.h5:DATASET.

    Raises DataError for anything else, FileNotFoundError.
    """
    name, _, inner = source.partition(":")
    path = Path(name)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        if path.suffix == ".npy":
            table = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(table, np.ndarray):  # and not the many of an .npz under another name
                return table
        if path.suffix in (".pt", ".pth"):
            return _tensor(path)
        if path.suffix in (".h5", ".hdf5") and inner:
            with h5py.File(path, "r") as file:
                return np.asarray(file[inner])
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{source}: cannot be read as a table ({error})") from None
    raise DataError(f"{source}: expected FILE.npy, FILE.pt or FILE.h5:DATASET")


def _tensor(path: Path) -> NDArray[Any]:
    import pickle

    import torch

    try:
        tensor = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
        raise DataError(f"{path}: not a file of one tensor") from error
    if not isinstance(tensor, torch.Tensor):
        raise DataError(f"{path}: expected one tensor, found {type(tensor).__name__}")
    return tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
