"""What a sweep comes to: the chosen settings against the baseline's, over fresh seeds, on the test part."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import replace

from decant.cache.io.files import write_atomically
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
        command=repeated.command("student"),
        baseline_command=None
        if baseline is None
        else _repeated(sweep, baseline, baseline=True).command("student"),
        importances=stages.importances,
    )
    record = replace(record, conclusion=conclusion)
    write_atomically(sweep.folder / BEST, repeated.to_toml().encode())
    write_record(sweep.folder, record)
    return record


def in_words(record: SweepRecord) -> Iterator[str]:
    """The result of a sweep, line by line: which part each figure is of, and which of them are optimistic."""
    figure, conclusion = record.figure, record.conclusion
    for stage in record.stages:
        best = stage.best
        if best is not None and best.value is not None and stage.name != "fresh seeds":
            kind = "best" if stage.name == "students" else "baseline, labels only"
            yield (
                f"{kind} of {stage.total:,} trials: {settings_in_words(best)}: validation {figure.name} "
                f"{figure.with_spread(best.value)}, which is optimistic, as it was chosen by that"
            )
        failed = [trial for trial in stage.trials if trial.state == "failed"]
        if failed:
            yield f"{len(failed):,} of {stage.total:,} trials failed; the first: {failed[0].reason}"
    if conclusion is None:
        return
    if not conclusion.distilled:
        yield "test part: no sample has a label, so nothing is measured on it"
        return
    line = f"test part, measured once, {_seeds(len(conclusion.distilled))}: distilled {_spread(record, 'distilled')}"
    if conclusion.labels:
        line += f", labels only {_spread(record, 'labels')}"
    if conclusion.gain is not None:
        mean, error = conclusion.gain
        line += f": {figure.difference(mean)}" + (
            "" if error is None else f" (standard error {figure.plain(error)})"
        )
    yield line


def settings_in_words(trial: TrialRecord) -> str:
    """The settings of a trial as a list."""
    return ", ".join(f"{path}={value}" for path, value in trial.settings.items())


def _spread(record: SweepRecord, kind: str) -> str:
    """Mean and standard deviation of one kind on the test part."""
    assert record.conclusion is not None
    values = list((record.conclusion.distilled if kind == "distilled" else record.conclusion.labels).values())
    spread = statistics.stdev(values) if len(values) > 1 else None
    return record.figure.with_spread(statistics.fmean(values), spread)


def _seeds(count: int) -> str:
    return "one fresh seed" if count == 1 else f"{count:,} fresh seeds"


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
