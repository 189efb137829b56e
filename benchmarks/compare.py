"""Two runs of the measurements, side by side: `python -m benchmarks.compare OLD.json NEW.json`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks.measurement import Unit, number

_CHANGE = 0.1  # of the old figure; less is the machine's own coming and going
_COUNT_CHANGE = 0.05  # of instructions, which no other process changes
_LEAST_MEGABYTES = 5  # of a difference of two processes, which comes and goes too


def main() -> None:
    """Prints a row for each measurement that both runs have, and says where they cannot be compared."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    options = parser.parse_args()
    try:
        old, new = _read(options.old), _read(options.new)
    except ValueError as error:
        parser.error(str(error))
    for line in [*differences(old, new), *table(old["rows"], new["rows"])]:
        print(line)


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """A line for everything but the code in which the two runs differ."""
    if old["quick"] or new["quick"]:
        yield "a run with --quick: its figures say nothing"
    for field in ("cpu", "cores", "threads", "gpu", "system"):
        one, other = old["machine"].get(field), new["machine"].get(field)
        if one != other:
            yield f"another machine: {field}: {one} → {other}"
    one, other = old["machine"]["versions"], new["machine"]["versions"]
    for name in sorted(one.keys() | other.keys()):
        if one.get(name) != other.get(name):
            yield f"another version: {name}: {one.get(name)} → {other.get(name)}"


def table(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> Iterator[str]:
    """In Markdown; what only one of the runs has is named below."""
    before, after = _by_name(old), _by_name(new)
    yield "| # | what | against | old | new | new / old | change |"
    yield "|---|---|---|---|---|---|---|"
    for name in [name for name in after if name in before]:
        row, what, against, unit = name
        one, other = before[name]["found"], after[name]["found"]
        ratio = f"{other / one:.2f}" if one > 0 and other > 0 else "–"
        figures = f"{number(one)} | {number(other)} {unit} | {ratio} | {_change(one, other, Unit(unit))}"
        yield f"| {row} | {what} | {against or '–'} | {figures} |"
    for where, only in (("old", before.keys() - after.keys()), ("new", after.keys() - before.keys())):
        for row, what, against, _ in sorted(only):
            yield f"only in {where}: {row}: {what}{f', against {against}' if against else ''}"


def _change(old: float, new: float, unit: Unit) -> str:
    """Empty for less than a tenth, or a twentieth of a count."""
    share = _COUNT_CHANGE if unit is Unit.INSTRUCTIONS else _CHANGE
    least = max(share * abs(old), _LEAST_MEGABYTES if unit is Unit.MEGABYTES else 0)
    if abs(new - old) <= least:
        return ""
    return "**better**" if (new > old) is unit.more_is_better else "**worse**"


def _by_name(rows: list[dict[str, Any]]) -> dict[tuple[int, str, str, str], dict[str, Any]]:
    return {(row["row"], row["what"], row["against"], row["unit"]): row for row in rows}


def _read(path: Path) -> Any:
    """Raises ValueError where it is not what `python -m benchmarks` keeps."""
    try:
        content = json.loads(path.read_text("utf-8"))
        _by_name(content["rows"]), content["machine"]["versions"], content["quick"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: not the JSON of a run of `make bench` ({error})") from None
    return content


main()
