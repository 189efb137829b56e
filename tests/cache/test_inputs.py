"""The checksum of an input, the inputs of a batch, and the keys that ask for them."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
import torch

from decant.cache import ValueRefusedError, each_input, input_checksums, input_crc32, one_input, split_keys
from decant.cache.inputs import input_crc32_at


def test_the_checksum_is_of_the_bytes_as_they_are() -> None:
    values = np.arange(12, dtype="u1").reshape(3, 4)
    expected = zlib.crc32(bytes(range(12)))
    assert input_crc32(values) == expected
    assert input_crc32(torch.from_numpy(values)) == expected
    assert input_crc32(torch.from_numpy(values.T.copy()).T) == expected, (
        "in C order, however it lies in memory"
    )
    assert input_crc32(torch.ones(3, requires_grad=True)) == zlib.crc32(np.ones(3, "f4").tobytes())
    assert input_crc32(np.zeros((0, 3))) == zlib.crc32(b"")
    assert input_crc32(torch.tensor(3.0)) == zlib.crc32(np.float32(3).tobytes())
    assert input_crc32("text") is None


def test_the_checksum_of_an_image_is_that_of_its_pixels() -> None:
    image = pytest.importorskip("PIL.Image")
    values = np.arange(48, dtype="u1").reshape(4, 4, 3)
    assert input_crc32(image.fromarray(values)) == zlib.crc32(values.tobytes())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn])
@pytest.mark.parametrize("shape", [(), (3, 4)])
def test_the_checksum_of_a_dtype_that_numpy_lacks_is_of_its_bytes(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    values = torch.linspace(-2, 2, 12)[: int(np.prod(shape))].reshape(shape).to(dtype)
    stored = bytes(values.clone().untyped_storage())
    assert input_crc32(values) == zlib.crc32(stored)
    assert input_crc32(values.transpose(0, -1).contiguous().transpose(0, -1)) == zlib.crc32(stored), (
        "in C order"
    )
    assert input_crc32(values.clone().requires_grad_(True)) == zlib.crc32(stored)


def test_an_object_that_can_be_detached_and_is_no_tensor_has_no_checksum() -> None:
    with io.BytesIO(b"abc") as raw, io.TextIOWrapper(raw) as text:
        assert input_crc32(text) is None


def test_a_checksum_needs_no_torch() -> None:
    script = (
        "import sys, numpy, decant\n"
        "assert decant.input_crc32(numpy.zeros(4, 'u1')) == 0x2144df1c\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def padded(mask: list[int], ids: list[int], before: int = 0, after: int = 0) -> dict[str, Any]:
    """A text as a batch holds it, with `before` and `after` places of padding."""
    return {
        "input_ids": torch.tensor([9] * before + ids + [7] * after),
        "attention_mask": torch.tensor([0] * before + mask + [0] * after),
    }


def test_the_checksum_of_a_text_is_that_of_its_own_tokens_whatever_it_is_padded_with() -> None:
    ids, mask = [5, 6, 8, 2], [1, 1, 0, 1]
    alone = input_crc32(padded(mask, ids))
    expected = zlib.crc32(
        b"attention_mask " + np.array(mask).tobytes() + b"input_ids " + np.array(ids).tobytes()
    )
    assert alone == expected
    for before, after in [(0, 3), (2, 0), (1, 50)]:
        assert input_crc32(padded(mask, ids, before, after)) == alone
    in_another_order = dict(reversed(padded(mask, ids, 0, 3).items()))
    assert input_crc32(in_another_order) == alone
    assert input_crc32({name: value.numpy() for name, value in padded(mask, ids).items()}) == alone
    nothing = {input_crc32(padded([], [], after=length)) for length in (0, 1, 4)}
    assert len(nothing) == 1


@pytest.mark.parametrize(
    "other",
    [
        padded([1, 1, 0, 1], [5, 6, 8, 3]),
        padded([1, 1, 1, 1], [5, 6, 8, 2]),
        padded([1, 1, 1, 0], [5, 6, 8, 2]),
        {**padded([1, 1, 0, 1], [5, 6, 8, 2]), "token_type_ids": torch.zeros(4)},
        {"ids": torch.tensor([5, 6, 8, 2]), "attention_mask": torch.tensor([1, 1, 0, 1])},
        {"input_ids": torch.tensor([5, 6, 8, 2])},
    ],
)
def test_the_checksum_of_another_text_is_another(other: dict[str, Any]) -> None:
    assert input_crc32(other) != input_crc32(padded([1, 1, 0, 1], [5, 6, 8, 2]))


def test_of_a_dictionary_of_anything_else_there_is_no_checksum() -> None:
    assert input_crc32({"input_ids": [1, 2]}) is None
    assert input_crc32({"input_ids": torch.ones(2), "text": "words"}) is None


def test_inputs_of_a_batch_are_its_rows_of_every_name() -> None:
    batch = {"input_ids": torch.arange(6).view(2, 3), "length": torch.tensor([3, 2])}
    assert one_input(batch, 1)["input_ids"].tolist() == [3, 4, 5]
    assert [int(row["length"]) for row in each_input(batch)] == [3, 2]
    assert [row.tolist() for row in each_input(torch.eye(2))] == [[1.0, 0.0], [0.0, 1.0]]


def test_a_table_has_the_checksums_of_its_rows() -> None:
    """As of pandas, which is read by columns."""

    class Table:
        def __len__(self) -> int:
            return 2

        def to_numpy(self) -> Any:
            return np.arange(6.0).reshape(2, 3)

    assert input_checksums(Table(), 2).tolist() == input_checksums(np.arange(6.0).reshape(2, 3), 2).tolist()


def test_objects_have_no_checksum_as_their_bytes_are_addresses() -> None:
    """As in a table with a column of texts: the next process would have found other checksums."""
    objects = np.array([["a", 1.5], ["b", 2.5]], dtype=object)
    assert input_crc32(objects) is None
    assert input_crc32_at(objects, 1) is None
    with pytest.raises(ValueRefusedError, match="found ndarray of Python objects"):
        input_checksums(objects, 2)

    class NeedsACopy(list[Any]):
        """As an array of pyarrow."""

        def to_numpy(self) -> Any:
            raise ValueError("needed to copy")

    with pytest.raises(ValueRefusedError, match="found str"):
        input_checksums(NeedsACopy(["a", "b"]), 2)


def test_a_view_before_the_first_is_refused() -> None:
    with pytest.raises(IndexError, match="view -1: views count from 0"):
        split_keys([(3, 0), (3, -1)], 10)
