"""Compact encodings: how far they are from what was written, what is refused, and which files have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from decant.cache import (
    FormatError,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    MismatchError,
    NewerFormatError,
    ValueRefusedError,
)
from decant.cache.encodings import Dense, Encoding, Quantised, Sparse
from decant.cache.format import hdf5

SAMPLES = np.arange(1000)


def softmax(logits: NDArray[Any], temperature: float) -> NDArray[np.float64]:
    values = logits.astype("f8") / temperature
    exp = np.exp(values - values.max(axis=1, keepdims=True))
    return np.asarray(exp / exp.sum(axis=1, keepdims=True))


def teacher(rows: int = 200, outputs: int = 100, seed: int = 0) -> NDArray[np.float32]:
    """Logits as a trained classifier's: a few large ones."""
    random = np.random.default_rng(seed)
    return (random.standard_normal((rows, outputs)) ** 3).astype("f4") * 2


logits_of_any_kind = st.tuples(st.integers(1, 5), st.integers(1, 12)).flatmap(
    lambda shape: arrays("f4", shape, elements=st.floats(-(2.0**40), 2.0**40, width=32))
)


@given(logits_of_any_kind)
def test_one_byte_a_logit_is_off_by_half_a_step_at_most(logits: NDArray[np.float32]) -> None:
    encoding, samples = Quantised(), SAMPLES[: len(logits)]
    rows = encoding.encode(logits, samples, 0)
    encoding.check(rows, samples, 0, logits.shape[1])
    step = rows["scale"][:, 1:].astype("f8")
    off = np.abs(encoding.decode(rows, logits.shape[1]).astype("f8") - logits)
    assert (off <= step * 0.51 + 2.0**-20 * np.abs(logits).max() + np.finfo("f4").tiny).all()


@given(logits_of_any_kind, st.data())
def test_a_sparse_row_has_the_largest_and_the_mass_of_the_rest(
    logits: NDArray[np.float32], data: st.DataObject
) -> None:
    count, outputs = logits.shape
    head = data.draw(st.integers(1, outputs))
    encoding = Sparse(head, (0.5, 1.0, 4.0))
    rows = encoding.encode(logits, SAMPLES[:count], 0)
    encoding.check(rows, SAMPLES[:count], 0, outputs)
    found = encoding.rows(rows)
    for row, ids in enumerate(found.ids):
        assert sorted(ids, key=lambda i: (-logits[row, i], i)) == ids.tolist(), "by falling value, then by id"
        left = np.delete(logits[row], ids)
        assert not len(left) or left.max() <= logits[row, ids].min()
        for place, temperature in enumerate(encoding.temperatures):
            rest = 1 - softmax(logits, temperature)[row, ids].sum()
            assert abs(np.exp(float(found.log_tail[row, place])) - rest) < 1e-6


@pytest.mark.parametrize("temperature", [1.0, 2.0, 4.0])
def test_a_decoded_row_has_the_softmax_that_is_known(temperature: float) -> None:
    logits, encoding = teacher(), Sparse(10, (1.0, 2.0, 4.0))
    rows = encoding.encode(logits, SAMPLES[:200], 0)
    found = softmax(encoding.decode(rows, 100, temperature), temperature)
    expected, ids = softmax(logits, temperature), encoding.rows(rows).ids
    np.testing.assert_allclose(
        np.take_along_axis(found, ids, 1), np.take_along_axis(expected, ids, 1), rtol=5e-3, atol=1e-6
    )
    others = np.ones_like(found, bool)
    np.put_along_axis(others, ids, False, 1)
    spread = found[others].reshape(200, 90)
    np.testing.assert_allclose(spread, spread[:, :1].repeat(90, 1), rtol=1e-5)  # evenly
    np.testing.assert_allclose(spread.sum(1), np.where(others, expected, 0).sum(1), rtol=5e-3, atol=1e-6)


def test_many_outputs_have_ids_of_eighteen_bits() -> None:
    logits = np.zeros((3, 1 << 18), "f4")
    where = np.array(
        [[0, 65_535, 65_536, 262_143, 131_072], [5, 4, 3, 2, 1], [199_999, 1, 70_000, 70_001, 7]]
    )
    np.put_along_axis(logits, where, np.float32([5, 4, 3, 2, 1]), axis=1)
    encoding = Sparse(5)
    rows = encoding.encode(logits, SAMPLES[:3], 0)
    assert rows["ids_high"].shape == (3, 2)
    assert encoding.rows(rows).ids.tolist() == where.tolist()
    encoding.check(rows, SAMPLES[:3], 0, 1 << 18)


def test_a_row_takes_few_bytes() -> None:
    assert Quantised().row_bytes(1000) == 1008
    assert Sparse(64).row_bytes(1000) == 64 * 4 + 8
    assert Sparse(64, (1.0, 2.0)).row_bytes(100_000) == 64 * 4 + 16 + 12


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"head": 0}, "head: expected 1 to"),
        ({"head": True}, "head: expected 1 to"),
        ({"temperatures": ()}, "temperatures: expected 1 to 16"),
        ({"temperatures": (0.0,)}, "temperatures: expected 1 to 16"),
        ({"temperatures": (float("inf"),)}, "temperatures: expected 1 to 16"),
        ({"temperatures": (2.0, 1.0)}, "rising ones"),
        ({"temperatures": (1.0, 1.0)}, "rising ones"),
        ({"temperatures": (2.0, 4.0)}, "1 among them"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sparse(**wrong)


@pytest.mark.parametrize(
    "identity",
    [
        {"kind": "sparse"},
        {"kind": "sparse", "head": 2.0, "temperatures": [1.0]},
        {"kind": "sparse", "head": 2, "temperatures": 1.0},
        {"kind": "sparse", "head": 2, "temperatures": [1]},
        {"kind": "sparse", "head": 2, "temperatures": ["1"]},
        {"kind": "sparse", "head": -2, "temperatures": [1.0]},
        {"kind": "sparse", "head": 2, "temperatures": [2.0, 1.0]},
    ],
    ids=str,
)
def test_a_manifest_that_cannot_be_is_refused(identity: dict[str, Any]) -> None:
    good = Manifest.build(num_samples=3, num_outputs=4, encoding=Sparse(2)).to_json()
    assert b'"encoding":{"head":2,"kind":"sparse","temperatures":[1.0]}' in good
    with pytest.raises(FormatError, match=r"identity\.encoding"):
        Manifest({**Manifest.from_json(good).identity, "encoding": identity})


@pytest.mark.parametrize(
    ("outputs", "says"), [(1, "at most the 1 outputs"), (2**18 + 1, "tell 262,144 outputs apart")]
)
def test_outputs_that_do_not_fit_are_refused(outputs: int, says: str) -> None:
    with pytest.raises(FormatError, match=says):
        Manifest.build(num_samples=3, num_outputs=outputs, encoding=Sparse(2))


SPOILT: dict[str, tuple[str, Any, str]] = {
    "id beyond C": ("ids", [0, 4], "one is no output"),
    "id twice": ("ids", [1, 1], "one is there twice"),
    "rising": ("log_probs", [-2.0, -1.0], "must be finite, 0 or below, and fall"),
    "above 1": ("log_probs", [0.5, -1.0], "must be finite, 0 or below, and fall"),
    "NaN": ("log_probs", [np.nan, -1.0], "must be finite, 0 or below, and fall"),
    "endless": ("log_probs", [-1.0, -np.inf], "must be finite, 0 or below, and fall"),
    "tail above 1": ("stats", [1.0, 0.1], "log masses of 0 or below"),
    "tail NaN": ("stats", [1.0, np.nan], "log masses of 0 or below"),
    "sum NaN": ("stats", [np.nan, -1.0], "finite log-sum-exp"),
    "masses": ("stats", [1.0, -9.0], "do not add up to 1"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_rows_of_another_file_that_no_encoder_makes_are_refused(spoilt: str) -> None:
    encoding = Sparse(2)
    rows = encoding.encode(np.float32([[3, 2, 1, 0]]).repeat(3, 0), SAMPLES[:3], 0)
    name, values, says = SPOILT[spoilt]
    rows[name][1] = np.array(values, rows[name].dtype)
    with pytest.raises(ValueRefusedError, match=f"sample 1, view 7: .*{says}"):
        encoding.check(rows, SAMPLES[:3], 7, 4)


def build(path: Path, encoding: Encoding) -> Path:
    manifest = Manifest.build(num_samples=40, num_outputs=100, num_views=2, encoding=encoding)
    with LogitCacheWriter(path, manifest) as writer:
        for view in range(2):
            writer.write(range(40), teacher(40, seed=view), labels=range(40), view=view)
        return writer.publish()


@pytest.mark.parametrize(
    ("encoding", "version"), [(Dense("float32"), 1), (Quantised(), 2), (Sparse(8), 2)], ids=str
)
def test_a_file_has_the_first_version_that_knows_its_encoding(
    tmp_path: Path, encoding: Encoding, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = build(tmp_path / "cache.h5", encoding)
    with h5py.File(path) as file:
        assert file.attrs["format_version"] == version
    if version == 2:
        monkeypatch.setattr(hdf5, "FORMAT_VERSION", 1)  # a reader of before
        with pytest.raises(NewerFormatError, match="format_version: read up to 1, found 2; update decant"):
            LogitCache.open(path)


def test_a_version_that_is_not_that_of_the_encoding_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sparse, "format_version", 1)
    path = build(tmp_path / "cache.h5", Sparse(8))
    monkeypatch.undo()
    with pytest.raises(FormatError, match="format_version: expected 2, found 1"):
        LogitCache.open(path)


def test_a_cache_is_read_for_the_temperatures_that_it_declares(tmp_path: Path) -> None:
    cache = LogitCache.open(build(tmp_path / "cache.h5", Sparse(8, (1.0, 4.0))))
    assert cache.at_temperature(1.0) is cache
    at_four = cache.at_temperature(4.0)
    expected = softmax(teacher(40, seed=1), 4.0)
    found, one = softmax(at_four.logits(slice(None), 1), 4.0), softmax(cache.logits(slice(None), 1), 4.0)
    top = cache.rows(slice(None), 1).ids[:, :1]
    np.testing.assert_allclose(
        np.take_along_axis(found, top, 1), np.take_along_axis(expected, top, 1), rtol=5e-3
    )
    assert np.abs(found - expected).sum() < np.abs(one - expected).sum()
    with pytest.raises(
        MismatchError, match=r"temperature 2: .* at T = 1, 4, and it does not follow at another"
    ):
        cache.at_temperature(2.0)
    between = cache.at_temperature(2.0, interpolate=True)
    near = np.abs(softmax(between.logits(slice(None), 1), 2.0) - softmax(teacher(40, seed=1), 2.0)).sum()
    assert (
        near < np.abs(softmax(at_four.logits(slice(None), 1), 2.0) - softmax(teacher(40, seed=1), 2.0)).sum()
    )
    assert np.array_equal(between.logits(3), between.logits([3])[0])
    assert between.at_temperature(4.0).logits(3).tolist() == at_four.logits(3).tolist()
    dense = LogitCache.open(build(tmp_path / "dense.h5", Quantised()))
    assert dense.at_temperature(3.0).logits(0).tolist() == dense.logits(0).tolist()
    with pytest.raises(TypeError, match="has every logit"):
        dense.rows([0])


def test_another_process_reads_for_the_same_temperature(tmp_path: Path) -> None:
    import pickle

    cache = LogitCache.open(build(tmp_path / "cache.h5", Sparse(8, (1.0, 4.0)))).at_temperature(4.0)
    again = pickle.loads(pickle.dumps(cache))
    assert again.temperature == 4.0
    assert np.array_equal(again.logits(slice(None)), cache.logits(slice(None)))


def test_a_mass_that_underflows_keeps_its_logarithm() -> None:
    """Of a teacher that is surer than float64 tells from certainty."""
    logits = np.array([[0.0, -2000.0, -2001.0, -2100.0]])
    stats = Sparse(1, (1.0, 4.0)).encode(logits, np.array([0]), 0)["stats"][0]
    at_each = [scipy.special.logsumexp(logits[0, 1:] / temperature) for temperature in (1.0, 4.0)]
    np.testing.assert_allclose(stats[1:], at_each, rtol=1e-6)


def test_between_declared_temperatures_the_middle_of_the_bounds_is_taken() -> None:
    encoding = Sparse(2, (1.0, 4.0))
    rows = encoding.rows(encoding.encode(teacher(10, seed=3), np.arange(10), 0))
    outputs = teacher(10, seed=3).shape[1]
    least, most = encoding.log_tail_bounds(rows, outputs, 2.0)
    assert (most - least > 0.01).all()
    np.testing.assert_allclose(
        encoding.interpolating().log_tail(rows, outputs, 2.0), (least + most) / 2, rtol=1e-12
    )
    with pytest.raises(MismatchError, match="temperature 2"):
        encoding.log_tail(rows, outputs, 2.0)
