"""Encodings: one contract for all of them, and nothing outside an encoding knows how it stores a row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
import pytest
from numpy.typing import NDArray

from decant.cache import FormatError, LogitCache, LogitCacheWriter, Manifest, ValueRefusedError, encodings
from decant.cache.copied_views import copy_view
from decant.cache.encodings import Column, Dense, Encoding, Quantised, Sparse, encoding_of
from decant.cache.format.tables import BLOCK_BYTES, rows_per_block
from tests.helpers.caches import leftovers

N, C, V = 50, 1000, 2


@dataclass(frozen=True)
class Centred(Encoding):
    """Of the tests alone: a row's mean in one table, and what remains of each logit in another."""

    @property
    def identity(self) -> dict[str, Any]:
        return {"kind": "centred"}

    @classmethod
    def from_identity(cls, content: Mapping[str, Any]) -> Self:
        return cls()

    @property
    def logits_dtype(self) -> np.dtype[Any]:
        return np.dtype("<f4")

    def columns(self, num_outputs: int) -> dict[str, Column]:
        return {
            "means": Column((), np.dtype("<f4")),
            "remains": Column((num_outputs,), np.dtype("<f2")),
        }

    def encode(
        self, logits: NDArray[np.floating], samples: NDArray[np.int64], view: int
    ) -> dict[str, NDArray[Any]]:
        means = logits.mean(axis=-1, dtype="f4")
        rows = {"means": means, "remains": (logits - means[:, None]).astype("f2")}
        self.check(rows, samples, view, logits.shape[1])
        return rows

    def check(
        self, rows: Mapping[str, NDArray[Any]], samples: NDArray[np.int64], view: int, num_outputs: int
    ) -> None:
        bad = np.flatnonzero(~np.isfinite(rows["remains"]).all(axis=1))
        if len(bad):
            raise ValueRefusedError(f"sample {samples[bad[0]]}, view {view}: not finite")

    def decode(
        self, rows: Mapping[str, NDArray[Any]], num_outputs: int, temperature: float = 1.0
    ) -> NDArray[np.floating]:
        result: NDArray[np.floating] = rows["remains"].astype("f4") + rows["means"][..., None]
        return result


EXACT = [Dense("float16"), Dense("float32"), Centred()]
"""What gives back values that have few bits."""
ROUNDED = [Quantised(), Sparse(64, (1.0, 4.0)), Sparse(7, (0.5, 1.0)), Sparse(C, (1.0,))]


@pytest.fixture(params=EXACT + ROUNDED, ids=str)
def encoding(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Encoding:
    monkeypatch.setitem(encodings._KINDS, "centred", Centred)
    found: Encoding = request.param
    return found


def manifest_of(encoding: Encoding, **teacher: Any) -> Manifest:
    return Manifest.build(num_samples=N, num_outputs=C, num_views=V, encoding=encoding, teacher=teacher)


def raw_logits(view: int) -> NDArray[np.floating]:
    """(N, C) whose values and means are exact in every dtype: an encoding gives them back as they are."""
    values = np.random.default_rng(view).integers(-64, 64, (N, C)).astype("f8")
    values[:, 1::2] = -values[:, ::2]
    return values + 4.0


def stored_logits(encoding: Encoding, view: int) -> NDArray[np.floating]:
    """(N, C) as they come back from a cache."""
    if encoding in EXACT:
        return raw_logits(view)
    rows = encoding.encode(raw_logits(view), np.arange(N), view)
    return encoding.decode(rows, C)


def write(writer: LogitCacheWriter, samples: NDArray[np.intp], view: int) -> None:
    writer.write(samples, raw_logits(view)[samples], labels=samples % C, input_crc32=samples, view=view)


def build(path: Path, encoding: Encoding) -> Path:
    with LogitCacheWriter(path, manifest_of(encoding)) as writer:
        for view in range(V):
            for samples in np.array_split(np.random.default_rng(5).permutation(N), 7):
                write(writer, samples, view)
        return writer.publish()


def test_settings_survive_the_manifest(encoding: Encoding) -> None:
    again = Manifest.from_json(manifest_of(encoding).to_json())
    assert again.encoding == encoding == encoding_of(encoding.identity)
    assert encoding_of({**encoding.identity, "teacher_precision": "float32"}) == encoding


def test_rows_decode_to_what_was_encoded(encoding: Encoding) -> None:
    rows = encoding.encode(raw_logits(0), np.arange(N), 0)
    columns = encoding.columns(C)
    assert list(rows) == list(columns)
    for name, column in columns.items():
        assert (rows[name].shape, rows[name].dtype) == ((N, *column.shape), column.dtype)
        assert column.per_view
    encoding.check(rows, np.arange(N), 0, C)
    found = encoding.decode(rows, C)
    assert found.dtype == encoding.logits_dtype
    assert np.array_equal(found, stored_logits(encoding, 0))
    one = encoding.decode({name: row[3] for name, row in rows.items()}, C)
    assert np.array_equal(one, found[3])


def test_a_row_takes_the_bytes_that_it_says(encoding: Encoding) -> None:
    rows = encoding.encode(raw_logits(0), np.arange(N), 0)
    assert sum(row.nbytes for row in rows.values()) == N * encoding.row_bytes(C)
    block = rows_per_block(manifest_of(encoding)) * encoding.row_bytes(C)
    assert BLOCK_BYTES // 2 < block <= BLOCK_BYTES


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused_with_its_sample_and_view(encoding: Encoding, value: float) -> None:
    logits = raw_logits(0)[:3]
    logits[1, 7] = value
    with np.errstate(invalid="ignore"), pytest.raises(ValueRefusedError, match="sample 9, view 1: "):
        encoding.encode(logits, np.array([4, 9, 2]), 1)


@pytest.mark.parametrize("placement", ["mapped", "ram"])
@pytest.mark.parametrize("verify", ["open", "lazy", "off"])
def test_a_cache_gives_back_what_was_written(
    tmp_path: Path, encoding: Encoding, placement: Any, verify: Any
) -> None:
    cache = LogitCache.open(build(tmp_path / "cache.h5", encoding), verify=verify, table=placement)
    assert cache.verify() == []
    indices = np.array([3, -1, 49, 3, 31, 32])
    for view in range(V):
        assert np.array_equal(cache.logits(indices, view), stored_logits(encoding, view)[indices])
        assert np.array_equal(cache.logits(7, view), stored_logits(encoding, view)[7])
    mixed = [view % V for view in range(len(indices))]
    expected = [stored_logits(encoding, view)[index] for view, index in zip(mixed, indices, strict=True)]
    assert np.array_equal(cache.logits(indices, mixed), np.stack(expected))
    assert cache.logits(indices).dtype == encoding.logits_dtype == cache.manifest.dtype
    assert np.array_equal(cache.labels, np.arange(N))
    assert np.array_equal(cache.input_crc32, np.tile(np.arange(N), (V, 1)))


def test_hdf5_finds_every_table_of_the_encoding(tmp_path: Path, encoding: Encoding) -> None:
    with h5py.File(build(tmp_path / "cache.h5", encoding)) as file:
        assert list(file) == sorted([*encoding.columns(C), "labels", "input_crc32", "blocks", "seal"])
        for view in range(V):
            for name, rows in encoding.encode(raw_logits(view), np.arange(N), view).items():
                np.testing.assert_array_equal(file[name][view], rows)


def test_a_changed_byte_of_any_table_is_found(tmp_path: Path, encoding: Encoding) -> None:
    path = build(tmp_path / "cache.h5", encoding)
    with h5py.File(path) as file:
        places = {name: file[name].id.get_offset() for name in encoding.columns(C)}
    for name, place in places.items():
        content = bytearray(path.read_bytes())
        content[place + 3] ^= 1
        (tmp_path / "changed.h5").write_bytes(content)
        problems = LogitCache.open(tmp_path / "changed.h5").verify()
        assert [problem.split(" (rows")[0] for problem in problems] == ["view 0, block 0"], name


def test_a_resumed_writer_and_one_that_takes_over_write_the_same_bytes(
    tmp_path: Path, encoding: Encoding
) -> None:
    whole = build(tmp_path / "whole.h5", encoding).read_bytes()
    path = tmp_path / "cache.h5"
    with LogitCacheWriter(path, manifest_of(encoding)) as writer:
        write(writer, np.arange(33), 0)
        write(writer, np.arange(N), 1)
        # Another builder that cannot take the file of this one copies its blocks instead.
        with LogitCacheWriter(path, manifest_of(encoding)) as other:
            assert other.is_written(1).all()
            for view in range(V):
                write(other, np.flatnonzero(~other.is_written(view)), view)
            other.publish()
    assert path.read_bytes() == whole
    assert leftovers(tmp_path) == []


def test_a_copied_view_has_the_very_bytes_of_its_source(tmp_path: Path, encoding: Encoding) -> None:
    """Decoded and encoded again, a row need not be what it was."""
    rough = np.random.default_rng(8).normal(size=(N, C)).astype("f4") * 30
    with LogitCacheWriter(tmp_path / "source.h5", manifest_of(encoding).with_views(1)) as writer:
        writer.write(np.arange(N), rough, labels=np.arange(N), input_crc32=np.arange(N))
        source = LogitCache.open(writer.publish())
    with LogitCacheWriter(tmp_path / "copy.h5", manifest_of(encoding)) as writer:
        for view in range(V):
            copy_view(writer, view, source, 0)
        copied = LogitCache.open(writer.publish())
    expected = encoding.encode(rough, np.arange(N), 0)
    for view in range(V):
        for name, rows in copied.encoded(slice(None), view).items():
            assert rows.tobytes() == expected[name].tobytes(), name
        assert np.array_equal(copied.logits(slice(None), view), source.logits(slice(None)))
        assert np.array_equal(copied.input_crc32[view], np.arange(N))


def test_encoded_rows_that_no_encoder_makes_are_refused(tmp_path: Path, encoding: Encoding) -> None:
    rows = encoding.encode(raw_logits(0)[:3], np.arange(3), 0)
    name = list(rows)[-1]
    spoilt = rows[name].copy()
    spoilt[1, -1] = np.inf
    wrong: list[tuple[Mapping[str, NDArray[Any]], str]] = [
        ({}, "rows: expected"),
        ({**rows, "more": spoilt}, "rows: expected"),
        ({**rows, name: rows[name][:2]}, f"{name}: expected"),
        ({**rows, name: rows[name].astype("f8")}, f"{name}: expected"),
        ({**rows, name: spoilt}, "sample 1, view 0"),
    ]
    with LogitCacheWriter(tmp_path / "cache.h5", manifest_of(encoding)) as writer:
        for given, says in wrong:
            with pytest.raises(ValueRefusedError, match=says):
                writer.write_encoded(np.arange(3), given)
        assert not writer.is_written().any()


@pytest.mark.parametrize("kind", ["spread", 3, None, ["dense"]])
def test_an_encoding_that_is_not_known_is_refused(kind: Any) -> None:
    with pytest.raises(
        FormatError,
        match=r"manifest: identity\.encoding\.kind must be one of dense, dense-u8, .*sparse.*, found",
    ):
        Manifest.build(num_samples=3, num_outputs=2, encoding={"kind": kind})


def test_dense_and_the_words_for_it_have_one_key() -> None:
    for dtype in ("float16", "float32"):
        words = Manifest.build(num_samples=3, num_outputs=2, dtype=dtype)
        assert Manifest.build(num_samples=3, num_outputs=2, encoding=Dense(dtype)).key == words.key
    with pytest.raises(ValueError, match="dtype: belongs to the encoding"):
        Manifest.build(num_samples=3, num_outputs=2, encoding=Dense(), dtype="float32")
    with pytest.raises(ValueError, match="dtype: expected one of float16, float32, found 'float64'"):
        Dense("float64")  # type: ignore[arg-type]
