"""Progress on what takes longer than a moment: a bar with rate and time left on a terminal, silence
elsewhere.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from decant.pipeline.ranks.launch import is_first
from decant.pipeline.support.terminal import console, one_line

Item = TypeVar("Item")


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:,.0f}/s")


@contextlib.contextmanager
def progress(description: str, total: int, silent: bool = False) -> Iterator[Callable[[int], None]]:
    """Yields a function that adds a number of finished items to the bar; `silent` shows none on a terminal either. Of
    the ranks of a job the first alone shows one.
    """
    # rich takes a pipe for a terminal where FORCE_COLOR is set, as it is in many a CI
    if silent or not is_first() or not sys.stderr.isatty():
        yield lambda count: None
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=total)
        yield lambda count: bar.advance(task, count)


@contextlib.contextmanager
def transfer(description: str, total: int) -> Iterator[Callable[[float], None]]:
    """Yields a function that adds bytes to a bar of a transfer, with its rate and the time left; silent elsewhere."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    silent = not sys.stderr.isatty()
    with Progress(*columns, console=console(stderr=True), transient=True, disable=silent) as bar:
        task = bar.add_task(one_line(description), total=total)
        yield lambda count: bar.advance(task, count)


def track(items: Iterable[Item], description: str, total: int | None = None) -> Iterator[Item]:
    """The items as they come, counted on a bar; `total` where they have no length."""
    count = total if total is not None else len(items)  # type: ignore[arg-type]
    with progress(description, count) as advance:
        for item in items:
            yield item
            advance(1)
