"""Losses of sparse rows against the dense distribution written out in float64: values, gradients, bounds, refusals."""

from __future__ import annotations

import inspect
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from decant import objectives
from decant.cache import MismatchError, Sparse, log_tail_bounds
from decant.objectives import (
    SparseTargets,
    ce_plus_kl,
    cross_entropy,
    fused_ce_plus_kl,
    fused_kd,
    js,
    kd,
    logit_mse,
    rkl,
    soft_ce,
    sparse_ce_plus_kl,
    sparse_js,
    sparse_kd,
    sparse_mse,
    sparse_rkl,
    sparse_soft_ce,
)
from decant.pipeline.errors import RecipeError

ROWS, OUTPUTS = 6, 40
LABELS = torch.tensor([3, -1, 0, 39, 7, -1])
PAIRS: dict[str, tuple[Any, Any]] = {
    "kd": (sparse_kd, kd),
    "ce+kl": (sparse_ce_plus_kl, ce_plus_kl),
    "soft-ce": (sparse_soft_ce, soft_ce),
    "js": (sparse_js, js),
    "rkl": (sparse_rkl, rkl),
}
TEMPERATURES = (0.5, 1.0, 4.0)


def logits(seed: int, rows: int = ROWS) -> Tensor:
    random = np.random.default_rng(seed)
    return torch.tensor(random.standard_normal((rows, OUTPUTS)) * 2.5)


def stored(encoding: Sparse, teacher: Tensor) -> SparseTargets:
    rows = encoding.rows(encoding.encode(teacher.numpy(), np.arange(len(teacher)), 0))
    return SparseTargets.from_rows(rows, encoding, teacher.shape[1])


def exact(targets: SparseTargets, teacher: Tensor) -> SparseTargets:
    """The same rows without the rounding of float16 and float32."""
    at = [teacher.div(one).log_softmax(1) for one in targets.temperatures]
    others = torch.ones_like(teacher, dtype=torch.bool).scatter(1, targets.ids, False)
    tails = [one.where(others, -math.inf).logsumexp(1) for one in at]
    return SparseTargets(
        targets.ids,
        teacher.log_softmax(1).gather(1, targets.ids),
        torch.stack(tails, 1),
        targets.temperatures,
        targets.num_outputs,
        teacher.logsumexp(1),
        targets.certain,
        None if targets.log_tau is None else targets.log_tau.double(),
    )


def gradient(total: Tensor, of: Tensor) -> Tensor:
    return torch.autograd.grad(total, of)[0]


def softmaxes(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    return (teacher / temperature).softmax(1), (student / temperature).softmax(1)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("name", PAIRS)
def test_with_every_output_stored_it_is_the_dense_loss(name: str, temperature: float) -> None:
    sparse, dense = PAIRS[name]
    teacher, student = logits(0), logits(1).requires_grad_()
    targets = exact(stored(Sparse(OUTPUTS, TEMPERATURES), teacher), teacher)
    found = sparse(student, targets, LABELS, temperature=temperature)
    expected = dense(student, teacher, LABELS, temperature=temperature)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(
        gradient(found.total, student), gradient(expected.total, student), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_head_with_its_tail_has_the_exact_gradients_of_what_it_stores(temperature: float) -> None:
    teacher, student = logits(0), logits(1).requires_grad_()
    targets = exact(stored(Sparse(5, TEMPERATURES), teacher), teacher)
    found = sparse_kd(student, targets, LABELS, 1.0, temperature).total
    p, q = softmaxes(student, teacher, temperature)
    inside = torch.zeros_like(p, dtype=torch.bool).scatter(1, targets.ids, True)
    r, rho = (one.where(~inside, 0.0).sum(1, keepdim=True) for one in (p, q))
    longhand = temperature * torch.where(inside, q - p, q - r * q / rho) / ROWS
    torch.testing.assert_close(gradient(found, student), longhand, rtol=1e-6, atol=1e-10)
    divergence = torch.where(inside, p * (p / q).log(), 0.0).sum(1) + (r * (r / rho).log())[:, 0]
    torch.testing.assert_close(found, temperature**2 * divergence.mean(), rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_draws_have_the_gradients_of_their_estimate(temperature: float) -> None:
    teacher, student = logits(0), logits(1).requires_grad_()
    encoding = Sparse(1, TEMPERATURES, draws=6, seed=3)
    targets = exact(stored(encoding, teacher), teacher)
    found = sparse_kd(student, targets, LABELS, 1.0, temperature).total
    p, q = softmaxes(student, teacher, temperature)
    design = sum(((teacher / one).softmax(1) for one in TEMPERATURES), torch.zeros_like(p)) / 3
    assert targets.certain is not None
    assert targets.log_tau is not None
    drawn = torch.arange(7) >= targets.certain[:, None]
    inclusion = torch.where(drawn, design.gather(1, targets.ids) / targets.log_tau.exp()[:, None], 1.0)
    estimate = torch.zeros_like(p).scatter(1, targets.ids, p.gather(1, targets.ids) / inclusion)
    longhand = temperature * (q * estimate.sum(1, keepdim=True) - estimate) / ROWS
    torch.testing.assert_close(gradient(found, student), longhand, rtol=1e-5, atol=1e-8)
    rows = torch.where(estimate > 0, estimate * (p / q).log(), 0.0).sum(1)
    torch.testing.assert_close(found, temperature**2 * rows.mean(), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_losses_of_many_draws_are_the_dense_ones_on_average(temperature: float) -> None:
    teacher, student = logits(0, 1), logits(1, 1)
    count = 20_000
    encoding = Sparse(0, TEMPERATURES, draws=8, seed=1)
    rows = encoding.rows(encoding.encode(teacher.numpy().repeat(count, 0), np.arange(count), 0))
    targets = SparseTargets.from_rows(rows, encoding, OUTPUTS)
    shares = targets.shares(temperature)
    log_q = (student / temperature).log_softmax(1)[0]
    found = (shares.weights * (shares.log_probs - log_q[targets.ids])).sum(1).double()
    p, q = softmaxes(student, teacher, temperature)
    expected = (p * (p / q).log()).sum()
    off = (found.mean() - expected).abs() / (found.std() / math.sqrt(count))
    assert off < 5, f"{off:.1f} standard errors"
    squares = sparse_mse(student.expand(count, -1), targets, torch.full((count,), -1)).soft
    dense = logit_mse(student, teacher, torch.tensor([-1])).soft
    assert squares is not None
    assert dense is not None
    assert abs(squares / dense - 1) < 0.2, "of a large variance"


@given(st.integers(0, 10**6), st.integers(1, OUTPUTS), st.sampled_from(TEMPERATURES))
def test_the_loss_on_fewer_outputs_is_a_lower_bound(seed: int, head: int, temperature: float) -> None:
    teacher, student = logits(seed), logits(seed + 1)
    targets = exact(stored(Sparse(head, TEMPERATURES), teacher), teacher)
    for sparse, dense in (PAIRS["kd"], PAIRS["js"], PAIRS["rkl"]):
        found = sparse(student, targets, LABELS, 1.0, temperature).soft
        expected = dense(student, teacher, LABELS, 1.0, temperature).soft
        assert -1e-9 <= found <= expected * (1 + 1e-5) + 1e-6
        if head == OUTPUTS:
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_a_dropped_tail_is_a_renormalised_head() -> None:
    teacher, student = logits(0), logits(1)
    targets = exact(stored(Sparse(5), teacher), teacher)
    p, q = softmaxes(student, teacher, 1.0)
    head = p.gather(1, targets.ids)
    head = head / head.sum(1, keepdim=True)
    expected = (head * (head / q.gather(1, targets.ids)).log()).sum(1).mean()
    found = sparse_kd(student, targets, LABELS, 1.0, tail="drop").soft
    torch.testing.assert_close(found, expected)


SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "cap": {"soft_cap": 3.0, "logit_scale": 0.5, "bias": True},
    "scale": {"logit_scale": 2.0},
}


@pytest.mark.parametrize("given", SETTINGS)
@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("tail", ["bucket", "draws", "drop"])
def test_the_fused_loss_is_that_of_the_logits(given: str, temperature: float, tail: Any) -> None:
    """In chunks of 4 of 6 rows; weights and gradients of everything, in float64."""
    settings = dict(SETTINGS[given])
    teacher = logits(0)
    targets = exact(stored(Sparse(1, TEMPERATURES, draws=6), teacher), teacher)
    torch.manual_seed(0)
    hidden, weight = (
        torch.randn(ROWS, 12).double().requires_grad_(),
        torch.randn(OUTPUTS, 12).double().requires_grad_(),
    )
    bias = torch.randn(OUTPUTS).double().requires_grad_() if settings.pop("bias", False) else None
    inputs = [one for one in (hidden, weight, bias) if one is not None]
    sample_weights = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 1.0]).double()
    cap, scale = settings.get("soft_cap"), settings.get("logit_scale", 1.0)
    made = scale * hidden @ weight.t() + (0 if bias is None else bias)
    made = made if cap is None else cap * torch.tanh(made / cap)
    both: dict[str, Any] = {"tail": tail, "sample_weights": sample_weights}
    for fused, sparse, factor in ((fused_kd, sparse_kd, 0.7), (fused_ce_plus_kl, sparse_ce_plus_kl, 1.5)):
        found = fused(
            hidden, weight, targets, LABELS, factor, temperature, bias=bias, chunk_rows=4, **settings, **both
        )
        expected = sparse(made, targets, LABELS, factor, temperature, **both)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
        grads = torch.autograd.grad(3 * found.total, inputs)
        for one, other in zip(
            grads, torch.autograd.grad(3 * expected.total, inputs, retain_graph=True), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-12)


def test_both_terms_are_there_whatever_they_weigh_and_labels_of_minus_100_are_none() -> None:
    targets, hidden, weight = stored(Sparse(5), logits(0)), torch.randn(ROWS, 8), torch.randn(OUTPUTS, 8)
    expected = sparse_kd(hidden @ weight.t(), targets, LABELS, 0.5)
    ignored = torch.where(LABELS < 0, -100, LABELS)
    for alpha in (0.0, 0.5, 1.0):
        found = fused_kd(hidden, weight, targets, ignored, alpha)
        torch.testing.assert_close(found.hard, expected.hard)
        torch.testing.assert_close(found.soft, expected.soft)
    with pytest.raises(ValueError, match="chunk_rows: expected 1 or more, found -1"):
        fused_kd(hidden, weight, targets, LABELS, chunk_rows=-1)
    nothing = fused_kd(hidden[:0], weight, targets[:0], LABELS[:0])
    assert float(nothing.total) == 0


def test_the_fused_loss_where_a_student_is_sure_of_what_is_stored() -> None:
    """No mass of the others is left in float32: the gradients stay finite, and push towards them."""
    targets = SparseTargets.of([[0]], torch.tensor([[0.5]]).log(), num_outputs=4)
    hidden = torch.tensor([[300.0, 0.0, 1.0, 2.0]], requires_grad=True)
    terms = fused_kd(hidden, torch.eye(4), targets, torch.tensor([-1]), alpha=1.0)
    found = gradient(terms.total, hidden)
    expected = gradient(sparse_kd(hidden, targets, torch.tensor([-1]), 1.0).total, hidden)
    assert found.isfinite().all()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert math.isclose(float(found[0, 1:].sum()), -0.5, abs_tol=1e-5)


def test_the_fused_loss_under_autocast_and_in_half_precision() -> None:
    targets = stored(Sparse(5), logits(0))
    hidden, weight = torch.randn(ROWS, 64), torch.randn(OUTPUTS, 64) / 8
    expected = fused_kd(hidden, weight, targets, LABELS).total
    half = [one.bfloat16().requires_grad_() for one in (hidden, weight)]
    found = fused_kd(half[0], half[1], targets, LABELS).total
    found.backward()
    assert found.dtype == torch.float32
    assert [one.grad.dtype for one in half if one.grad is not None] == [torch.bfloat16] * 2
    torch.testing.assert_close(found, expected, rtol=2e-2, atol=0)
    full = [one.clone().requires_grad_() for one in (hidden, weight)]
    with torch.autocast("cpu", torch.bfloat16):
        cast = fused_kd(full[0], full[1], targets, LABELS).total
    cast.backward()
    assert [one.grad.dtype for one in full if one.grad is not None] == [torch.float32] * 2
    torch.testing.assert_close(cast, found, rtol=1e-3, atol=0)


def test_a_temperature_that_is_not_declared_is_refused_or_interpolated() -> None:
    teacher, student = logits(0), logits(1)
    targets = stored(Sparse(5, (0.5, 1.0, 2.0, 4.0)), teacher)
    with pytest.raises(
        MismatchError, match=r"temperature 3: .* at T = 0.5, 1, 2, 4; .* nats wide on average, .* at most"
    ):
        sparse_kd(student, targets, LABELS, temperature=3.0)
    found = sparse_kd(student, targets, LABELS, 1.0, temperature=3.0, interpolate=True).soft
    declared = sparse_kd(student, stored(Sparse(5, (1.0, 3.0)), teacher), LABELS, 1.0, temperature=3.0).soft
    torch.testing.assert_close(found, declared, rtol=0.05, atol=0)
    drawn = stored(Sparse(0, (1.0, 4.0), draws=12), teacher)
    near = drawn.shares(2.0, interpolate=True).weights.sum(1)
    assert ((near > 0.3) & (near < 3)).all()


@given(
    st.integers(0, 10**6),
    st.integers(1, OUTPUTS - 1),
    st.floats(0.2, 12.0),
    st.sampled_from([(1.0,), (1.0, 4.0), (0.5, 1.0, 2.0, 4.0)]),
    st.booleans(),
)
def test_the_bounds_of_a_tail_are_proven(
    seed: int, kept: int, temperature: float, declared: tuple[float, ...], draws: bool
) -> None:
    teacher = logits(seed)
    encoding = Sparse(0, declared, draws=kept) if draws else Sparse(kept, declared)
    targets = exact(stored(encoding, teacher), teacher)
    least, most = log_tail_bounds(
        targets.log_probs.numpy(),
        targets.log_tail.numpy(),
        declared,
        OUTPUTS,
        temperature,
        targets._largest_left(),
    )
    others = torch.ones_like(teacher, dtype=torch.bool).scatter(1, targets.ids, False)
    truth = (teacher / temperature).log_softmax(1).where(others, -math.inf).logsumexp(1).numpy()
    assert (least <= truth + 1e-6).all(), (least, truth)
    assert (truth <= most + 1e-6).all(), (truth, most)


def simulated(rows: int, outputs: int) -> NDArray[np.float64]:
    random = np.random.default_rng(0)
    ranks = np.argsort(random.random((rows, outputs)), axis=1) + 1
    return -1.3 * np.log(ranks) + 0.3 * random.standard_normal((rows, outputs))


def test_the_bounds_are_as_narrow_as_the_guide_says() -> None:
    encoding = Sparse(64, (0.5, 1.0, 2.0, 4.0))
    rows = encoding.rows(encoding.encode(simulated(50, 20_000), np.arange(50), 0))
    for temperature in (1.4, 3.0):
        least, most = log_tail_bounds(
            rows.log_probs, rows.log_tail, encoding.temperatures, 20_000, temperature
        )
        assert 0 < (most - least).mean() < 0.3


@pytest.mark.parametrize(("loss", "name"), [(sparse_js, "js"), (sparse_rkl, "rkl")])
def test_a_loss_that_draws_would_bias_is_refused(loss: Any, name: str) -> None:
    targets = stored(Sparse(0, draws=5), logits(0))
    with pytest.raises(RecipeError, match=f"{name}: these rows have draws, .* biased"):
        loss(logits(1), targets, LABELS)


def test_what_makes_no_sense_is_refused() -> None:
    student, targets = logits(1), stored(Sparse(5), logits(0))
    with pytest.raises(ValueError, match="tail: these rows have no draws"):
        sparse_kd(student, targets, LABELS, tail="draws")
    with pytest.raises(ValueError, match="tail: expected bucket, draws, drop, found 'none'"):
        sparse_kd(student, targets, LABELS, tail="none")  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match="tail: 'drop' gives the outputs that are not stored no share"):
        sparse_rkl(student, targets, LABELS, tail="drop")
    with pytest.raises(RecipeError, match="says nothing of the logit of each"):
        sparse_mse(student, targets, LABELS, tail="bucket")
    with pytest.raises(RecipeError, match="these rows have log-probabilities alone"):
        sparse_mse(student[:1], SparseTargets.of([[0]], [[-1.0]], num_outputs=OUTPUTS), LABELS[:1])
    with pytest.raises(RecipeError, match="the teacher's rows are of 40 outputs, the student has 41"):
        sparse_kd(torch.zeros(ROWS, 41), targets, LABELS)
    with pytest.raises(RecipeError, match=r"the teacher's rows are of 40 outputs, the student has 48"):
        fused_kd(torch.zeros(ROWS, 4), torch.zeros(48, 4), targets, LABELS)
    with pytest.raises(RecipeError, match="one row for each of the targets"):
        sparse_kd(student[:2], targets, LABELS)
    with pytest.raises(RecipeError, match="fused loss: expected hidden"):
        fused_kd(torch.zeros(3, 4), torch.zeros(OUTPUTS, 4), targets, LABELS)
    with pytest.raises(ValueError, match="ids: expected 0 to 3, found 0 to 4"):
        SparseTargets.of([[0, 4]], [[-1.0, -1.0]], num_outputs=4)
    with pytest.raises(ValueError, match=r"tail: expected \(1, 1\)"):
        SparseTargets.of([[0]], [[-1.0]], [[0.1, 0.1]], num_outputs=4)


ROW: dict[str, Any] = {"ids": [[0, 2]], "log_probs": np.log([[0.5, 0.3]]), "num_outputs": 5}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"ids": [[2, 2]]}, "ids: one is there twice, in row 0"),
        ({"ids": [[0.7, 2.0]]}, "ids: expected integers, found torch.float32"),
        ({"ids": [[True, False]]}, "ids: expected integers, found torch.bool"),
        ({"ids": np.array([[2**63, 0]], np.uint64)}, "ids: expected 0 to 4, found -9223372036854775808"),
        ({"ids": [[]], "log_probs": [[]]}, "ids: expected integers|expected .Q, k. both"),
        ({"log_probs": [[0.5, 0.3]]}, "log_probs: must be 0 or below"),
        ({"log_probs": [[math.nan, -1.0]]}, "log_probs: must be 0 or below, and not NaN, in row 0"),
        ({"log_probs": [[-0.1, -0.2]]}, "tail: a mass of 0 to 1 that adds up to 1 with .* found .-0.72"),
        ({"num_outputs": 5.5}, "num_outputs: expected a whole number"),
        ({"num_outputs": 0}, "num_outputs: expected a whole number"),
        ({"tail": [[0.9]]}, "tail: a mass of 0 to 1 that adds up"),
        ({"tail": [[-1.6]]}, "tail: a mass of 0 to 1"),
        ({"tail": [[math.nan]]}, "tail: a mass of 0 to 1"),
        ({"tail": [[0.2, 1.4]], "temperatures": (1.0, 2.0)}, "tail: a mass of 0 to 1"),
        ({"temperatures": (2.0,)}, "tail: at other temperatures than 1 it does not follow"),
        ({"tail": [[0.2]], "temperatures": ("1",)}, "temperature: expected a number above 0, found '1'"),
        ({"tail": [[0.2, 0.3]], "temperatures": (1.0, -2.0)}, "temperature: expected a number above 0"),
        ({"tail": [[0.2, 0.2]], "temperatures": (1.0, 1)}, "temperatures: expected different ones"),
    ],
    ids=str,
)
def test_arrays_that_cannot_be_rows_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        SparseTargets.of(**{**ROW, **changes})


def test_a_share_of_nothing_counts_nothing() -> None:
    """−∞, as of a softmax that underflows."""
    targets = SparseTargets.of([[0, 2]], [[0.0, -math.inf]], num_outputs=5)
    student = torch.randn(1, 5)
    hard = torch.nn.functional.cross_entropy(student, torch.tensor([0]))
    torch.testing.assert_close(sparse_kd(student, targets, torch.tensor([0])).soft, hard)


@pytest.mark.parametrize("temperature", ["1", None, 0, -1.0, math.nan, math.inf, True])
def test_what_is_no_temperature_is_refused(temperature: Any) -> None:
    targets, student = SparseTargets.of(**ROW), torch.zeros(1, 5)
    for tail in (None, "drop"):
        for call in (
            lambda tail: sparse_kd(
                student, targets, LABELS[:1], temperature=temperature, tail=tail, interpolate=True
            ),
            lambda tail: fused_kd(
                student, torch.eye(5), targets, LABELS[:1], temperature=temperature, tail=tail
            ),
        ):
            with pytest.raises(ValueError, match="temperature: expected a number above 0, found"):
                call(tail)


def test_shapes_that_would_be_stretched_are_refused() -> None:
    targets, student, one = stored(Sparse(4), logits(0)), torch.randn(ROWS, OUTPUTS), torch.ones(1)
    hidden, weight = torch.randn(ROWS, 4), torch.randn(OUTPUTS, 4)
    for stretched in (one, torch.ones(ROWS, 1)):
        with pytest.raises(RecipeError, match=r"sample_weights: expected \(6,\)"):
            sparse_kd(student, targets, LABELS, sample_weights=stretched)
        with pytest.raises(RecipeError, match=r"sample_weights: expected \(6,\)"):
            kd(student, student, LABELS, sample_weights=stretched)
        with pytest.raises(RecipeError, match=r"sample_weights: expected \(6,\)"):
            fused_kd(hidden, weight, targets, LABELS, sample_weights=stretched)
    with pytest.raises(RecipeError, match=r"bias: expected \(40,\), found \(1,\)"):
        fused_kd(hidden, weight, targets, LABELS, bias=one)
    with pytest.raises(RecipeError, match="labels: expected integers"):
        fused_kd(hidden, weight, targets, LABELS.float())
    for cap in (0.0, -1.0):
        with pytest.raises(ValueError, match="soft_cap: expected a number above 0"):
            fused_kd(hidden, weight, targets, LABELS, soft_cap=cap)
    with pytest.raises(ValueError, match="logit_scale: expected a number"):
        fused_kd(hidden, weight, targets, LABELS, logit_scale=math.nan)
    for call in (sparse_kd, sparse_js, sparse_mse):
        with pytest.raises(TypeError, match="targets: expected SparseTargets, found Tensor"):
            call(student, student, LABELS)
    with pytest.raises(
        TypeError, match="targets: expected SparseTargets, HiddenTargets or logits, found tuple"
    ):
        fused_kd(hidden, weight, (student,), LABELS)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", [*PAIRS, "fused"])
def test_no_rows_are_no_loss(name: str) -> None:
    """As of a batch of samples without positions: a mean of nothing would be NaN, and the student with it."""
    targets, student = stored(Sparse(4), logits(0))[:0], torch.randn(0, OUTPUTS, requires_grad=True)
    if name == "fused":
        loss = fused_kd(student, torch.eye(OUTPUTS), targets, LABELS[:0]).total
    else:
        loss = PAIRS[name][0](student, targets, LABELS[:0]).total
    loss.backward()
    assert float(loss.detach()) == 0


def test_rows_are_chosen_and_moved() -> None:
    targets = stored(Sparse(1, (1.0, 2.0), draws=4), logits(0))
    some = targets[torch.tensor([2, 4])].to("cpu")
    assert len(some) == 2
    assert some.num_outputs == OUTPUTS
    whole, part = targets.shares(2.0), some.shares(2.0)
    torch.testing.assert_close(whole.weights[[2, 4]], part.weights)


@pytest.mark.parametrize("name", [name for name in objectives.__all__ if name.startswith("Sparse")][:4])
def test_a_module_checks_its_settings(name: str) -> None:
    if name == "SparseObjective":
        return
    module: Any = getattr(objectives, name)
    with pytest.raises(ValueError, match=f"{name}: tail: expected "):
        module(tail="none")
    with pytest.raises(ValueError, match=f"{name}: alpha|{name}: weight"):
        module(-1.0)
    loss = pickle.loads(pickle.dumps(module(tail="bucket")))
    targets = stored(Sparse(5), logits(0))
    if name != "SparseMSE":
        assert loss(logits(1), targets, LABELS) == module.function(logits(1), targets, LABELS, tail="bucket")


def test_nothing_but_labels_is_a_cross_entropy() -> None:
    targets = stored(Sparse(5), logits(0))
    hidden = torch.randn(ROWS, 8)
    weight = torch.randn(OUTPUTS, 8)
    found = fused_ce_plus_kl(hidden, weight, targets, LABELS, 0.0)
    torch.testing.assert_close(found.total, cross_entropy(hidden @ weight.t(), LABELS))


@pytest.mark.parametrize("name", sorted(objectives.FUNCTIONS.keys() - {"regression"}))
@pytest.mark.parametrize(
    "encoding", [Sparse(8, TEMPERATURES), Sparse(2, TEMPERATURES, draws=20), Sparse(OUTPUTS, TEMPERATURES)]
)
def test_every_objective_takes_sparse_rows_as_all_logits(name: str, encoding: Sparse) -> None:
    """What `dense` makes of them is what the cache itself decodes, at each temperature."""
    teacher, student = logits(0), logits(1).float()
    rows = encoding.encode(teacher.numpy(), np.arange(ROWS), 0)
    targets = stored(encoding, teacher)
    function = objectives.FUNCTIONS[name]
    settings = {"temperature": 4.0} if "temperature" in inspect.signature(function).parameters else {}
    temperature = settings.get("temperature", 1.0)
    decoded = torch.from_numpy(encoding.decode(rows, OUTPUTS, temperature))
    found = targets.dense(temperature)
    torch.testing.assert_close(
        (found / temperature).softmax(1), (decoded / temperature).softmax(1), rtol=2e-4, atol=1e-7
    )
    if encoding.kept == OUTPUTS:
        torch.testing.assert_close(
            (found / 4).softmax(1), (teacher / 4).softmax(1).float(), rtol=1e-2, atol=1e-6
        )
    given = [one[:, None].expand(-1, 2, -1) if name == "general" else one for one in (found, decoded)]
    of_found, of_decoded = (function(student, one, LABELS, **settings).total for one in given)
    assert of_found.isfinite()
    torch.testing.assert_close(of_found, of_decoded, rtol=1e-3, atol=1e-4)
