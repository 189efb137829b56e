"""`decant cache info` and `path`: what a cache holds, and which one is a recipe's. Of a cache that lies elsewhere the
header is read.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.given_paths import FILE, PLACE
from decant.pipeline.cli.options import (
    as_json,
    command_line,
    percent,
    print_json,
    recipe_options,
    say,
    store_option,
)
from decant.pipeline.config.tasks import FORMATS, Task
from decant.pipeline.support.terminal import short_json

if TYPE_CHECKING:
    from decant.cache import (
        Listed,
        LogitCache,
        Manifest,
        PositionSummary,
        RegressionSummary,
        SigmoidSummary,
        Store,
        Summary,
    )
    from decant.pipeline.config.recipe import Recipe


@click.command("info")
@click.argument("name", metavar="CACHE", type=PLACE, shell_complete=completion.caches)
@click.option(
    "--sample", type=click.IntRange(min=0), metavar="I", help="Show the rows of sample I, one a line."
)
@click.option(
    "--page",
    type=FILE,
    metavar="FILE",
    help="Also write FILE, an HTML page of a cache with several rows a sample.",
)
@store_option
@as_json
def info(name: str, sample: int | None, page: Path | None, store: Store, as_json: bool) -> None:
    """Show what a cache holds and where it comes from.

    The teacher's metrics are computed from the file.
    """
    from decant.cache import LogitCache, sample_rows, summarize
    from decant.pipeline.cli.cache.positions import show_positions, write_page

    elsewhere = store.look(name)
    if elsewhere is not None:
        if sample is not None or page is not None:
            raise click.UsageError(
                "--sample and --page: read rows, and this cache lies elsewhere; fetch it first"
            )
        _show_header(name, elsewhere, store, as_json)
        return
    opened = LogitCache.open(store.resolve(name))
    _require_positions(opened, sample, page)
    summary = summarize(opened, limit=20_000)
    if as_json:
        document = {"path": opened.path, **_manifest_json(opened.manifest)}
        scores = getattr(summary, "scores", None)
        nested = {} if scores is None else {"scores": scores._asdict()}
        shown = {} if sample is None else {"sample": [row._asdict() for row in sample_rows(opened, sample)]}
        print_json({**document, "summary": {**summary._asdict(), **nested}, **shown})
    else:
        say(opened.path)
        _say_manifest(opened.manifest)
        rows = "positions" if opened.has_positions else "rows"
        say(f"  of {summary.rows:,} {rows} (views and samples at even distances, or all):")
        for line in _summary_lines(summary, opened.num_outputs):
            say(f"    {line}")
        if opened.has_positions:
            show_positions(opened, sample)
    if page is not None:
        write_page(opened, page)
    say(f"next: {command_line('cache', 'verify', opened.path)}")


@click.command("path")
@recipe_options
def path(recipe: Recipe, base: Path, store: Store, device: str) -> None:
    """Print the path of a recipe's cache, for scripts.

    It is the one that cache-logits last made or found.
    """
    from decant.pipeline.runs.notes import cache_path

    say(cache_path(recipe, base))


def _show_header(name: str, listed: Listed, store: Store, as_json: bool) -> None:
    """`info` of a cache that lies elsewhere and has no copy here: what its header says, and no metrics."""
    from decant.cache import FormatError
    from decant.cache.io.redaction import redacted

    if listed.manifest is None:
        raise FormatError(listed.problem)
    if as_json:
        print_json({"path": None, **_manifest_json(listed.manifest), "bytes": listed.bytes, "summary": None})
    else:
        say(f"{listed.name}: {listed.bytes:,} bytes, of which no copy is here")
        _say_manifest(listed.manifest)
    say(f"next: {command_line('cache', 'pull', redacted(name), store=store)}")


def _manifest_json(manifest: Manifest) -> dict[str, Any]:
    return {"key": manifest.key, "identity": manifest.identity, "info": manifest.info}


def _say_manifest(manifest: Manifest) -> None:
    say(f"  key {manifest.key}")
    for section, content in {**manifest.identity, "info": manifest.info}.items():
        for field, value in content.items():
            say(f"  {section}.{field}: {short_json(value)}")


def _summary_lines(
    summary: Summary | RegressionSummary | SigmoidSummary | PositionSummary, num_outputs: int
) -> list[str]:
    """The metrics of a cache, one line for each group."""
    from decant.cache import PositionSummary, RegressionSummary, SigmoidSummary

    if isinstance(summary, PositionSummary):
        return _position_lines(summary)
    if isinstance(summary, SigmoidSummary):
        from decant.pipeline.config.tasks import score_metrics

        task: Task = "binary" if num_outputs == 1 else "multilabel"
        found = score_metrics(summary.scores, task)
        named = (f"{figure.name} {figure.text(found)}" for figure in FORMATS[task] if figure.key in found)
        return [
            f"the teacher's {', '.join(named) or 'metrics are unknown: there are no labels'}",
            f"{summary.likely:,.2f} of {num_outputs:,} outputs above 0.5 on average",
        ]
    if isinstance(summary, RegressionSummary):
        metrics = summary._asdict()
        shown = (f"{figure.name} {figure.text(metrics)}" for figure in FORMATS["regression"])
        return [f"the teacher's {', '.join(shown)}"]
    return [
        f"the teacher's top-1 {percent(summary.top1)}, calibration error {percent(summary.calibration_error)}",
        f"mean confidence {percent(summary.confidence)}, mean entropy {summary.entropy:.4f} nats, at T = 1",
    ]


def _require_positions(cache: LogitCache, sample: int | None, page: Path | None) -> None:
    """Raises UsageError for what is of a cache with several rows a sample, and of a sample that there is."""
    if (sample is not None or page is not None) and not cache.has_positions:
        raise click.UsageError(
            "--sample and --page: are of a cache whose samples have several rows each, and this has one of each; "
            "`decant report` shows its samples"
        )
    if sample is not None and sample >= cache.num_samples:
        raise click.UsageError(f"--sample: expected 0 to {cache.num_samples - 1:,}, found {sample:,}")


def _position_lines(summary: PositionSummary) -> list[str]:
    """The metrics of a cache whose samples have several positions each."""
    lines = [
        f"mean confidence {percent(summary.confidence)}, mean mass of what is not stored {percent(summary.tail)}, "
        f"mean entropy {summary.entropy:.4f} nats, at T = 1"
    ]
    if summary.next_log_prob is not None:
        perplexity = math.exp(min(-summary.next_log_prob, 700.0))
        whose = "the next token"
        if summary.known is not None and summary.known < 1:
            whose = f"the next token, where it is known ({percent(summary.known)}; others may be less likely)"
        lines.insert(
            0,
            f"{whose}: perplexity {perplexity:,.2f}, {percent(summary.top1)} are the teacher's first choice",
        )
    return lines
