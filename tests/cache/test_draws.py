"""Outputs that are drawn: how many, which, with what probability, and that they say what the softmax is, on average."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from decant.cache import FormatError, LogitCache, LogitCacheWriter, Manifest, ValueRefusedError
from decant.cache.encodings import Sparse, draws
from decant.cache.encodings.draws import systematic, thresholds, uniforms
from tests.cache.test_compact import SAMPLES, logits_of_any_kind, softmax, teacher


def encode(encoding: Sparse, logits: NDArray[Any]) -> Any:
    samples = np.arange(len(logits))
    rows = encoding.encode(logits, samples, 0)
    encoding.check(rows, samples, 0, logits.shape[1])
    return encoding.rows(rows)


@pytest.mark.parametrize("head", [0, 2])
@pytest.mark.parametrize("temperatures", [(1.0,), (0.5, 1.0, 4.0)], ids=str)
def test_an_estimate_of_100_000_draws_is_the_softmax(head: int, temperatures: tuple[float, ...]) -> None:
    one = np.array([[4.0, 3, 2.5, 2.5, 1, 0, -1, -1, -2, -2.5, -3, -3]])
    encoding, count = Sparse(head, temperatures, draws=4 - head, seed=3), 100_000
    rows = encode(encoding, one.repeat(count, 0))
    places = np.arange(count)[:, None], rows.ids
    for temperature in temperatures:
        p = softmax(one, temperature)[0]
        estimates = np.zeros((count, 12))
        estimates[places] = np.exp(encoding.log_estimates(rows, temperature))
        error = estimates.mean(0) - p
        off = np.abs(error) / np.maximum(
            estimates.std(0) / np.sqrt(count), 4e-4 * p
        )  # float16 rounds the certain
        assert off.max() < 5, f"T = {temperature}: {off.max():.1f} standard errors, at {off.argmax()}"
        if temperatures == (1.0,) and head == 0:
            tau = np.exp(float(rows.log_tau[0]))
            known = (p * (tau - p))[p < tau].sum()
            squared = np.square(estimates - p).sum(1).mean()
            assert abs(squared / known - 1) < 0.02, "E‖p̂ − p‖² is Σ p(τ − p) of what is not certain"


@given(logits_of_any_kind, st.data())
def test_k_different_outputs_are_kept_and_stand_for_the_whole(
    logits: NDArray[np.float32], data: st.DataObject
) -> None:
    outputs = logits.shape[1]
    kept = data.draw(st.integers(1, outputs))
    head = data.draw(st.integers(0, kept - 1))
    encoding = Sparse(head, draws=kept - head, seed=data.draw(st.integers(0, 2**63 - 1)))
    rows = encode(encoding, logits)  # checks that ids differ
    assert rows.ids.shape == (len(logits), kept)
    assert (rows.certain >= head).all()
    np.testing.assert_allclose(np.exp(encoding.log_estimates(rows)).sum(1), 1, atol=1e-3)
    for row, certain in enumerate(rows.certain):
        first = sorted(range(outputs), key=lambda i: (-logits[row, i], i))[:certain]
        assert rows.ids[row, :certain].tolist() == first, "the certain ones are the largest, by falling value"
        assert (np.diff(rows.ids[row, certain:]) > 0).all(), "the others follow by id"


EDGES: dict[str, tuple[list[float], int]] = {
    "all equal": ([0, 0, 0, 0, 0, 0], 0),
    "one has it all": ([900, 0, 0, 0, 0, 0], 3),
    "fewer than k have any": ([900, 900, 0, 0, 0, 0], 3),
    "one is half": ([np.log(5), 0, 0, 0, 0, 0], 1),
    "two are even": ([9, 9, 0, 0, 0, 0], 2),
}


@pytest.mark.parametrize("edge", EDGES)
def test_as_many_outputs_are_certain_as_have_a_share_above_the_threshold(edge: str) -> None:
    logits, certain = EDGES[edge]
    rows = encode(Sparse(0, draws=3), np.array([logits]).repeat(50, 0))
    assert rows.certain.tolist() == [certain] * 50
    assert np.isneginf(rows.log_tau).all() == (certain == 3)


def test_no_share_is_above_1_by_rounding() -> None:
    """One draw of outputs whose shares add up to 1 but for rounding, and draws that have none at a low temperature."""
    for outputs in range(2, 200):
        rows = encode(Sparse(0, draws=1), np.zeros((1, outputs)) + 0.1)
        assert (rows.log_tau <= 0).all()
    logits = np.concatenate([np.full((30, 1), 60.0), teacher(30, 400)], axis=1)
    assert (encode(Sparse(0, (0.05, 1.0, 50.0), draws=3), logits).log_tail <= 0).all()


def test_all_outputs_may_be_kept() -> None:
    rows = encode(Sparse(1, draws=5), teacher(20, 6))
    assert (rows.certain == 6).all()
    assert np.isneginf(rows.log_tail).all()


def test_a_row_is_drawn_alike_whenever_and_with_whom() -> None:
    logits, encoding = teacher(30, 50), Sparse(0, (1.0, 4.0), draws=5, seed=7)
    samples, positions = np.arange(30) // 3, np.arange(30) % 3
    whole = encoding.encode(logits, samples, 2, positions)
    for row in (0, 13, 29):
        one = encoding.encode(logits[row : row + 1], samples[row : row + 1], 2, positions[row : row + 1])
        assert all(np.array_equal(one[name][0], whole[name][row]) for name in whole)
    others = {
        "seed": Sparse(0, (1.0, 4.0), draws=5, seed=8).encode(logits, samples, 2, positions),
        "view": encoding.encode(logits, samples, 3, positions),
        "sample": encoding.encode(logits, samples + 1, 2, positions),
        "position": encoding.encode(logits, samples, 2, positions + 1),
    }
    for name, other in others.items():
        assert not np.array_equal(other["ids"], whole["ids"]), name


def test_the_numbers_are_uniform_and_apart() -> None:
    found = np.concatenate(
        [uniforms(seed, view, np.arange(500), np.arange(500) % 7) for seed in range(10) for view in range(10)]
    )
    assert len(np.unique(found)) == len(found)
    counts = np.histogram(found, 50, (0, 1))[0]
    assert np.square(counts - 1000).sum() / 1000 < 100  # χ² of 49 degrees: 1 in 10⁴ is above 93
    pairs = np.corrcoef(found[:-1], found[1:])[0, 1]
    assert abs(pairs) < 5 / np.sqrt(len(found))


def test_points_that_fall_on_an_end_draw_one_item_each() -> None:
    sizes = np.array([[0.25, 0.25, 0.25, 0.25, 0.5, 0.5]]).repeat(5, 0)
    uniform = np.array([0, 0.25, 0.5, 0.75, 1 - 2.0**-53])
    drawn = systematic(sizes, np.full(5, 2), uniform).reshape(5, 2)
    assert (drawn[:, 0] < drawn[:, 1]).all()
    assert drawn[0].tolist() == [0, 4]


def test_both_ways_to_draw_draw_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    sizes = random.random((200, 60)) ** 4
    sizes[::7, ::2] = 0
    counts, uniform = random.integers(0, 9, 200), random.random(200)
    sizes = np.minimum(sizes, 0.9 * sizes.sum(1, keepdims=True) / np.maximum(counts, 1)[:, None])
    passes = systematic(sizes, counts, uniform)
    monkeypatch.setattr(draws, "_FEW", 0)
    assert np.array_equal(systematic(sizes, counts, uniform), passes)
    assert len(passes) == counts.sum()


@pytest.mark.parametrize("few", [0, 1000])
def test_a_row_that_rounding_leaves_short_is_filled_up(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draws, "_FEW", few)
    sizes = np.array([[0.2, 0.9, 0.3, 0.6]])
    drawn = systematic(sizes, np.array([2]), np.array([2.5]))  # of points that lie beyond the end
    assert drawn.tolist() == [1, 3]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"head": 0}, "head: expected 1 to"),
        ({"head": -1, "draws": 3}, "head: expected 0 to"),
        ({"draws": -1}, "draws: expected 0 to"),
        ({"draws": True}, "draws: expected 0 to"),
        ({"draws": 2, "seed": -1}, "seed: expected 0 to"),
        ({"seed": 4}, "seed: is of draws"),
    ],
    ids=str,
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Sparse(**wrong)


def test_the_identity_has_draws_and_seed_where_there_are_any() -> None:
    assert Sparse(2).identity == {"kind": "sparse", "head": 2, "temperatures": [1.0]}
    drawn = Sparse(0, (1.0, 2.0), draws=3, seed=5)
    assert drawn.identity == {"kind": "sparse", "head": 0, "temperatures": [1.0, 2.0], "draws": 3, "seed": 5}
    assert Sparse.from_identity(drawn.identity) == drawn
    for wrong in ({"draws": 0}, {"draws": "3"}, {"draws": 3, "seed": 1.5}, {"draws": None}):
        with pytest.raises(FormatError, match=r"identity\.encoding\.(draws|seed)"):
            Sparse.from_identity({**Sparse(2).identity, **wrong})
    with pytest.raises(FormatError, match="at most the 4 outputs, found 5"):
        Manifest.build(num_samples=1, num_outputs=4, encoding=Sparse(2, draws=3))


SPOILT: dict[str, tuple[str, int, Any, str]] = {
    "certain above k": ("certain", 0, 5, "certain: must be 1 to 4"),
    "certain below the head": ("certain", 0, 0, "certain: must be 1 to 4"),
    "order": ("ids", 0, slice(None, None, -1), "what is drawn must rise"),
    "τ of no draws": ("certain", 0, 4, "log τ must be"),
    "no τ": ("stats", 2, -np.inf, "log τ must be"),
    "τ above 1": ("stats", 2, 0.5, "log τ must be"),
    "NaN": ("stats", 2, np.nan, "log τ must be"),
}


@pytest.mark.parametrize("spoilt", SPOILT)
def test_rows_of_another_file_that_no_encoder_makes_are_refused(spoilt: str) -> None:
    encoding = Sparse(1, draws=3)
    rows = encoding.encode(np.zeros((3, 50)), SAMPLES[:3], 0)
    name, place, value, says = SPOILT[spoilt]
    if name == "ids":
        rows[name][1, 1:] = rows[name][1, :0:-1].copy()
    elif name == "certain":
        rows[name][1] = value
    else:
        rows[name][1, place] = value
    with pytest.raises(ValueRefusedError, match=f"sample 1, view 7: .*{says}"):
        encoding.check(rows, SAMPLES[:3], 7, 50)


def test_a_cache_of_draws_is_read_as_its_estimate(tmp_path: Path) -> None:
    encoding = Sparse(2, (1.0, 4.0), draws=6, seed=1)
    logits = teacher(40, 100)
    manifest = Manifest.build(num_samples=40, num_outputs=100, encoding=encoding)
    with LogitCacheWriter(tmp_path / "cache.h5", manifest) as writer:
        writer.write(range(20, 40), logits[20:])
        writer.write(range(20), logits[:20])
        cache = LogitCache.open(writer.publish())
    rows = cache.rows(slice(None))
    assert rows.certain is not None
    estimates = np.zeros((40, 100))
    np.put_along_axis(estimates, rows.ids.astype(int), np.exp(encoding.log_estimates(rows)), axis=1)
    estimates /= estimates.sum(1, keepdims=True)
    np.testing.assert_allclose(softmax(cache.logits(slice(None)), 1.0), estimates, atol=1e-5)
    assert (cache.logits(slice(None)).argmax(1) == logits.argmax(1))[rows.certain > 0].all()
    assert np.array_equal(cache.logits(3), cache.logits([3])[0])


@pytest.mark.parametrize("head", [0, 3])
def test_as_few_are_certain_as_can_be(head: int) -> None:
    """Those that m ≥ τ makes certain, and no others: of one more the rest would be drawn from fewer places."""
    random = np.random.default_rng(5)
    masses = -np.sort(-random.dirichlet(np.full(40, 0.2), 300), axis=1)
    certain, tau = thresholds(masses[:, :12], masses[:, 12:].sum(1), head)
    for row, h, limit in zip(masses, certain, tau, strict=True):
        first = next(h for h in range(head, 13) if h == 12 or row[h] < row[h:].sum() / (12 - h))
        assert h == first
        assert limit == pytest.approx(0 if h == 12 else row[h:].sum() / (12 - h))
        assert np.minimum(1, row[head:] / limit).sum() == pytest.approx(12 - head) or h == 12
    assert len(np.unique(certain)) > 3


@pytest.mark.parametrize("temperature", [0.25, 1.5, 8.0])
def test_bounds_of_what_draws_leave_out_are_proven(temperature: float) -> None:
    """What is left may be likelier than what was drawn, but not than the least certain one."""
    logits = 2 * np.random.default_rng(2).normal(size=(400, 30))
    encoding = Sparse(1, (1.0, 2.0), draws=5)
    rows = encoding.rows(encoding.encode(logits, np.arange(400), 0))
    p = np.exp(logits / temperature)
    p /= p.sum(axis=1, keepdims=True)
    np.put_along_axis(p, rows.ids.astype(np.intp), 0, axis=1)
    least, most = encoding.log_tail_bounds(rows, 30, temperature)
    assert (least - 5e-3 <= np.log(p.sum(axis=1))).all()
    assert (np.log(p.sum(axis=1)) <= most + 5e-3).all()
