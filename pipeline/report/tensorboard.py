"""Writes metrics.jsonl as TensorBoard event files."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from decant.cache.io.drafts import DRAFT
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.result import Result
from decant.pipeline.tracking.event_files import FOLDER, EventWriter
from decant.pipeline.tracking.tracker import scalars_of
from decant.pipeline.training.epoch_log import read_epochs


def write_events(results: Sequence[Result]) -> list[Path]:
    """Writes RUN/tensorboard of every run anew: one scalar for each number of each epoch. Raises ModelError if
    TensorBoard is not installed.
    """
    folders = []
    for result in results:
        lines = read_epochs(result.folder)
        if not lines:
            continue
        folder = result.folder / FOLDER
        with _replacing(folder) as draft:
            events = EventWriter(draft)
            for line in lines:
                events.log(line["epoch"], scalars_of(line))
            events.close(finished=True)
        folders.append(folder)
    return folders


@contextlib.contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """Yields a new folder that then takes the place of `folder`: a second file of events beside an earlier one would
    double the curves, also where two commands write them at once.
    """
    with alone_with(folder):
        draft = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}{DRAFT}")
        draft.mkdir()
        try:
            yield draft
            if folder.exists():
                shutil.rmtree(folder)
            os.rename(draft, folder)
        except OSError as error:  # the library names no file, or one in the draft
            raise OSError(error.errno, error.strerror, str(folder)) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)
