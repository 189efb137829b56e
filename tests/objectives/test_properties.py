"""What holds for every objective, whatever its formula: gradients, labels, numbers, shapes."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from decant.pipeline import objectives
from decant.pipeline.errors import DataError, RecipeError
from decant.pipeline.objectives import (
    NO_LABEL,
    SparseTargets,
    ce_plus_kl,
    cross_entropy,
    kd,
    logit_mse,
    regression,
    soft_ce,
    softened_kl,
    standardized,
)
from tests.helpers import longhand
from tests.helpers.problems import (
    CLASSIFYING,
    DEFAULTS,
    DIVERGENCES,
    LABELLED,
    SOFTMAX,
    found,
    mixed,
    problem,
)

# What theory gives


@pytest.mark.parametrize("standardize", [False, True])
@pytest.mark.parametrize("name", CLASSIFYING)
def test_the_gradient_is_that_of_the_loss(name: str, standardize: bool) -> None:
    student, teacher, labels = problem(name, batch=4)
    given = {"standardize": True} if standardize and "standardize" in DEFAULTS[name] else {}
    for answers in (labels, mixed(labels)):
        assert torch.autograd.gradcheck(
            lambda s, answers=answers: found(name, s, teacher, answers, **given).total,
            student.requires_grad_(),
        )


def test_the_gradient_of_a_regression_is_that_of_the_loss() -> None:
    student, teacher, _ = problem(batch=3)
    targets = torch.ones_like(student)
    targets[1] = math.nan
    assert torch.autograd.gradcheck(lambda s: regression(s, teacher, targets).total, student.requires_grad_())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("name", [*DIVERGENCES, "mse", "general", "dkd", "dist", "soft-transfer-knowledge"])
def test_the_soft_term_is_least_and_flat_where_the_student_is_the_teacher(
    name: str, temperature: float
) -> None:
    _, teacher, _ = problem()
    target = torch.stack([teacher, teacher], 1) if name == "general" else teacher
    given = {"temperature": temperature} if "temperature" in DEFAULTS[name] else {}
    none = torch.full((12,), NO_LABEL)
    student = teacher.clone().requires_grad_()
    soft = found(name, student, target, none, **given).soft
    assert soft is not None
    (gradient,) = torch.autograd.grad(soft, student)
    entropy = longhand.entropy(teacher.numpy() / temperature, teacher.numpy() / temperature).mean()
    least = {"soft-ce": temperature**2 * entropy, "soft-transfer-knowledge": entropy}
    tolerance = 1e-5 if name == "dist" else 1e-12  # 1e-8 of its denominators are no correlation's
    assert gradient.abs().max() < tolerance
    assert soft.item() == pytest.approx(least.get(name, 0.0), abs=tolerance)
    moved = found(
        name, teacher + torch.randn(12, 5, generator=torch.manual_seed(0)).double(), target, none, **given
    )
    assert moved.soft is not None
    assert moved.soft > soft


def test_nkd_is_flat_in_the_other_classes_where_the_student_is_the_teacher() -> None:
    _, teacher, labels = problem()
    student = teacher.clone().requires_grad_()
    whole, target = (found("nkd", student, teacher, labels, gamma=gamma).total for gamma in (1.0, 0.0))
    (gradient,) = torch.autograd.grad(whole - target, student)
    assert gradient.abs().max() < 1e-12
    assert whole > target


@pytest.mark.parametrize("name", [name for name in CLASSIFYING if name != "mse"])
def test_a_constant_added_to_a_samples_logits_changes_nothing(name: str) -> None:
    student, teacher, labels = problem(name)
    shift = torch.linspace(-50, 50, len(student), dtype=torch.float64)[:, None]
    expected = found(name, student, teacher, labels).total.item()
    moved = found(name, student + shift, teacher - 2 * shift.view(-1, *[1] * (teacher.ndim - 1)), labels)
    assert moved.total.item() == pytest.approx(expected, rel=1e-9)


def test_matching_numbers_notices_a_constant() -> None:
    _, teacher, labels = problem()
    assert logit_mse(teacher + 3, teacher, labels).total.item() == pytest.approx(9)
    assert regression(teacher + 3, teacher, teacher).total.item() == pytest.approx(18)


@pytest.mark.parametrize(("name", "factor"), [("kd", 1), ("soft-ce", 1), ("rkl", 1), ("js", 1 / 4)])
def test_t_squared_keeps_the_gradients_size(name: str, factor: float) -> None:
    """For high T it nears that of matching centred logits, (s − t) / (B·C): Hinton et al. (2015), equation 4; of
    Jensen–Shannon's a quarter.
    """
    student, teacher, labels = problem(spread=1.0)
    student, teacher = student - student.mean(1, keepdim=True), teacher - teacher.mean(1, keepdim=True)
    expected = factor * (student - teacher) / student.numel()
    sizes = []
    for temperature in (1.0, 4.0, 10_000.0):
        soft = found(name, student.requires_grad_(), teacher, labels, temperature=temperature).soft
        assert soft is not None
        (gradient,) = torch.autograd.grad(soft, student)
        sizes.append(gradient.norm().item())
    assert (gradient - expected).abs().max() < 1e-3 * expected.abs().max()
    assert max(sizes) < 3 * min(sizes), sizes


@pytest.mark.parametrize("name", ["general", "soft-transfer-knowledge"])
def test_without_t_squared_the_gradient_shrinks_with_its_square(name: str) -> None:
    student, teacher, labels = problem(name)
    sizes = []
    for temperature in (1e3, 1e4):
        total = found(name, student.requires_grad_(), teacher, labels, temperature=temperature).total
        sizes.append(torch.autograd.grad(total, student)[0].norm().item())
    assert sizes[0] / sizes[1] == pytest.approx(100, rel=0.01)


def test_general_and_ce_plus_kl_are_made_of_the_terms_of_kd_and_js_is_at_most_log_2() -> None:
    student, teacher, labels = problem()
    pair, whole = (student, teacher), kd(student, teacher, labels)
    as_general = found(
        "general", student, torch.stack([teacher, student], 1), labels, alpha=16.0, beta=9.0, temperature=4.0
    )
    assert as_general.total.item() == pytest.approx(softened_kl(*pair, 4.0).item()), (
        "the knowledge is the student"
    )
    hard, soft = whole.hard, whole.soft
    assert hard is not None
    assert soft is not None
    assert ce_plus_kl(*pair, labels, 3.0).total.item() == pytest.approx((hard + 3 * soft).item())
    bound = found("js", 1000 * student, -1000 * student, labels, temperature=1.0).soft
    assert bound is not None
    assert bound.item() == pytest.approx(math.log(2))


def test_dkd_adds_up_to_kd_where_others_weigh_as_the_teacher_says() -> None:
    """Zhao et al. (2022), equation 5: KL = TCKD + (1 − p)·NCKD."""
    student, teacher, labels = (part[:1] for part in problem())
    others = 1 - (teacher / 4).softmax(1)[0, labels[0]].item()
    split = found("dkd", student, teacher, labels, alpha=1.0, beta=others)
    assert split.soft is not None
    assert split.soft.item() == pytest.approx(softened_kl(student, teacher, 4.0).item(), rel=1e-12)


def test_a_z_score_has_mean_0_and_deviation_1_and_equal_logits_are_zeros() -> None:
    rows = standardized(torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]))
    assert rows[0].mean().item() == pytest.approx(0, abs=1e-6)
    assert rows[0].std(correction=0).item() == pytest.approx(1)
    assert not rows[1].any()


# Labels


@pytest.mark.parametrize("name", CLASSIFYING)
def test_a_one_hot_label_is_the_label(name: str) -> None:
    student, teacher, labels = problem(name)
    assert found(name, student, teacher, mixed(labels, share=1.0)).total.item() == pytest.approx(
        found(name, student, teacher, labels).total.item(), rel=1e-12
    )


@pytest.mark.parametrize("name", CLASSIFYING)
def test_without_any_label_the_hard_part_is_zero_and_not_nan(name: str) -> None:
    student, teacher, labels = problem(name)
    student.requires_grad_()
    for none in (torch.full_like(labels, NO_LABEL), torch.zeros(12, 5)):
        terms = found(name, student, teacher, none)
        assert not terms.hard
        (gradient,) = torch.autograd.grad(terms.total, student)
        assert gradient.isfinite().all()
        learns = name not in ("ls", "soft-transfer-data", "soft-transfer-model")
        assert bool(gradient.any()) == learns


@pytest.mark.parametrize("name", LABELLED)
def test_a_sample_without_a_label_has_no_part_in_the_hard_term(name: str) -> None:
    student, teacher, labels = problem(name)
    terms = found(name, student.requires_grad_(), teacher, labels)
    term = terms.soft if terms.hard is None else terms.hard
    assert term is not None
    (gradient,) = torch.autograd.grad(term, student)
    assert not gradient[2].any()
    keep = labels != NO_LABEL
    alone = found(name, student[keep], teacher[keep], labels[keep])
    expected = alone.soft if alone.hard is None else alone.hard
    assert expected is not None
    assert term.item() == pytest.approx(expected.item(), rel=1e-12)


def test_cross_entropy_is_torchs_with_any_smoothing() -> None:
    student, _, labels = problem()
    for smoothing in (0.0, 0.1, 0.5):
        theirs = torch.nn.functional.cross_entropy(
            student, labels, ignore_index=-1, label_smoothing=smoothing
        )
        assert cross_entropy(student, labels, smoothing).item() == pytest.approx(theirs.item(), rel=1e-9)


# Numbers


@pytest.mark.parametrize("name", CLASSIFYING)
def test_huge_logits_give_no_nan_in_loss_or_gradient(name: str) -> None:
    extremes = torch.tensor(list(itertools.product([-1e4, 0.0, 1e4], repeat=3)))
    student = extremes.repeat_interleave(len(extremes), 0).requires_grad_()
    teacher, labels = extremes.repeat(len(extremes), 1), torch.arange(len(extremes) ** 2) % 4 - 1
    teacher = torch.stack([teacher, teacher.flip(1)], 1) if name == "general" else teacher
    options = [{"temperature": at, "standardize": on} for at in (0.5, 1.0, 20.0) for on in (False, True)]
    for given in options if name in SOFTMAX else [{}]:
        for answers in (labels, mixed(labels, 3)):
            total = found(name, student, teacher, answers, **given).total
            (gradient,) = torch.autograd.grad(total, student)
            assert total.isfinite(), given
            assert gradient.isfinite().all(), given


@pytest.mark.parametrize("name", CLASSIFYING)
def test_under_bfloat16_autocast_it_is_computed_in_float32(name: str) -> None:
    student, teacher, labels = problem(name)
    low = student.bfloat16(), teacher.bfloat16()
    for answers in (labels, mixed(labels).bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            within = found(name, *low, answers).total
        assert within.dtype == torch.float32
        assert torch.equal(within, found(name, *(part.float() for part in low), answers).total)
        assert torch.equal(within, found(name, low[0].float(), low[1], answers).total), "of unlike types"


@pytest.mark.parametrize("name", CLASSIFYING)
def test_it_leaves_its_inputs_as_they_are_and_float64_stays_so(name: str) -> None:
    given = problem(name)
    assert found(name, *given).total.dtype == torch.float64
    for after, before in zip(given, problem(name), strict=True):
        assert torch.equal(after, before)


@pytest.mark.parametrize("name", [name for name in CLASSIFYING if name != "dist"])
def test_it_is_a_mean_over_the_batch(name: str) -> None:
    student, teacher, labels = problem(name)
    labels = labels.clamp(min=0)
    alone = [found(name, *(part[i : i + 1] for part in (student, teacher, labels))).total for i in range(12)]
    assert found(name, student, teacher, labels).total.item() == pytest.approx(np.mean(alone), rel=1e-9)


# Several caches


@pytest.mark.parametrize("name", SOFTMAX)
def test_logits_of_another_shape_are_refused(name: str) -> None:
    student, teacher, labels = problem(name)
    if name == "general":
        for wrong, count in ((teacher[:, 0], 1), (teacher[:, :1], 1), (teacher.repeat(1, 2, 1), 4)):
            with pytest.raises(RecipeError, match=rf"two caches, found {count}; set cache\.from"):
                found(name, student, wrong, labels)
    else:
        for wrong in (torch.stack([teacher, teacher], 1), teacher[:, :1]):
            with pytest.raises(
                RecipeError, match=r"one row of teacher logits a sample, of shape \(12, 5\), found"
            ):
                found(name, student, wrong, labels)


def test_mixed_labels_may_be_of_networks_under_vmap() -> None:
    student, teacher, shares = torch.zeros(2, 4, 3), torch.ones(2, 4, 3), torch.full((2, 4, 3), 1 / 3)
    each = torch.func.vmap(lambda *given: soft_ce(*given).total)(student, teacher, shares)
    torch.testing.assert_close(each[0], soft_ce(student[0], teacher[0], shares[0]).total)


# Samples that count differently


@pytest.mark.parametrize("answers", ["labels", "mixed", "none"])
@pytest.mark.parametrize("name", CLASSIFYING)
def test_a_sample_of_weight_two_counts_as_two_samples(name: str, answers: str) -> None:
    student, teacher, labels = problem(name, batch=4)
    given = {"gamma": 0.0} if name == "dist" else {}  # a correlation over the batch is no mean over samples
    targets = {"labels": labels, "mixed": mixed(labels), "none": torch.full_like(labels, NO_LABEL)}[answers]
    often = torch.tensor([0, 0, 1, 3])
    weighed = found(
        name, student, teacher, targets, sample_weights=torch.tensor([2.0, 1.0, 0.0, 1.0]), **given
    )
    repeated = found(name, student[often], teacher[often], targets[often], **given)
    torch.testing.assert_close(weighed.total, repeated.total)


@pytest.mark.parametrize("name", CLASSIFYING)
def test_equal_weights_change_nothing(name: str) -> None:
    student, teacher, labels = problem(name, batch=4)
    whole = found(name, student, teacher, labels)
    weighed = found(name, student, teacher, labels, sample_weights=torch.full((4,), 3.0))
    torch.testing.assert_close(weighed.total, whole.total)


@pytest.mark.parametrize("name", [name for name in SOFTMAX if name not in ("mse", "ls")])
def test_a_softmax_of_one_output_is_refused(name: str) -> None:
    """It is 1 whatever the output is: the loss was 0, and a student of a regression never learnt."""
    student, teacher, _ = problem(name, classes=1)
    with pytest.raises(RecipeError, match=r"one output|only one"):
        found(name, student, teacher, torch.zeros(len(student), dtype=torch.int64))


def test_what_is_no_tensor_is_named_with_what_to_give() -> None:
    student = torch.zeros(1, 3)
    rows = SparseTargets.of([[0, 1, 2]], torch.full((1, 3), 1 / 3).log(), num_outputs=3)
    for given, says in (
        ((student, rows), r"teacher_logits: .* found SparseTargets: sparse_kd .* take these"),
        ((student, np.zeros((1, 3))), r"teacher_logits: .* found ndarray: torch\.from_numpy"),
        ((SimpleNamespace(logits=student), student), r"student_logits: .*: give its logits"),
    ):
        with pytest.raises(TypeError, match=says):
            kd(*given, torch.tensor([0]))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[1.0, 1.0, 0.0], [0.0, 1.0, 0.0]], "row 0 adds up to 2, .* several classes"),
        ([[0.5, 0.5, 0.0], [0.3, -1.2, 4.0]], "row 1 adds up to 3.1, "),
        ([[1.0, math.nan, 0.0]] * 2, "row 0 adds up to nan"),
        ([[1.0, 0.0], [0.0, 1.0]], r"expected shares of the classes, \(2, 3\), found \(2, 2\)"),
        ([0.0, 1.0], r"expected ids of classes \(B,\), integers, .* found float32 of shape \(2,\)"),
    ],
    ids=["several classes", "numbers", "unknown", "fewer classes", "float ids"],
)
def test_labels_that_are_no_shares_of_classes_are_refused(labels: list[Any], says: str) -> None:
    """Several classes a sample gave a cross-entropy of sums, and no error."""
    with pytest.raises(DataError, match=f"(?i){says}"):
        kd(torch.zeros(2, 3), torch.ones(2, 3), torch.tensor(labels))
    with pytest.raises(RecipeError, match="the student needs an output for each of the teacher's"):
        kd(torch.zeros(2, 3), torch.ones(2, 4), torch.zeros(2, dtype=torch.int64))
    rounded = torch.tensor([[0.333, 0.333, 0.333], [0.0, 0.0, 0.0]], dtype=torch.bfloat16)
    assert math.isfinite(kd(torch.zeros(2, 3), torch.ones(2, 3), rounded).total)


@pytest.mark.parametrize("name", LABELLED)
def test_ids_of_classes_may_be_integers_of_any_size(name: str) -> None:
    """torch takes int64 and uint8 for a cross-entropy, int64 for a place, and uint8 for a mask."""
    student, teacher, labels = problem(name)
    labels, weights = (
        labels.clamp(min=0),
        {"class_weights": [1.0, 2.0, 3.0, 4.0, 5.0]} if name == "kd" else {},
    )
    expected = found(name, student, teacher, labels, **weights).total
    for given in (labels.int(), labels.to(torch.uint8), labels.to(torch.int16), labels[:, None].int()):
        assert torch.equal(found(name, student, teacher, given, **weights).total, expected)
    with pytest.raises(
        DataError, match=r"or shares of classes \(B, C\), floats, found int64 of shape \(12, 5\)"
    ):
        found(name, student, teacher, torch.nn.functional.one_hot(labels, 5))


@pytest.mark.parametrize("name", ["kd", "js", "rkl", "dist", "dkd", "soft_ce", "nkd"])
def test_a_temperature_that_is_none_is_refused_by_functions_too(name: str) -> None:
    student, teacher, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    for temperature in (0, -4.0, float("nan")):
        with pytest.raises(ValueError, match="temperature: expected a number above 0"):
            getattr(objectives, name)(student, teacher, labels, temperature=temperature)


@pytest.mark.parametrize("alpha", [-0.1, 2, 90.0])
def test_a_weight_that_is_no_share_is_refused_by_functions_too(alpha: float) -> None:
    student, teacher, labels = torch.randn(4, 3), torch.randn(4, 3), torch.tensor([0, 1, 2, 0])
    for function in (objectives.kd, objectives.js, objectives.logit_mse):
        with pytest.raises(ValueError, match="alpha: expected a number from 0 to 1"):
            function(student, teacher, labels, alpha=alpha)
