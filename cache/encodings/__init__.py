"""How a teacher's outputs are stored: one module an encoding, all behind the interface of `Encoding`.

encoding.py      the interface;  log_sums.py, half.py, ids.py  arithmetic that encodings share
dense.py         every logit;  quantised.py  every logit as a byte
sparse.py        the largest logits, or draws (draws.py), and the mass of the others;  sparse_rows.py  its rows
temperatures.py  what a sparse row proves at another temperature;  survey.py  how many outputs a row needs
hidden.py        hidden states, and the weights of the last layer

>>> import decant
>>> decant.encodings.Dense("float32").identity
{'dtype': 'float32'}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from decant.cache.encodings.dense import Dense
from decant.cache.encodings.encoding import AxisName, Column, Encoding
from decant.cache.encodings.hidden import Head, Hidden
from decant.cache.encodings.quantised import Quantised
from decant.cache.encodings.sparse import Sparse
from decant.cache.encodings.sparse_rows import SparseRows
from decant.cache.errors import FormatError, shorten

__all__ = [
    "AxisName",
    "Column",
    "Dense",
    "Encoding",
    "Head",
    "Hidden",
    "Quantised",
    "Sparse",
    "SparseRows",
    "encoding_of",
]

_KINDS: dict[str, type[Encoding]] = {
    "dense": Dense,
    "dense-u8": Quantised,
    "sparse": Sparse,
    "hidden": Hidden,
}


def encoding_of(content: Mapping[str, Any]) -> Encoding:
    """The encoding that `identity.encoding` of a manifest describes. Raises FormatError for one that is not known.

    >>> encoding_of({"dtype": "float16", "teacher_precision": "float32"})
    Dense(dtype='float16')
    """
    kind = content.get("kind", "dense")  # version 1 has no `kind`
    if not isinstance(kind, str) or kind not in _KINDS:
        raise FormatError(
            f"manifest: identity.encoding.kind must be one of {', '.join(_KINDS)}, found {shorten(kind)}"
        )
    return _KINDS[kind].from_identity(content)
