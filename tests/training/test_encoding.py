"""Sparse rows that are encoded where the logits lie are those that NumPy encodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from decant.cache import Sparse, ValueRefusedError
from decant.pipeline.training import encoding as module
from decant.pipeline.training.encoding import RowsOnHost, encode_sparse, encode_views
from tests.cache.test_compact import logits_of_any_kind, teacher

ENCODINGS = (
    Sparse(5),
    Sparse(5, (0.5, 1.0, 4.0)),
    Sparse(0, draws=7, seed=3),
    Sparse(2, (1.0, 4.0), draws=6, seed=2**62),
)


def both(encoding: Sparse, logits: Any, positions: Any = None) -> tuple[dict[str, Any], dict[str, Any]]:
    samples = np.arange(len(logits)) * 5
    expected = encoding.encode(logits, samples, 3, positions)
    rows = encode_sparse(torch.from_numpy(logits), encoding, samples, 3, positions)
    found = RowsOnHost(rows, encoding, logits.shape[1]).wait(samples, 3, positions)
    return dict(found), expected


def require_alike(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        if values.dtype.kind == "f":
            rtol = 1e-3 if values.dtype.itemsize == 2 else 1e-6
            np.testing.assert_allclose(found[name], values, rtol=rtol, atol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(found[name], values, name)


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
@pytest.mark.parametrize("outputs", [8, 100, 70_000])
def test_ids_are_the_same_and_values_but_for_rounding(
    encoding: Sparse, outputs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 3 * outputs)
    monkeypatch.setattr(module, "_CHUNK_OF_HEADS", 3 * outputs)
    logits = teacher(10, outputs)
    require_alike(*both(encoding, logits, np.arange(10) % 4))
    ties = np.round(logits)
    require_alike(*both(encoding, ties))


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_views_that_are_encoded_together_are_those_encoded_alone(
    encoding: Sparse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CHUNK", 300)
    logits, samples = torch.from_numpy(teacher(10, 100)), np.arange(10)
    made = encode_views(logits, encoding, samples, [4, 0], samples % 4)
    for view, rows in zip([4, 0], made, strict=True):
        alone = encode_sparse(logits, encoding, samples, view, samples % 4)
        assert all(map(torch.equal, rows, alone))
    assert torch.equal(made[0].ids, made[1].ids) == (not encoding.draws)


@given(logits_of_any_kind, st.data())
def test_logits_of_any_kind_are_encoded_alike(logits: Any, data: st.DataObject) -> None:
    kept = data.draw(st.integers(1, logits.shape[1]))
    head = data.draw(st.integers(0, kept))
    encoding = Sparse(head, (1.0, 2.0), draws=kept - head)
    found, expected = both(encoding, logits)
    samples = np.arange(len(logits))
    encoding.check(found, samples, 0, logits.shape[1])
    same = np.array_equal(found["ids"], expected["ids"])
    assert same or kept > head, "of draws an output on the edge may be another, by rounding"
    np.testing.assert_allclose(found["stats"][:, 0], expected["stats"][:, 0], rtol=1e-6)


@pytest.mark.parametrize("outputs", [8, 127, 1000, 70_000])
@pytest.mark.parametrize("kind", ["plain", "ties", "equal", "steep", "zeros of both signs"])
def test_heads_of_float32_are_the_same(kind: str, outputs: int) -> None:
    """Which are looked for in runs of places, and summed in few passes."""
    logits = teacher(6, outputs).astype("f4")
    if kind == "ties":
        logits = np.round(logits)
    elif kind == "equal":
        logits[:] = 1.5
    elif kind == "steep":
        logits *= 300
    elif kind == "zeros of both signs":
        logits = np.where(np.arange(outputs) % 2, np.float32(-0.0), np.float32(0.0)) * np.ones((6, 1), "f4")
    for encoding in (Sparse(5), Sparse(7, (0.5, 1.0, 4.0)), Sparse(outputs - 1 if outputs < 1000 else 64)):
        require_alike(*both(encoding, logits))


def longhand_head(logits: torch.Tensor, encoding: Sparse) -> tuple[torch.Tensor, ...]:
    """Ids, log-probabilities and sums of float32 logits, all of which are sorted."""
    count = encoding.kept
    first = (logits + 0.0).argsort(dim=1, descending=True, stable=True)[:, : count + 1]
    found = logits.gather(1, first)
    heads, next_one, whole, tails = found[:, :count].double(), found[:, count:], torch.empty(0), []
    for temperature in encoding.temperatures:
        shares = ((logits - next_one) / temperature).exp().scatter(1, first[:, :count], 0.0)
        others = shares.sum(dim=1, dtype=torch.float64).log() + next_one[:, 0].double() / temperature
        total = torch.logaddexp((heads / temperature).logsumexp(dim=1), others)
        tails.append(others - total)
        whole = total if temperature == 1 else whole
    log_probs = (heads - whole[:, None]).clamp(-65_504, 0).half()
    return first[:, :count].int(), log_probs, torch.stack([whole, *tails], dim=1).float()


@pytest.mark.parametrize("outputs", [100, 129, 2_000, 50_257])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_that_are_looked_at_in_runs_give_the_bytes_of_those_that_are_sorted(
    dtype: torch.dtype, outputs: int
) -> None:
    """Whatever their dtype, and whether they are all of a row or, where a vocabulary is padded, the first of it."""
    plain = torch.from_numpy(teacher(6, outputs + 7).astype("f4"))
    for logits in (plain, plain.round(), -plain.abs().round()):
        some = logits.to(dtype)[:, :outputs]
        for encoding in (Sparse(5), Sparse(64, (0.5, 1.0, 4.0))):
            found = encode_sparse(some, encoding, np.arange(6), 0)
            expected = longhand_head(some.float().contiguous(), encoding)
            for one, other in zip((found.ids, found.log_probs, found.stats), expected, strict=True):
                assert torch.equal(one, other), (encoding, outputs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_draws_of_narrow_logits_have_the_bytes_of_the_same_in_float32(dtype: torch.dtype) -> None:
    for outputs in (50, 3_000):
        logits = torch.from_numpy(teacher(6, outputs)).to(dtype)
        for encoding in ENCODINGS[2:]:
            given: Any = (encoding, np.arange(6), [0, 3])
            narrow, wide = (encode_views(some, *given) for some in (logits, logits.float()))
            for one, other in zip(narrow, wide, strict=True):
                assert all(map(torch.equal, one, other)), (encoding, outputs)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_what_cannot_be_stored_is_named(value: float) -> None:
    logits = np.zeros((3, 9))
    logits[1, 4] = value
    encoding, samples = Sparse(0, draws=3), np.arange(3) * 5
    with pytest.raises(ValueRefusedError) as expected:
        encoding.encode(logits, samples, 3)
    rows = RowsOnHost(encode_sparse(torch.from_numpy(logits), encoding, samples, 3), encoding, 9)
    with pytest.raises(ValueRefusedError) as found:
        rows.wait(samples, 3)
    assert str(found.value) == str(expected.value)
    if abs(value) < 1e300 or not np.isfinite(value):
        narrow = torch.from_numpy(logits.astype("f4"))
        rows = RowsOnHost(encode_sparse(narrow, Sparse(3), samples, 3), Sparse(3), 9)
        with pytest.raises(ValueRefusedError, match=f"sample 5, view 3: logit {value} "):
            rows.wait(samples, 3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_taken(dtype: torch.dtype) -> None:
    logits = torch.from_numpy(teacher(4, 50)).to(dtype)
    samples = np.arange(4)
    rows = encode_sparse(logits, Sparse(5), samples, 0)
    expected = Sparse(5).encode(logits.float().numpy(), samples, 0)
    require_alike(dict(RowsOnHost(rows, Sparse(5), 50).wait(samples, 0)), expected)
