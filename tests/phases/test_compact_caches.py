"""Recipes whose caches are compact: students, refusals, and caches that are made smaller afterwards."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from decant.cache import (
    LogitCache,
    MismatchError,
    Quantised,
    Sparse,
    Store,
    convert_cache,
    merge_caches,
    softmax,
)
from decant.pipeline.cli.main import decant
from decant.pipeline.errors import RecipeError
from decant.pipeline.phases import teacher_pass
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.soft_labels import open_cache
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.phases.verify import compare_with_teacher
from decant.pipeline.report.sections.cached import probabilities_of
from decant.pipeline.runs.result import Result
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers.small import CPU, plan

SPARSE = "cache.encoding={kind='sparse', head=4, temperatures=[1.0, 4.0]}"
DRAWS = "cache.encoding={kind='sparse', head=1, draws=4, seed=5, temperatures=[1.0, 4.0]}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("compact")
    make_teacher(plan(made), CPU)
    for encoding in ("cache.dtype=float32", "cache.encoding=dense-u8", SPARSE, DRAWS):
        cache_logits(plan(made, encoding), CPU, print)
    return made


@pytest.fixture(autouse=True)
def said_again() -> None:
    forget_what_was_said()


def cache_of(folder: Path, *overrides: str) -> LogitCache:
    path = plan(folder, *overrides).find_cache()
    assert path is not None
    return LogitCache.open(path)


def distilled(planned: Plan) -> Result:
    return next(result for result, _ in train_students(planned, CPU) if result.kind == "distilled")


def test_each_is_a_cache_of_its_own_and_near_the_dense_one(folder: Path) -> None:
    dense, small, sparse = (
        cache_of(folder, overrides)
        for overrides in ("cache.dtype=float32", "cache.encoding=dense-u8", SPARSE)
    )
    assert len({cache.manifest.key for cache in (dense, small, sparse)}) == 3
    assert small.manifest.encoding == Quantised()
    assert sparse.manifest.encoding == Sparse(4, (1.0, 4.0))
    logits = dense.logits(slice(None))
    step = np.ptp(logits, axis=1, keepdims=True) / 255
    assert (np.abs(small.logits(slice(None)) - logits) <= 0.51 * step).all()
    assert np.array_equal(sparse.rows(slice(None)).ids[:, 0], logits.argmax(1))
    for cache in (small, sparse):
        assert np.array_equal(cache.input_crc32, dense.input_crc32)
        assert cache.manifest.encoding.row_bytes(10) < dense.manifest.encoding.row_bytes(10)


@pytest.mark.parametrize("encoding", ["cache.encoding=dense-u8", SPARSE, DRAWS])
def test_the_teacher_agrees_with_its_compact_cache_and_with_no_other(folder: Path, encoding: str) -> None:
    found = compare_with_teacher(plan(folder, encoding), 100, CPU)
    assert found.agrees
    assert found.bound < 0.5, "and so rows of other samples are noticed"


@pytest.mark.parametrize("encoding", ["cache.encoding=dense-u8", SPARSE, DRAWS])
def test_students_learn_from_it(folder: Path, encoding: str, capsys: pytest.CaptureFixture[str]) -> None:
    # The softmax of this teacher, of two epochs, is flat, and of such few draws say little in two more.
    temperature, near = (1.0, 0.2) if encoding == DRAWS else (4.0, 0.05)
    at = f"student.objective={{name='kd', temperature={temperature}}}"
    from_dense = distilled(plan(folder, "cache.dtype=float32", at))
    from_compact = distilled(plan(folder, encoding, at))
    assert from_compact.cache != from_dense.cache
    assert abs(from_compact.metrics["top1"] - from_dense.metrics["top1"]) < near
    said = capsys.readouterr().err
    assert said.count("4 of 10 logits of a row are cached: the mass of the others is spread evenly") == (
        encoding == SPARSE
    )
    assert said.count("5 of 10 logits of a row are cached, drawn with known probabilities") == (
        encoding == DRAWS
    )


@pytest.mark.parametrize("encoding", [SPARSE, DRAWS])
def test_a_pass_that_encodes_on_its_device_makes_the_same_cache(
    folder: Path, tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teacher_pass, "encodes_on", lambda device: True)
    make_teacher(plan(tmp_path), CPU)
    cache_logits(plan(tmp_path, encoding), CPU, print)
    expected, found = cache_of(folder, encoding), cache_of(tmp_path, encoding)
    assert found.manifest.key == expected.manifest.key
    assert np.array_equal(found.input_crc32, expected.input_crc32)
    assert np.array_equal(found.rows(slice(None)).ids, expected.rows(slice(None)).ids)
    np.testing.assert_allclose(found.logits(slice(None)), expected.logits(slice(None)), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        ("{name='js', temperature=1.0}", "student.objective 'js': .* no expectation under it"),
        ("{name='mse'}", "student.objective 'mse': .* take kd, "),
        ("{name='kd', temperature=4.0, standardize=true}", "student.objective.standardize: .* draws"),
    ],
)
def test_a_loss_that_draws_would_bias_is_refused(folder: Path, objective: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        open_cache(plan(folder, DRAWS, f"student.objective={objective}"))


@pytest.mark.parametrize(
    ("objective", "says"),
    [
        (
            "{name='kd', temperature=2.0}",
            "student.objective.temperature 2: .* at T = 1, 4, and it does not follow .*: what the rows prove of it is "
            r"0\.\d+ nats wide on average, \d.* at most \(student.objective.interpolate = true\)",
        ),
        (
            "{name='kd', temperature={from=4.0, to=1.0}}",
            "student.objective.temperature: .* this is a schedule",
        ),
    ],
)
def test_a_temperature_that_is_not_declared_is_refused(folder: Path, objective: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        open_cache(plan(folder, SPARSE, f"student.objective={objective}"))


@pytest.mark.parametrize("encoding", [SPARSE, DRAWS])
def test_it_is_interpolated_where_the_objective_says_so(
    folder: Path, encoding: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The softmax lies near that of all logits, nearer than what the rows prove; pickling and the report keep it."""
    cache = open_cache(
        plan(folder, encoding, "student.objective={name='kd', temperature=2.0, interpolate=true}")
    )
    assert isinstance(cache, LogitCache)
    assert "does not declare temperature 2" in capsys.readouterr().err
    dense = softmax(cache_of(folder, "cache.dtype=float32").logits(slice(None)), 2.0)
    found = softmax(pickle.loads(pickle.dumps(cache)).logits(slice(None)), 2.0)
    rows, declared = cache.rows(slice(None)), cache.manifest.encoding
    assert isinstance(declared, Sparse)
    if encoding == SPARSE:
        left = 1 - np.take_along_axis(dense, rows.ids.astype(int), 1).sum(1)
        least, most = declared.log_tail_bounds(rows, 10, 2.0)
        assert (least <= np.log(left) + 1e-3).all()
        assert (np.log(left) <= most + 1e-3).all()
        assert (
            np.abs(np.log(1 - np.take_along_axis(found, rows.ids.astype(int), 1).sum(1)) - np.log(left))
            <= (most - least) / 2 + 2e-3
        ).all()
    assert np.abs(found.mean(0) - dense.mean(0)).max() < 0.03
    report = probabilities_of(cache, np.arange(5), 0, 2.0)
    assert np.array_equal(report, softmax(cache.logits(slice(0, 5)), 2.0))


def test_what_an_objective_without_a_temperature_reads(folder: Path) -> None:
    cache = open_cache(plan(folder, SPARSE, "student.objective={name='mse'}"))
    assert isinstance(cache, LogitCache)
    assert cache.temperature == 1.0


@pytest.mark.parametrize("encoding", ["dense-u8", "sparse"])
def test_a_regression_has_none(tmp_path: Path, encoding: str) -> None:
    from decant.pipeline.config.recipe import load_recipe

    given = load_recipe("regression", [f"cache.encoding={encoding}", "teacher.epochs=1", "student.epochs=1"])
    planned = Plan.of(given, tmp_path / "runs", Store(tmp_path / "caches"))
    make_teacher(planned, CPU)
    with pytest.raises(
        RecipeError, match=r"cache.encoding: compact encodings are of softmaxes, .* is regression"
    ):
        cache_logits(planned, CPU, print)


def test_a_cache_is_made_smaller_without_its_teacher_and_is_the_recipes(folder: Path, tmp_path: Path) -> None:
    """What is converted is what the teacher's pass would have made, but for what float32 rounds."""
    dense = cache_of(folder, "cache.dtype=float32")
    for encoding, recipe in ((Quantised(), "cache.encoding=dense-u8"), (Sparse(4, (1.0, 4.0)), SPARSE)):
        made = convert_cache(Store(tmp_path), dense, encoding)
        assert LogitCache.open(made).manifest.key == cache_of(folder, recipe).manifest.key
        assert np.allclose(
            LogitCache.open(made).logits(slice(None)), cache_of(folder, recipe).logits(slice(None)), atol=1e-2
        )
        with pytest.raises(MismatchError, match="convert the cache of all logits that it was made from"):
            convert_cache(Store(tmp_path), LogitCache.open(made), Quantised())


def test_means_of_what_was_left_out_are_not_made_up(folder: Path, tmp_path: Path) -> None:
    sparse = cache_of(folder, SPARSE)
    with pytest.raises(MismatchError, match="the mean of what was left out is not known"):
        merge_caches(Store(tmp_path), [sparse, sparse], "mean-logits")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("sparse", "cache.encoding.head: 64 logits of a row are more than the 10 classes; set it lower"),
        ("{kind='sparse', head=11}", "cache.encoding.head: 11 logits of a row are more"),
        ("{kind='sparse', head=0}", "cache.encoding.head: expected a whole number at least 1"),
        (
            "{kind='sparse', temperatures=[4.0]}",
            "cache.encoding.temperatures: must rise and have 1 among them",
        ),
        ("{kind='sparse', temperatures=[4.0, 1.0]}", "cache.encoding.temperatures: must rise and have 1"),
        ("{kind='sparse', temperatures=[0.0, 1.0]}", "cache.encoding.temperatures"),
        ("{kind='sparse', temperatures=1.0}", "cache.encoding.temperatures: expected a list"),
        ("{kind='dense-u8', head=3}", 'cache.encoding.head: belongs to kind = "sparse"'),
        (
            "{kind='sparse', draws=11}",
            "cache.encoding.draws: 11 logits of a row are more than the 10 classes",
        ),
        ("{kind='sparse', draws=0}", "cache.encoding.draws: expected a whole number at least 1"),
        ("{kind='sparse', seed=3}", "cache.encoding.seed: is of draws"),
        ("{kind='dense-u8', draws=3}", 'cache.encoding.draws: belongs to kind = "sparse"'),
        ("{kind='dense'}", "cache.encoding.kind: is of a language model"),
        ("{}", "cache.encoding.kind: missing"),
        ("3", "cache.encoding: expected a table"),
        ("float16", "cache.encoding.kind: expected one of dense, dense-u8, sparse, hidden"),
    ],
)
def test_settings_that_cannot_be_are_refused(folder: Path, setting: str, says: str) -> None:
    with pytest.raises(RecipeError) as refused:
        plan(folder, f"cache.encoding={setting}").find_cache()
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("sparse", "--draws", "4", "--seed", "3", "--temperatures", "1,4"), Sparse(0, (1.0, 4.0), 4, 3)),
        (("sparse", "--head", "2", "--draws", "3"), Sparse(2, (1.0,), 3)),
        (("sparse", "--head", "4"), Sparse(4)),
    ],
    ids=str,
)
def test_the_command_draws_from_a_cache_of_all_logits(
    folder: Path, tmp_path: Path, words: tuple[str, ...], expected: Sparse
) -> None:
    dense = cache_of(folder, "cache.dtype=float32")
    asked = ["cache", "convert", str(dense.path), "--store", str(tmp_path), "--encoding", *words]
    done = CliRunner().invoke(decant, asked)
    assert done.exit_code == 0, done.output
    (path,) = tmp_path.glob("*.h5")
    made = LogitCache.open(path)
    assert made.manifest.encoding == expected
    rows = expected.encode(dense.logits(slice(None)), np.arange(dense.num_samples), 0)
    assert all(np.array_equal(made.encoded(slice(None))[name], rows[name]) for name in rows)
    refused = CliRunner().invoke(decant, [*asked[: -len(words)], "dense-u8", "--draws", "4"])
    assert refused.exit_code == 2
    assert "belong to --encoding sparse" in refused.output
