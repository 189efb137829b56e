"""`decant cache ls`: the caches of a store. Of a store that lies elsewhere headers are read."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from decant.pipeline.cli.options import as_json, command_line, print_json, print_table, say, store_option

if TYPE_CHECKING:
    from decant.cache import Manifest, Store


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
