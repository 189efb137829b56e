"""Runs of a study that are done side by side, by processes of which no two ever do the same."""

from __future__ import annotations

import importlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

from decant.cache.io.locks import exclusive, lock_path

Given = TypeVar("Given")


class _TakenError(Exception):
    """Another process does this run."""


def claimed(paths: Iterable[Path]) -> Iterator[Path]:
    """The paths at which nothing is yet, each of them held until the next is asked for: what another process holds is
    left to it.
    """
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(_TakenError), exclusive(lock_path(path), waiting=_refuse):
            if not path.exists():
                yield path


def _refuse(holder: str) -> None:
    raise _TakenError(holder)


class _Beside:
    """Processes that do the same as this one once they may."""

    def __init__(self, work: Callable[[Given], None], given: Given, count: int) -> None:
        context = multiprocessing.get_context("spawn")  # a device cannot be used in a forked process
        self._may = context.Event()
        self.processes: list[BaseProcess] = [
            context.Process(target=_wait, args=(self._may, work, given), daemon=True) for _ in range(count)
        ]

    def go(self) -> None:
        """Lets them begin."""
        self._may.set()

    def join(self) -> None:
        """Waits until all are done. Ends the command where one has failed."""
        for process in self.processes:
            process.join()
        failed = sum(process.exitcode != 0 for process in self.processes)
        if failed:
            raise SystemExit(f"{failed} of {len(self.processes)} processes failed: the same command goes on")


@contextmanager
def beside(work: Callable[[Given], None], given: Given, count: int) -> Iterator[_Beside]:
    """Starts `count` processes, which import what takes long and wait for `go`; ends them where this one fails."""
    found = _Beside(work, given, count)
    try:
        for process in found.processes:
            process.start()
        yield found
    finally:
        for process in found.processes:
            if process.is_alive():
                process.terminate()


def _wait(may: Any, work: Callable[[Given], None], given: Given) -> None:
    with suppress(ModuleNotFoundError):  # which the first process says
        importlib.import_module("transformers.models.llama")
    while not may.wait(1):
        if orphaned():
            return
    work(given)


def orphaned() -> bool:
    """Whether the process that started this one is gone."""
    parent = multiprocessing.parent_process()
    return parent is not None and not parent.is_alive()
