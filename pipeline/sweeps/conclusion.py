"""What a sweep comes to: the chosen settings against the baseline's, over fresh seeds, on the test part."""

from __future__ import annotations

from dataclasses import replace

from decant.cache.io.files import write_atomically
from decant.cache.io.redaction import redacted
from decant.pipeline.config.recipe import Recipe, overridden
from decant.pipeline.runs.result import Kind, Result, load_result
from decant.pipeline.sweeps.definition import Sweep
from decant.pipeline.sweeps.record import Conclusion, SweepRecord, TrialRecord, write_record
from decant.pipeline.sweeps.stages import Stages

BEST = "best.toml"


def conclude(sweep: Sweep, stages: Stages) -> SweepRecord:
    """Runs the sweep to its end, and writes its record and `best.toml`. Raises as `Stages.run` does."""
    best, baseline = stages.run()
    record, base = stages.record(), sweep.plan.base
    results = [
        load_result(base / str(trial.folder)) for trial in _stage(record, "fresh seeds") if trial.folder
    ]
    found = [result for result in results if result is not None]
    repeated = _repeated(sweep, best, baseline=False)
    conclusion = Conclusion(
        distilled=_by_seed(record, found, "distilled"),
        labels=_by_seed(record, found, "labels"),
        command=redacted(repeated.command("student")),
        baseline_command=None
        if baseline is None
        else redacted(_repeated(sweep, baseline, baseline=True).command("student")),
        importances=stages.importances,
    )
    record = replace(record, conclusion=conclusion)
    write_atomically(sweep.folder / BEST, repeated.to_toml().encode())
    write_record(sweep.folder, record)
    return record


def _repeated(sweep: Sweep, recipe: Recipe, baseline: bool) -> Recipe:
    """The recipe whose `decant student` finds the fresh students of these settings, or trains them elsewhere."""
    seeds = sweep.fresh_seeds
    more = [
        f"student.seed={seeds[0]}",
        f"student.seeds={len(seeds)}",
        f"student.baseline={str(baseline).lower()}",
    ]
    return overridden(recipe, more)


def _stage(record: SweepRecord, name: str) -> list[TrialRecord]:
    return next((stage.trials for stage in record.stages if stage.name == name), [])


def _by_seed(record: SweepRecord, results: list[Result], kind: Kind) -> dict[str, float]:
    values = {
        str(result.seed): record.figure.value(result.metrics) for result in results if result.kind == kind
    }
    return {seed: value for seed, value in values.items() if value is not None}
