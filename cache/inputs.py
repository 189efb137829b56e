"""The inputs of a batch, and the checksum that tells whether an input is the one that the teacher saw.

Tensors are read through their own methods, so that nothing here imports torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import ValueRefusedError
from decant.cache.io.checksum import crc32

CheckInputs = Literal["sample", "all", "off"]
"""Whose CRC-32 is compared with what the teacher saw: one input of a batch, every input, or none. The same values in
another layout or dtype are the same input: `decant.cache.alignment.same_input` says which.
"""

_SAME_SIZE = {1: "byte", 2: "short", 4: "int"}  # methods of a tensor that give integers of so many bytes


def one_input(inputs: Any, place: int) -> Any:
    """One input of a batch: a row, or of a dictionary {name: (B, …)} a dictionary of rows.

    >>> one_input({"input_ids": [[5, 6], [7, 8]], "attention_mask": [[1, 1], [1, 0]]}, 1)
    {'input_ids': [7, 8], 'attention_mask': [1, 0]}
    """
    if isinstance(inputs, Mapping):
        return {name: value[place] for name, value in inputs.items()}
    return inputs[place]


def each_input(inputs: Any) -> Iterator[Any]:
    """Every input of a batch, in order.

    >>> list(each_input({"input_ids": [[5, 6], [7, 8]]}))
    [{'input_ids': [5, 6]}, {'input_ids': [7, 8]}]
    """
    length = len(next(iter(inputs.values()), ())) if isinstance(inputs, Mapping) else len(inputs)
    return (one_input(inputs, place) for place in range(length))


def input_crc32(value: object) -> int | None:
    """CRC-32 of the bytes of a tensor, an array or an image, in C order; None for anything else.

    Of a dictionary it is the CRC-32 of its names and values, in the order of the names. Where the dictionary has an
    `attention_mask` (L,), values of that length count from the first to the last place where the mask is not 0:
    padding is no part of an input.

    >>> input_crc32(np.arange(6, dtype=np.uint8).reshape(2, 3)) == crc32(bytes([0, 1, 2, 3, 4, 5]))
    True
    >>> padded = {"input_ids": np.array([7, 8, 0]), "attention_mask": np.array([1, 1, 0])}
    >>> input_crc32(padded) == input_crc32({name: values[:2] for name, values in padded.items()})
    True
    >>> input_crc32("a text") is None
    True
    """
    if isinstance(value, Mapping):
        return _named_crc32(value)
    array = as_array(value)
    return None if array is None else crc32(np.ascontiguousarray(array).data)


def input_crc32_at(inputs: Any, place: int) -> int | None:
    """`input_crc32` of one input of a batch: of a batch in memory without a tensor of that input alone.

    >>> images = np.arange(32, dtype=np.uint8).reshape(2, 4, 4)
    >>> input_crc32_at(images, 1) == input_crc32(images[1])
    True
    """
    array = _in_place(inputs) if is_tensor(inputs) else inputs if type(inputs) is np.ndarray else None
    if array is None or array.ndim < 2 or array.dtype.hasobject:
        return input_crc32(one_input(inputs, place))
    return crc32(np.ascontiguousarray(array[place]).data)


def input_checksums(inputs: Any, count: int) -> NDArray[np.uint32]:
    """`input_crc32` of each of `count` inputs: a batch (B, …), a list of inputs, or a dictionary {name: (B, …)}.

    A batch on a GPU is copied once. Raises ValueRefusedError for another number of inputs, or one without a
    checksum.

    >>> images = np.zeros((2, 1, 4, 4), np.uint8)
    >>> input_checksums(images, 2).tolist() == [input_crc32(images[0]), input_crc32(images[1])]
    True
    """
    if isinstance(inputs, Mapping):
        batch: Any = {name: _on_host(value) for name, value in inputs.items()}
        lengths = {len(value) for value in batch.values() if hasattr(value, "__len__")}
    else:
        batch = _on_host(inputs)
        lengths = {len(batch)} if hasattr(batch, "__len__") else set()
    if lengths != {count}:
        found = ", ".join(f"{length:,}" for length in sorted(lengths)) or type(inputs).__name__
        raise ValueRefusedError(f"inputs: expected {count:,}, one for each index, found {found}")
    if isinstance(batch, np.ndarray) and batch.ndim > 1 and not batch.dtype.hasobject:
        # The same as below, five times as fast.
        return np.array([crc32(row) for row in np.ascontiguousarray(batch)], np.uint32)
    crcs = [input_crc32(one_input(batch, place)) for place in range(count)]
    if None in crcs:
        wrong = one_input(batch, crcs.index(None))
        kind = f"{type(wrong).__name__}{' of Python objects' if isinstance(wrong, np.ndarray) else ''}"
        raise ValueRefusedError(
            f"inputs: expected tensors, arrays, images, or dictionaries of tensors or arrays, found {kind}"
        )
    return np.array(crcs, np.uint32)


def _on_host(batch: Any) -> Any:
    values = batch
    if hasattr(batch, "to_numpy"):  # a table of pandas or polars
        with contextlib.suppress(TypeError, ValueError):  # as of arrays of pyarrow that hold texts
            values = batch.to_numpy()
    array = as_array(values)
    return values if array is None or not array.ndim else array


def _named_crc32(named: Mapping[str, Any]) -> int | None:
    mask = as_array(named.get("attention_mask"))
    inside = np.flatnonzero(mask) if mask is not None else np.empty(0, np.intp)
    used = slice(inside[0], inside[-1] + 1) if len(inside) else slice(0)
    crc = 0
    for name in sorted(named):
        array = as_array(named[name])
        if array is None:
            return None
        if mask is not None and array.shape[:1] == mask.shape:
            array = array[used]
        crc = crc32(np.ascontiguousarray(array).data, crc32(f"{name} ".encode(), crc))
    return crc


class TensorLike(Protocol):
    """What is used of a `torch.Tensor`."""

    def detach(self) -> TensorLike: ...
    def cpu(self) -> TensorLike: ...
    def numpy(self) -> NDArray[Any]: ...
    def element_size(self) -> int: ...
    def new_empty(self, size: int) -> Any: ...
    def view(self, dtype: Any) -> TensorLike: ...
    def float(self) -> TensorLike: ...


def is_tensor(value: object) -> TypeGuard[TensorLike]:
    """Whether a value is a tensor, without an import of torch."""
    # No loop over the names: this runs several times for each batch.
    return (
        hasattr(value, "detach")
        and hasattr(value, "cpu")
        and hasattr(value, "numpy")
        and hasattr(value, "element_size")
    )


def as_array(value: object) -> NDArray[Any] | None:
    """The bytes of a tensor, an array or an image as an array; None for anything else, and for an array of Python
    objects, whose bytes are addresses in this process.
    """
    if not is_tensor(value):
        array = np.asarray(value) if hasattr(value, "__array_interface__") else None
        return None if array is None or array.dtype.hasobject else array
    found = _in_place(value)
    if found is not None:
        return found
    tensor = value.detach().cpu()
    try:
        return np.asarray(tensor.numpy())
    except TypeError:  # bfloat16 and other dtypes that NumPy lacks: the same bytes as integers
        if tensor.element_size() not in _SAME_SIZE:
            raise
        integers = getattr(tensor.new_empty(0), _SAME_SIZE[tensor.element_size()])()
        return np.asarray(tensor.view(integers.dtype).numpy())


def _in_place(tensor: TensorLike) -> NDArray[Any] | None:
    """A tensor as an array that shares its memory; None where it lies on a device, is part of a computation or has a
    dtype that NumPy lacks.
    """
    try:
        return tensor.numpy()  # the usual case, in half the time of the calls that the others need
    except (TypeError, RuntimeError):
        return None


def as_values(value: Any) -> Any:
    """A tensor by its values as an array, wherever it lies and whatever computed it; anything else as it is.

    Dtypes that NumPy lacks, as bfloat16, become float32, which holds their values.

    >>> import torch
    >>> as_values(torch.ones(2, dtype=torch.bfloat16, requires_grad=True)), as_values("text")
    (array([1., 1.], dtype=float32), 'text')
    """
    if not is_tensor(value):
        return value
    found = _in_place(value)
    if found is not None:
        return found
    tensor = value.detach().cpu()
    try:
        return np.asarray(tensor.numpy())
    except TypeError:
        return np.asarray(tensor.float().numpy())
