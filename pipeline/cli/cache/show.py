"""`decant cache ls`, `info`, `diff` and `path`: what a store and a cache hold. Of caches that lie elsewhere headers
are read.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decant.pipeline.cli import completion
from decant.pipeline.cli.options import (
    as_json,
    command_line,
    percent,
    print_json,
    print_table,
    recipe_options,
    say,
    store_option,
)
from decant.pipeline.config.tasks import FORMATS, Task
from decant.pipeline.support.terminal import printable

if TYPE_CHECKING:
    from decant.cache import (
        Difference,
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


@click.command("ls")
@store_option
@as_json
def list_caches(store: Store, as_json: bool) -> None:
    """List the caches of the store."""
    rows = [_listed(path) for path in store.paths()] if store.remote is None else _listed_elsewhere(store)
    if as_json:
        print_json(rows)
    elif not rows:
        say(f"no caches in {store.name}")
    else:
        last = ("age", "uses") if store.remote is None else ("copy",)
        columns = ("name", "teacher", "data", "views", "classes", "size", *last)
        shown = [_with_units(row) for row in rows]
        print_table(columns, [[_cell(row.get(column)) for column in columns] for row in shown])
    say(f"next: {_after_listing(rows, store)}")


@click.command("info")
@click.argument("name", metavar="CACHE", shell_complete=completion.caches)
@click.option(
    "--sample", type=click.IntRange(min=0), metavar="I", help="Show the rows of sample I, one a line."
)
@click.option(
    "--page",
    type=click.Path(path_type=Path, dir_okay=False),
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
    identity, extra = opened.manifest.identity, opened.manifest.info
    if as_json:
        document = {"path": opened.path, "key": opened.manifest.key, "identity": identity, "info": extra}
        scores = getattr(summary, "scores", None)
        nested = {} if scores is None else {"scores": scores._asdict()}
        shown = {} if sample is None else {"sample": [row._asdict() for row in sample_rows(opened, sample)]}
        print_json({**document, "summary": {**summary._asdict(), **nested}, **shown})
    else:
        say(opened.path)
        say(f"  key {opened.manifest.key}")
        for section, content in {**identity, "info": extra}.items():
            for field, value in content.items():
                say(f"  {section}.{field}: {_short(value)}")
        rows = "positions" if opened.has_positions else "rows"
        say(f"  of {summary.rows:,} {rows} (views and samples at even distances, or all):")
        for line in _summary_lines(summary, opened.num_outputs):
            say(f"    {line}")
        if opened.has_positions:
            show_positions(opened, sample)
    if page is not None:
        write_page(opened, page)
    say(f"next: {command_line('cache', 'verify', opened.path)}")


@click.command("diff")
@click.argument("one", metavar="CACHE", shell_complete=completion.caches)
@click.argument("other", metavar="CACHE", shell_complete=completion.caches)
@store_option
@as_json
def diff(one: str, other: str, store: Store, as_json: bool) -> None:
    """Show every field in which two caches differ.

    Exit code 1 if there is one.
    """
    from decant.cache import LogitCache, differences

    opened = [LogitCache.open(store.resolve(name)) for name in (one, other)]
    first, second = opened
    differing = differences(first.manifest.identity, second.manifest.identity)
    if as_json:
        print_json([difference._asdict() for difference in differing])
    else:
        for difference in differing:
            say(f"{difference.field}: {_short(difference.expected)} | {_short(difference.found)}")
        say(f"{len(differing):,} fields differ" if differing else "no field differs")
    if _of_two_teachers(differing) and not any(_has_no_mean(cache) for cache in opened):
        say(f"next: {command_line('cache', 'merge', first.path, second.path, store=store)}")
    if differing:
        sys.exit(1)


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
    identity, extra = listed.manifest.identity, listed.manifest.info
    if as_json:
        document = {"path": None, "key": listed.manifest.key, "identity": identity, "info": extra}
        print_json({**document, "bytes": listed.bytes, "summary": None})
    else:
        say(f"{listed.name}: {listed.bytes:,} bytes, of which no copy is here")
        say(f"  key {listed.manifest.key}")
        for section, content in {**identity, "info": extra}.items():
            for field, value in content.items():
                say(f"  {section}.{field}: {_short(value)}")
    say(f"next: {command_line('cache', 'pull', redacted(name), store=store)}")


def _listed_elsewhere(store: Store) -> list[dict[str, Any]]:
    """The rows of `ls` for a store that lies elsewhere, from the headers of its files."""
    if store.remote is None:
        return []
    rows = []
    here = {path.name for path in store.paths()}
    for found in store.remote.listed():
        if found.manifest is None:
            rows.append({"name": found.name, "teacher": found.problem})
            continue
        row = _described(found.manifest)
        row |= {"bytes": found.bytes, "copy": found.name in here, "key": found.manifest.key}
        rows.append({"name": found.name, **row})
    return rows


def _listed(path: Path) -> dict[str, Any]:
    """A row of `ls`; a damaged file has only its name and the problem."""
    from decant.cache import CacheError, LogitCache
    from decant.cache.io import usage

    try:
        opened = LogitCache.open(path, verify="off")
        status = path.stat()
    except (CacheError, OSError) as error:  # also one that was removed just now, or that another person keeps
        return {"name": path.name, "teacher": f"{type(error).__name__}: see `decant cache verify`"}
    return {
        "name": path.name,
        **_described(opened.manifest),
        "bytes": status.st_size,
        "seconds_old": time.time() - status.st_mtime,
        "uses": usage.count(path),
        "key": opened.manifest.key,
    }


def _described(manifest: Manifest) -> dict[str, Any]:
    """What `ls` says of a cache, from its manifest."""
    data = manifest.identity["data"]
    return {
        "teacher": _teacher(manifest.identity["teacher"]),
        "data": " ".join(str(data[part]) for part in ("name", "split") if data.get(part)),
        "views": manifest.num_views,
        "classes": manifest.num_outputs,
    }


def _with_units(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `ls` with size and age in units."""
    if "bytes" not in row:
        return dict(row)
    size = f"{row['bytes']:,} B"
    if "seconds_old" not in row:
        return {**row, "size": size, "copy": "yes" if row["copy"] else "no"}
    return {**row, "size": size, "age": _age(row["seconds_old"])}


def _after_listing(rows: Sequence[Mapping[str, Any]], store: Store) -> str:
    """The next command: `info` of the newest cache, `verify` where all are damaged, `teacher` where there is none."""
    sound = [row for row in rows if "bytes" in row]
    if sound:
        youngest = min(sound, key=lambda row: row.get("seconds_old", 0))
        name = youngest["name"] if youngest["name"].isprintable() else youngest["key"]
        return command_line("cache", "info", name, store=store)
    return command_line(*(("cache", "verify") if rows else ("teacher",)), store=store)


def _of_two_teachers(differing: Sequence[Difference]) -> bool:
    """Whether caches with these differences are of the same data and views, and can be merged."""
    return bool(differing) and all(difference.field.startswith("teacher.") for difference in differing)


def _has_no_mean(cache: LogitCache) -> bool:
    """Whether `merge` makes no mean of such caches."""
    from decant.cache import Sparse

    return cache.has_positions or isinstance(cache.manifest.encoding, Sparse)


def _summary_lines(
    summary: Summary | RegressionSummary | SigmoidSummary | PositionSummary, num_outputs: int
) -> list[str]:
    """The metrics of a cache, one line for each group."""
    from decant.cache import PositionSummary, RegressionSummary, SigmoidSummary

    if isinstance(summary, PositionSummary):
        return _position_lines(summary)
    if isinstance(summary, SigmoidSummary):
        from decant.pipeline.training.metrics import score_metrics

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


def _teacher(identity: Mapping[str, Any]) -> str | None:
    """A short name of the teacher of a cache."""
    if "mean" in identity:
        return f"mean {identity['mean']} of {len(identity['of'])}"
    network = identity.get("network")
    return network.get("name") if isinstance(network, dict) else network


def _age(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.0f} s"


def _cell(value: Any) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _short(value: Any, limit: int = 100) -> str:
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
