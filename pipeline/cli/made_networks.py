"""Networks as commands show them: a line when each is made or found, and JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from decant.pipeline.cli.options import percent, say
from decant.pipeline.config.tasks import headline

if TYPE_CHECKING:
    from decant.pipeline.phases.kinds import RecipePlan
    from decant.pipeline.runs.result import Result
    from decant.pipeline.tracking.log_to import LogTo


def make_teacher(plan: RecipePlan, device: str, log_to: LogTo) -> dict[str, Any]:
    """Makes or finds a teacher and prints it; returns the same for `--json`."""
    from decant.pipeline.phases import any_recipe
    from decant.pipeline.training.device import pick_device

    result, found = any_recipe.make_teacher(plan, pick_device(device), log_to)
    print_result(result, found)
    return {**network_json(result), **run_json(result), "found": found}


def print_result(result: Result, found: bool) -> None:
    """Says that a network was made or found, and its main figure."""
    state = "found" if found else "made"
    agreement = result.metrics.get("agreement")
    agrees = "" if agreement is None else f", agrees with the teacher on {percent(agreement)}"
    seed = "" if result.kind == "teacher" else f", seed {result.seed}"
    figure = headline(result.any_metrics)
    validated = "" if result.validation is None else f", validation {figure.text(result.validation)}"
    epoch = "" if result.kept_epoch is None else f", of epoch {result.kept_epoch:,}"
    say(
        f"{state} {result.folder}: {result.kind}, {result.network}{seed}, {result.parameters:,} parameters, "
        f"test {figure.name} {figure.text(result.metrics)}{validated}{agrees}{epoch}"
    )


def network_json(result: Result) -> dict[str, Any]:
    """The JSON of what the runs of all seeds have in common."""
    return {
        "network": {"name": result.network.name, "args": result.network.args},
        "kind": result.kind,
        "objective": result.objective,
        "parameters": result.parameters,
        "weights_bytes": result.weights_bytes,
    }


def run_json(result: Result) -> dict[str, Any]:
    """The JSON of one run."""
    return {
        "seed": result.seed,
        "metrics": result.metrics,
        **({} if result.validation is None else {"validation": result.validation}),
        **({} if result.kept_epoch is None else {"kept_epoch": result.kept_epoch}),
        "latency_ms": result.latency_ms,
        "seconds": result.seconds,
        "folder": result.folder,
    }
