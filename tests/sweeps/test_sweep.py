"""A sweep from its first trial to its conclusion: ordinary runs, chosen by the validation part, measured once."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("optuna", reason="optuna is not installed; run: pip install 'decant-kd[sweep]'")

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.errors import DamagedError, NotMadeError, PipelineError, RecipeError
from decant.pipeline.phases import job
from decant.pipeline.runs.result import WEIGHTS, load_result
from decant.pipeline.runs.saved_recipe import read_saved_recipe
from decant.pipeline.sweeps.conclusion import BEST, conclude
from decant.pipeline.sweeps.definition import Sweep
from decant.pipeline.sweeps.readiness import check
from decant.pipeline.sweeps.record import SweepRecord, load_record
from decant.pipeline.sweeps.searches import JOURNAL
from decant.pipeline.sweeps.stages import Stages
from decant.pipeline.sweeps.students import Students
from decant.pipeline.sweeps.wording import in_words
from decant.pipeline.training.epoch_log import CHECKPOINT, read_epochs
from tests.helpers.small import CPU, plan, students
from tests.sweeps.conftest import HELD_OUT, planned

OVER = ("student.lr=log:0.003..0.1", "student.objective.temperature=1,4")


def run(sweep: Sweep) -> SweepRecord:
    return conclude(sweep, Stages(sweep, Students(sweep.plan, CPU)))


def stage(record: SweepRecord, name: str) -> Any:
    return next(one for one in record.stages if one.name == name)


@pytest.fixture(scope="module")
def done(base: Path) -> tuple[Sweep, SweepRecord]:
    sweep = planned(base, over=OVER)
    return sweep, run(sweep)


def test_the_best_by_validation_is_chosen_and_fresh_seeds_are_measured_on_the_test_part(
    done: tuple[Sweep, SweepRecord],
) -> None:
    sweep, record = done
    assert [(one.name, one.total, len(one.ended)) for one in record.stages] == [
        *(("students", 4, 4), ("baseline", 4, 4), ("fresh seeds", 4, 4))
    ]
    trials = stage(record, "students").trials
    results = {trial.number: load_result(sweep.plan.base / trial.folder) for trial in trials}
    assert all(not result.is_tested for result in results.values() if result is not None)
    values = {number: result.validation["top1"] for number, result in results.items()}  # type: ignore[union-attr,index]
    assert {trial.number: trial.value for trial in trials} == values
    best = record.best_of(stage(record, "students"))
    assert best is not None
    assert best.value == max(values.values())
    fresh = [load_result(sweep.plan.base / trial.folder) for trial in stage(record, "fresh seeds").trials]
    assert [(one.kind, one.seed, one.is_tested) for one in fresh if one is not None] == [
        *(("distilled", 1, True), ("labels", 1, True), ("distilled", 2, True), ("labels", 2, True))
    ]
    assert record.conclusion is not None
    by_seed = {
        str(one.seed): one.metrics["top1"] for one in fresh if one is not None and one.kind == "labels"
    }
    assert record.conclusion.labels == by_seed
    chosen = load_recipe(str(sweep.folder / BEST)).settings.student
    assert f"{chosen.lr:g}" == best.settings["student.lr"]
    assert (chosen.seed, chosen.seeds) == (1, 2)
    for command in (record.conclusion.command, record.conclusion.baseline_command):
        assert str(command).count(" student.lr=") == 1, command


def test_every_figure_says_its_part_and_what_was_chosen_by_it(done: tuple[Sweep, SweepRecord]) -> None:
    lines = list(in_words(done[1]))
    assert re.fullmatch(
        r"best of 4 trials: student\.lr=\S+, student\.objective\.temperature=[14]: validation top-1 \S+ %, which is "
        r"optimistic, as it was chosen by that",
        lines[0],
    )
    assert re.fullmatch(
        r"test part, measured once, 2 fresh seeds: distilled \S+ ± \S+ %, labels only \S+ ± \S+ %: [+-]\S+ points "
        r"\(standard error \S+\)",
        lines[-1],
    )


def test_the_same_command_again_trains_nothing(
    done: tuple[Sweep, SweepRecord], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "train", lambda *given, **more: pytest.fail("trained again"))
    record = run(planned(base, over=OVER))
    assert record.stages == done[1].stages
    assert record.conclusion == done[1].conclusion


def test_a_trial_is_an_ordinary_run_that_is_found_both_ways(
    done: tuple[Sweep, SweepRecord], base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial = stage(done[1], "students").trials[0]
    overrides = [f"{path}={value}" for path, value in trial.settings.items()]
    (made,) = students(base, *HELD_OUT, *overrides, "student.baseline=false")
    assert made.folder == base / "runs" / trial.folder
    assert made.is_tested, "and measured on the test part, as somebody asks"
    monkeypatch.setattr(job, "train", lambda *given, **more: pytest.fail("trained again"))
    again = planned(
        base, over=(f"student.lr={trial.settings['student.lr']},0.5", OVER[1]), sampler="grid", seed=1
    )
    found = Students(again.plan, CPU)
    recipe = again.variation(tuple(trial.settings.values()))
    _, was_found = found.train(found.job(recipe, "distilled", 0), recipe, lambda line: None)
    assert was_found


def test_more_trials_go_on_where_the_sweep_ended(done: tuple[Sweep, SweepRecord], base: Path) -> None:
    more = planned(base, over=OVER, trials=5)
    assert more.folder == done[0].folder
    trials = Stages(more, Students(more.plan, CPU)).choose_students().search.trials
    assert len(trials) == 5
    before = [trial.settings for trial in stage(done[1], "students").trials]
    written = load_record(more.folder)
    assert [trial.settings for trial in stage(written, "students").trials[:4]] == before
    assert (len(stage(written, "students").trials), written.conclusion) == (5, None), (
        "it is not finished any more"
    )


def test_the_settings_of_a_trial_are_a_function_of_the_seed_and_its_number(
    base: Path, tmp_path: Path
) -> None:
    def drawn(folder: Path, seed: int) -> list[dict[str, str]]:
        shutil.copytree(base, folder)
        sweep = planned(folder, over=OVER, seed=seed, trials=3, sampler="random")
        stages = Stages(sweep, Students(sweep.plan, CPU))
        stages.choose_students()
        return [trial.settings for trial in stages.record().stages[0].trials]

    first = drawn(tmp_path / "a", 0)
    assert drawn(tmp_path / "b", 0) == first
    assert drawn(tmp_path / "c", 1) != first


def test_a_trial_that_fails_is_recorded_and_the_sweep_goes_on(base: Path) -> None:
    """The baseline is not searched up to a learning rate that diverged."""
    sweep = planned(
        base, "student.optimizer=sgd", over=("student.lr=0.01,0.02,1e30",), sampler="grid", seeds=1
    )
    record = run(sweep)
    rates = [float(trial.settings["student.lr"]) for trial in stage(record, "baseline").trials]
    assert 0.01 <= min(rates) <= max(rates) <= 0.02
    trials = stage(record, "students").trials
    assert [trial.state for trial in trials].count("failed") == 1
    failed = next(trial for trial in trials if trial.state == "failed")
    assert "the training has diverged; likely causes: student.lr = 1e+30 is too high" in failed.reason
    assert any(re.match(r"1 of 3 trials failed; the first: ", line) for line in in_words(record))
    assert record.conclusion is not None
    assert record.gain is not None


def test_where_every_trial_fails_the_first_reason_is_given(base: Path) -> None:
    sweep = planned(base, over=("student.lr=1e30,1e31",), sampler="grid")
    with pytest.raises(
        PipelineError, match=r"none of 2 trials has come to an end; the first: .*has diverged"
    ):
        run(sweep)


def test_what_concerns_every_trial_ends_the_sweep_and_fails_none(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = planned(base, over=("student.lr=0.011,0.012",), sampler="grid")

    def full(*given: object, **more: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(job, "train", full)
        with pytest.raises(OSError, match="No space left"):
            run(sweep)
    assert [trial.state for trial in stage(load_record(sweep.folder), "students").trials] in ([], ["running"])
    assert len(stage(run(sweep), "students").ended) == 2


def test_trials_that_fall_behind_are_stopped_and_can_be_continued(base: Path) -> None:
    over = ("student.lr=log:1e-6..0.03", "student.network.hidden=8,16")
    words = ("student.epochs=9", "student.seeds=3")
    sweep = planned(base, *words, over=over, trials=8, pruner="hyperband", sampler="random")
    stages = Stages(sweep, Students(sweep.plan, CPU))
    stages.choose_students()
    trials = stages.record().stages[0].trials
    pruned = [trial for trial in trials if trial.state == "pruned"]
    assert pruned, [(trial.state, trial.value) for trial in trials]
    for trial in pruned:
        folder = base / "runs" / str(trial.folder)
        assert (folder / CHECKPOINT).exists()
        assert 0 < len(read_epochs(folder)) < 9
    for trial in trials:
        kept = read_saved_recipe(base / "runs" / str(trial.folder)) or {}
        assert kept["student"]["seeds"] == 1, "or a report would say that seeds are missing"
    overrides = [f"{path}={value}" for path, value in pruned[0].settings.items()]
    (made,) = students(base, *HELD_OUT, "student.epochs=9", *overrides, "student.baseline=false")
    assert made.folder == base / "runs" / str(pruned[0].folder)
    assert len(read_epochs(made.folder)) == 9


def test_a_choice_of_caches_is_a_sweep_too(base: Path) -> None:
    (cache,) = (base / "caches").glob("*.h5")
    shutil.copy(cache, base / "another.h5")
    over = (f"cache.from={cache},{base / 'another.h5'}", "cache.ensemble=probabilities,logits")
    sweep = planned(base, over=over, sampler="grid", seeds=1)
    check(sweep, Students(sweep.plan, CPU))
    assert len(stage(run(sweep), "students").ended) == 4


def test_what_is_missing_is_named_before_anything_runs(base: Path, tmp_path: Path) -> None:
    with pytest.raises(
        RecipeError, match="a sweep chooses by a validation part, and there is none; hold a tenth"
    ):
        Sweep.of(plan(base, 'sweep.over=["student.lr=1,2"]'))
    with pytest.raises(RecipeError, match="lrr"):  # a key that is misspelt, before what else is missing
        Sweep.of(plan(base, 'sweep.over=["student.lrr=1,2"]'))
    with pytest.raises(RecipeError, match="nothing is varied: give --over"):
        Sweep.of(plan(base, *HELD_OUT))
    empty = planned(tmp_path, over=OVER)
    with pytest.raises(NotMadeError, match=r"run: decant teacher .*, or give --build"):
        check(empty, Students(empty.plan, CPU))
    unknown = planned(base, over=("student.network=mlp,resnet9",))
    with pytest.raises(PipelineError, match=r"--over student\.network=resnet9: network 'resnet9': unknown"):
        check(unknown, Students(unknown.plan, CPU))
    regression = planned(base, over=("student.objective=kd,regression",))
    with pytest.raises(RecipeError, match=r"--over student\.objective=regression: .*is for regression"):
        check(regression, Students(regression.plan, CPU))


def test_a_journal_of_another_sweep_is_refused(done: tuple[Sweep, SweepRecord], base: Path) -> None:
    other = planned(base, over=("student.lr=0.01,0.02",))
    other.folder.mkdir()
    shutil.copy(done[0].folder / JOURNAL, other.folder / JOURNAL)
    with pytest.raises(DamagedError, match=r"is the journal of another sweep: sweep\.over.*; move it away"):
        run(other)
    (other.folder / JOURNAL).write_text("not a journal\nat all\n")
    with pytest.raises(DamagedError, match="not a journal of a sweep"):
        run(other)
    (other.folder / JOURNAL).unlink()
    assert run(other).conclusion is not None


def test_a_line_that_a_kill_tore_is_dropped(done: tuple[Sweep, SweepRecord], base: Path) -> None:
    with open(done[0].folder / JOURNAL, "a") as file:
        file.write('{"op_code":4,"worker')
    assert run(planned(base, over=OVER)).stages == load_record(done[0].folder).stages


def test_without_a_baseline_there_is_no_gain(base: Path) -> None:
    sweep = planned(base, "student.baseline=false", over=("student.lr=0.01,0.02",), sampler="grid", seeds=1)
    record = run(sweep)
    assert [one.name for one in record.stages] == ["students", "fresh seeds"]
    assert record.conclusion is not None
    assert record.gain is None


def test_a_journal_of_students_with_other_weights_is_refused(base: Path, tmp_path: Path) -> None:
    one, other = students(base, *HELD_OUT, "student.baseline=false", "student.seeds=2")
    weights = tmp_path / WEIGHTS
    over = ("student.lr=0.01,0.02",)

    def again() -> SweepRecord:
        return run(planned(base, f"student.weights={weights}", over=over, seeds=1, trials=2))

    shutil.copy(one.folder / WEIGHTS, weights)
    assert again().stages == again().stages
    shutil.copy(other.folder / WEIGHTS, weights)
    with pytest.raises(DamagedError, match=r"is the journal of another sweep: students: expected"):
        again()


def test_no_secret_of_a_value_is_kept_or_said(base: Path) -> None:
    (cache,) = (base / "caches").glob("*.h5")
    secrets = ("token=a1b2c3d4e5", "token=f6a7b8c9d0")
    for secret in secrets:
        (base / secret).mkdir()
        shutil.copy(cache, base / secret / "x.h5")
    over = (f"cache.from={','.join(str(base / secret / 'x.h5') for secret in secrets)}",)
    sweep = planned(base, over=over, sampler="grid", seeds=1)
    check(sweep, Students(sweep.plan, CPU))
    record = run(sweep)
    assert len(stage(record, "students").ended) == 2
    kept = [path for path in sweep.plan.base.rglob("*") if path.is_file()]
    found = [path for path in kept for secret in secrets if secret.encode() in path.read_bytes()]
    assert not found
    assert not [secret for secret in secrets if secret in repr(record)]
