"""Weights that users bring: files of any usual form and layout, found by content and matched by name and shape.

loading.py         the one function that the phases call: what is taken, left out, said and refused
matching.py        the names of a file against the names of a network
misfits.py         what keeps a file from fitting, and what may be missing;  wording.py  names of a file in messages
partial_files.py   files of a part of a network or of its training, and what to do about them
tensors.py         every tensor of a checkpoint by its path, however deep it lies
choosing.py        which of several state dicts in a file is taken
reading.py         safetensors, torch's formats and TorchScript → nested containers of tensors
class_names.py     the names of the classes that lie in a file or beside it
signatures.py      what a file is by its first bytes, and what to do where it is no weights
pickled_types.py   the harmless types that may lie beside weights; none of them is ever built
values.py          dtypes, NaN, and what else the tensors themselves may have wrong
"""

from __future__ import annotations

from decant.pipeline.networks.foreign_weights.class_names import names_in_file
from decant.pipeline.networks.foreign_weights.loading import (
    LoadedWeights,
    count_outputs,
    load_foreign_weights,
)

__all__ = ["LoadedWeights", "count_outputs", "load_foreign_weights", "names_in_file"]
