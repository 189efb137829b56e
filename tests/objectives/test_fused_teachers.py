"""Fused losses against hidden states or logits of a teacher: formulas in float64, sizes of tensors, refusals."""

from __future__ import annotations

import gc
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from decant import LogitCache, LogitCacheWriter, Manifest
from decant.encodings import Dense, Head, Hidden
from decant.objectives import (
    HiddenTargets,
    SparseTargets,
    TeacherHead,
    Terms,
    ce_plus_kl,
    cross_entropy,
    fused_ce_plus_kl,
    fused_kd,
    kd,
    sparse_kd,
)
from decant.pipeline.errors import RecipeError
from decant.pipeline.objectives import chunked
from decant.pipeline.objectives.fused import hidden_targets

ROWS, OUTPUTS = 7, 30
LABELS = torch.tensor([3, -1, 0, 29, 7, -1, 3])
WEIGHTS = torch.tensor([1.0, 0.0, 2.0, 0.5, 1.0, 1.0, 3.0]).double()


def tensors(width: int, seed: int, bias: bool = True) -> tuple[Tensor, Tensor, Tensor | None]:
    """Hidden states, weights and bias, in float64."""
    random = torch.Generator().manual_seed(seed)

    def some(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random, dtype=torch.float64)

    return some(ROWS, width), some(OUTPUTS, width), some(OUTPUTS) if bias else None


def made(hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, cap: float | None) -> Tensor:
    logits = scale * hidden @ weight.t() + (0 if bias is None else bias)
    return logits if cap is None else cap * torch.tanh(logits / cap)


def longhand(student: Tensor, teacher: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Cross-entropy and divergence of weighted rows, and their gradients by the student's logits, as the formulas have
    them: CE = −log q_y, KL = Σ p·log(p/q) at T, ∂CE/∂s = q − 1_y, T²·∂KL/∂s = T·(q_T − p_T).
    """

    def softmax(values: Tensor) -> Tensor:
        exps = torch.exp(values - values.max(1, keepdim=True).values)
        return exps / exps.sum(1, keepdim=True)

    share = WEIGHTS / WEIGHTS.sum()
    labelled = WEIGHTS * (LABELS >= 0)
    of_labels = labelled / labelled.sum()
    q, q_t, p_t = softmax(student), softmax(student / temperature), softmax(teacher / temperature)
    of_label = torch.nn.functional.one_hot(LABELS.clamp(min=0), OUTPUTS).double()
    hard = -(of_labels * (q * of_label).sum(1).log()).sum()
    soft = temperature**2 * (share * (p_t * (p_t / q_t).log()).sum(1)).sum()
    return hard, soft, of_labels[:, None] * (q - of_label), temperature * share[:, None] * (q_t - p_t)


@pytest.mark.parametrize("kind", ["hidden", "logits"])
@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("cap", [None, 5.0])
def test_values_and_gradients_are_those_of_the_formulas(
    kind: str, temperature: float, cap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In chunks of 5 of 7 rows, and blocks of 2."""
    monkeypatch.setattr(chunked, "_BLOCK", 2 * OUTPUTS)
    own = tensors(6, seed=0)
    hidden, weight, bias = (one.clone().requires_grad_() for one in own if one is not None)
    theirs = tensors(9, seed=1)
    student, teacher = made(*own, 0.5, cap), made(*theirs, 2.0, 8.0)
    targets = HiddenTargets.of(*theirs, logit_scale=2.0, soft_cap=8.0) if kind == "hidden" else teacher
    settings: dict[str, Any] = {"bias": bias, "logit_scale": 0.5, "soft_cap": cap, "sample_weights": WEIGHTS}
    hard, soft, by_hard, by_soft = longhand(student, teacher, temperature)
    slope = 1.0 if cap is None else 1 - (student / cap) ** 2
    for fused, weigh in ((fused_kd, (1 - 0.7, 0.7)), (fused_ce_plus_kl, (1.0, 0.7))):
        terms = fused(hidden, weight, targets, LABELS, 0.7, temperature, chunk_rows=5, **settings)
        torch.testing.assert_close(terms.hard, hard, rtol=1e-12, atol=0)
        torch.testing.assert_close(terms.soft, soft, rtol=1e-11, atol=0)
        torch.testing.assert_close(
            terms.total.detach(), weigh[0] * hard + weigh[1] * soft, rtol=1e-11, atol=0
        )
        by_logits = slope * (weigh[0] * by_hard + weigh[1] * by_soft)
        expected = 0.5 * by_logits @ own[1], 0.5 * by_logits.t() @ own[0], by_logits.sum(0)
        for factor in (1.0, 3.0):
            found = torch.autograd.grad(factor * terms.total, (hidden, weight, bias), retain_graph=True)
            for one, other in zip(found, expected, strict=True):
                torch.testing.assert_close(one, factor * other, rtol=1e-10, atol=1e-13)


def test_they_are_kd_and_ce_plus_kl_of_the_logits() -> None:
    hidden, weight, _ = tensors(6, seed=0, bias=False)
    theirs = tensors(9, seed=1)
    student, teacher = hidden @ weight.t(), made(*theirs, 1.0, None)
    for targets in (HiddenTargets.of(*theirs), teacher):
        for fused, dense in ((fused_kd, kd), (fused_ce_plus_kl, ce_plus_kl)):
            for one, other in zip(
                fused(hidden, weight, targets, LABELS, 0.3, 2.0),
                dense(student, teacher, LABELS, 0.3, 2.0),
                strict=True,
            ):
                torch.testing.assert_close(one, other)


def test_gradients_add_up_over_several_backward_passes() -> None:
    """Each adds its own: what one returned is not changed by the next, whatever the loss is multiplied with."""
    hidden, weight, _ = (one if one is None else one.float() for one in tensors(6, seed=0, bias=False))
    assert hidden is not None
    assert weight is not None
    hidden.requires_grad_()
    weight.requires_grad_()
    targets = HiddenTargets.of(hidden.detach().flip(0), weight)
    total = fused_kd(hidden, weight, targets, LABELS).total
    total.backward(retain_graph=True)
    once = [one.grad.clone() for one in (hidden, weight) if one.grad is not None]
    total.backward(retain_graph=True)
    (2 * total).backward()
    for one, first in zip((hidden, weight), once, strict=True):
        torch.testing.assert_close(one.grad, 4 * first)


def test_the_same_teacher_is_no_divergence_and_no_gradient() -> None:
    hidden, weight, bias = tensors(6, seed=0)
    hidden.requires_grad_()
    terms = fused_kd(hidden, weight, HiddenTargets.of(hidden, weight, bias), LABELS, 1.0, 3.0, bias=bias)
    assert terms.soft is not None
    assert abs(float(terms.soft)) < 1e-14
    (found,) = torch.autograd.grad(terms.total, hidden)
    assert float(found.abs().max()) < 1e-14


@pytest.mark.parametrize("scale", [1e3, 1e4])
def test_sure_networks_that_disagree_have_finite_gradients(scale: float) -> None:
    hidden = torch.tensor([[scale, 0.0, 0.0]], requires_grad=True)
    targets = HiddenTargets.of(torch.tensor([[0.0, scale, 0.0]]), torch.eye(3))
    terms = fused_kd(hidden, torch.eye(3), targets, torch.tensor([-1]), 1.0)
    assert float(terms.total.detach()) == scale
    (found,) = torch.autograd.grad(terms.total, hidden)
    assert found.tolist() == [[1.0, -1.0, 0.0]]


def test_what_a_cache_of_hidden_states_holds_is_compared_with(tmp_path: Path) -> None:
    """At every temperature alike, from float16; the weights are made tensors once, and forgotten with the cache."""
    states, matrix, vector = (one if one is None else one.float() for one in tensors(9, seed=1))
    assert states is not None
    head = Head.of(matrix, vector, scale=0.5, soft_cap=20.0)
    manifest = Manifest.build(num_samples=ROWS, num_outputs=OUTPUTS, encoding=Hidden.of(head))
    with LogitCacheWriter(tmp_path / "a.h5", manifest, head=head) as writer:
        writer.write(range(ROWS), states)
        cache = LogitCache.open(writer.publish())
    before = len(hidden_targets._of_caches)
    targets = HiddenTargets.read(cache, [4, 2])
    assert targets.weight is HiddenTargets.read(cache, [0]).weight
    hidden, weight, _ = tensors(6, seed=0, bias=False)
    student = hidden[[4, 2]] @ weight.t()
    expected = kd(student, torch.from_numpy(cache.logits([4, 2])), LABELS[[4, 2]], temperature=2.0)
    found = fused_kd(hidden[[4, 2]], weight, targets, LABELS[[4, 2]], temperature=2.0)
    torch.testing.assert_close(found.total, expected.total, rtol=1e-6, atol=0)
    again = pickle.loads(pickle.dumps(targets))
    torch.testing.assert_close(again[1:].logits(), targets.logits()[1:])
    assert torch.equal(TeacherHead(cache.head).logits(targets.hidden), targets.to("cpu").logits())
    del cache, targets, again, writer
    gc.collect()
    assert len(hidden_targets._of_caches) == before


def test_a_cache_of_another_encoding_has_none(tmp_path: Path) -> None:
    with LogitCacheWriter(
        tmp_path / "a.h5", Manifest.build(num_samples=2, num_outputs=3, encoding=Dense())
    ) as writer:
        writer.write([0, 1], np.zeros((2, 3)))
        cache = LogitCache.open(writer.publish())
    with pytest.raises(TypeError, match="hidden"):
        HiddenTargets.read(cache, [0])


def test_logits_of_all_positions_never_exist_together() -> None:
    """The largest tensor that is made has a chunk's logits, whatever the number of positions."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            found = func(*args, **(kwargs or {}))
            for one in found if isinstance(found, tuple | list) else (found,):
                largest = max(largest, one.numel() if isinstance(one, Tensor) else 0)
            return found

    rows, outputs, width = 300, 500, 4
    hidden, weight = (
        torch.randn(rows, width, requires_grad=True),
        torch.randn(outputs, width, requires_grad=True),
    )
    targets = HiddenTargets.of(torch.randn(rows, width), torch.randn(outputs, width))
    with Sizes():
        fused_kd(
            hidden, weight, targets, torch.zeros(rows, dtype=torch.int64), 0.5, 2.0, chunk_rows=16
        ).total.backward()
    assert outputs * width <= largest <= 16 * outputs


def test_what_makes_no_sense_is_refused() -> None:
    hidden, weight, bias = tensors(6, seed=0)
    theirs = HiddenTargets.of(hidden, weight, bias)
    with pytest.raises(ValueError, match="tail: is of sparse rows, and these leave nothing out"):
        fused_kd(hidden, weight, theirs, LABELS, tail="bucket")
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="temperature: expected a number above 0"):
            fused_kd(hidden, weight, theirs, LABELS, temperature=temperature)
    with pytest.raises(RecipeError, match="the teacher's rows are of 30 outputs, the student has 29"):
        fused_kd(hidden, weight[:29], theirs, LABELS)
    with pytest.raises(RecipeError, match=r"expected hidden \(6, d\)"):
        fused_kd(hidden, weight, theirs[:6], LABELS)
    with pytest.raises(RecipeError, match=r"targets: expected logits \(Q, C\), found \(7,\) torch.int64"):
        fused_kd(hidden, weight, LABELS, LABELS)
    for wrong in (None, theirs.logits().numpy(), [1.0]):
        with pytest.raises(TypeError, match="targets: expected SparseTargets, HiddenTargets or logits"):
            fused_kd(hidden, weight, wrong, LABELS)  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"expected hidden \(Q, d\) and weight \(C, d\) of a teacher"):
        HiddenTargets.of(hidden, weight[:, :4])
    with pytest.raises(RecipeError, match=r"targets: expected bias \(30,\), found \(1,\)"):
        HiddenTargets.of(hidden, weight, torch.zeros(1))
    with pytest.raises(RecipeError, match="targets: expected floats"):
        HiddenTargets.of(hidden.long(), weight)
    with pytest.raises(ValueError, match="soft_cap: expected a number above 0"):
        HiddenTargets.of(hidden, weight, soft_cap=0.0)
    for given, said in (
        ({"alpha": 1.5}, "alpha: expected a number from 0 to 1, found 1.5"),
        ({"chunk_rows": 0}, "chunk_rows: expected 1 or more, found 0"),
        ({"labels": LABELS[:6]}, r"labels \(7,\), found .* and \(6,\)"),
        ({"labels": LABELS.float()}, "labels: expected integers, negative for none, found torch.float32"),
        ({"bias": bias[:1]}, r"bias: expected \(30,\), found \(1,\)"),
        ({"sample_weights": WEIGHTS[:1]}, r"sample_weights: expected \(7,\), found \(1,\)"),
    ):
        with pytest.raises((ValueError, RecipeError), match=said):
            fused_kd(hidden, weight, theirs, **{"labels": LABELS, **given})
    logits = HiddenTargets.of(hidden.requires_grad_(), weight).logits()
    assert not logits.requires_grad
    total = fused_kd(hidden, weight, logits.requires_grad_(), LABELS).total
    assert torch.autograd.grad(total, logits, allow_unused=True) == (None,)


def test_half_precision_and_autocast_leave_the_teacher_in_float32() -> None:
    hidden, weight, bias = (one if one is None else one.float() for one in tensors(6, seed=0))
    assert hidden is not None
    assert weight is not None
    theirs = HiddenTargets.of(10 * hidden, weight, bias)
    exact = fused_kd(hidden, weight, theirs, LABELS, 1.0).total
    with torch.autocast("cpu", torch.bfloat16):
        cast = fused_kd(hidden, weight, theirs, LABELS, 1.0).total
    rounded = kd((hidden.bfloat16() @ weight.bfloat16().t()).float(), theirs.logits(), LABELS, 1.0, 1.0).total
    torch.testing.assert_close(cast, rounded)
    torch.testing.assert_close(cast, exact, rtol=2e-2, atol=0)


@pytest.mark.parametrize("kind", ["fused", "labels", "any", "of float16 itself"])
def test_gradients_in_float16_do_not_vanish_in_a_mean_over_many_rows(kind: str) -> None:
    """Nor are they infinite with the scale that a GradScaler begins with."""
    many, outputs = 4096, 2000
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(outputs, (many,), generator=generator)
    tensors = [torch.randn(size, 4, generator=generator).half().float() for size in (many, outputs)]
    hidden, weight = (one.requires_grad_() for one in tensors)
    exact = torch.autograd.grad(functional.cross_entropy(hidden @ weight.t(), labels), (hidden, weight))
    if kind == "of float16 itself":
        hidden, weight = (one.detach().half().requires_grad_() for one in tensors)
    pending = chunked.PendingLogits(hidden, weight, autocast=torch.float16)
    if kind == "fused":
        with torch.autocast("cpu", torch.float16):
            targets = SparseTargets.of(labels[:, None], torch.full((many, 1), -1.0), num_outputs=outputs)
            terms = fused_ce_plus_kl(hidden, weight, targets, labels, kl_weight=0.0, chunk_rows=3000)
    elif kind == "labels":
        terms = chunked.chunked_cross_entropy(pending, labels)
    else:
        terms = chunked.chunked_mean(pending, lambda logits, rows: Terms(cross_entropy(logits, labels[rows])))
    found = torch.autograd.grad(65_536 * terms.total, (hidden, weight))
    for one, other in zip(found, exact, strict=True):
        assert float((one.float() / 65_536 - other).norm() / other.norm()) < 2e-3
    nothing = chunked.chunked_mean(pending, lambda logits, rows: Terms(0 * logits.sum()))
    assert not any(one.any() for one in torch.autograd.grad(nothing.total, (hidden, weight)))


def test_gradients_of_gradients_are_refused() -> None:
    """Without a word they were left out, where another loss was added."""
    hidden, weight, _ = (
        None if one is None else one.requires_grad_() for one in tensors(6, seed=0, bias=False)
    )
    assert hidden is not None
    total = fused_kd(hidden, weight, torch.zeros(ROWS, OUTPUTS, dtype=hidden.dtype), LABELS).total
    with pytest.raises(RuntimeError, match="create_graph=True: this loss makes its gradients in the forward"):
        torch.autograd.grad(total, hidden, create_graph=True)


def test_sparse_rows_in_blocks_are_those_of_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunked, "_BLOCK", 2 * OUTPUTS)
    hidden, weight, _ = tensors(6, seed=0, bias=False)
    hidden.requires_grad_()
    ids = torch.arange(4) + torch.arange(ROWS)[:, None]
    targets = SparseTargets.of(ids, torch.log_softmax(torch.randn(ROWS, 4), 1) - 0.3, num_outputs=OUTPUTS)
    found = fused_kd(hidden, weight, targets, LABELS, 0.6, chunk_rows=5, sample_weights=WEIGHTS).total
    expected = sparse_kd(hidden @ weight.t(), targets, LABELS, 0.6, sample_weights=WEIGHTS).total
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, hidden)[0] for one in (found, expected)))
