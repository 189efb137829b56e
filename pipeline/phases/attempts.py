"""A network is trained by one process at a time, and again where its data were written to meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from decant.cache import CorruptError, RewrittenError
from decant.pipeline.errors import ChangedError
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.result import Result
from decant.pipeline.support.notices import say
from decant.pipeline.training.epoch_log import CHECKPOINT, read_epochs
from decant.pipeline.training.group import Group

Trained = TypeVar("Trained")

_MOST_TRIES = 3
"""To train an epoch whose data are written to meanwhile."""


def found_or_trained(
    folder: Path, find: Callable[[], Result | None], train: Callable[[], Result], group: Group
) -> tuple[Result, bool]:
    """What `find` returns, or, where that is None, `train`; and whether it was found, as another process had finished
    it. While another process trains the same network, waits for it. An epoch whose data were written to is trained
    again. Several ranks must all call it.
    """
    with group.after_first(alone_with(folder)):
        # Another process may have finished it since the caller looked.
        result = group.of_first(find)
        if result is not None:
            return result, True
        with dropping_changed([folder]):
            if group.count > 1:  # the others meet no error of one, and would not begin again
                return train(), False
            return again_where_rewritten(train, lambda: len(read_epochs(folder))), False


def again_where_rewritten(train: Callable[[], Trained], count_epochs: Callable[[], int]) -> Trained:
    """What `train` returns, called again where its data were written to meanwhile, as that begins with the epoch that
    was lost. Gives up on an epoch after some tries; `count_epochs` tells epochs apart.
    """
    tries, trained = 0, -1
    while True:
        try:
            return train()
        except RewrittenError as error:
            before, trained = trained, count_epochs()
            tries = tries + 1 if trained == before else 1
            if tries == _MOST_TRIES:
                raise
            say(f"warning: {error}; this epoch is trained again")


@contextlib.contextmanager
def dropping_changed(folders: Iterable[Path]) -> Iterator[None]:
    """Where files have changed while they were decoded, removes the checkpoints in these folders: their epochs may be
    of both, and the files as they are now lead to the same folders.
    """
    try:
        yield
    except ChangedError:
        drop_checkpoints(folders)
        raise


def drop_checkpoints(folders: Iterable[Path]) -> None:
    """Has networks begin anew that are not finished."""
    for folder in folders:
        (folder / CHECKPOINT).unlink(missing_ok=True)


def require_unchanged(folder: Path, check_unchanged: Callable[[bool], None]) -> None:
    """Raises CorruptError or ChangedError where what the network was trained on is not what it was. Where checksums
    alone show that, no epoch can be relied on, and the checkpoint is removed.
    """
    check_unchanged(False)
    try:
        check_unchanged(True)
    except (CorruptError, ChangedError):
        drop_checkpoints([folder])
        raise
