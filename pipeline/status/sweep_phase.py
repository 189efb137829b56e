"""The sweeps of a recipe as phases: how far they have come, and the best so far."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from decant.pipeline.errors import DamagedError
from decant.pipeline.status.live_progress import Progress
from decant.pipeline.status.phase_state import Phase, State
from decant.pipeline.sweeps.record import RECORD, find_records, is_running, load_record
from decant.pipeline.sweeps.wording import in_words


def sweep_phases(base: Path) -> Iterator[Phase]:
    """A phase for each sweep in a run folder, the one that was written last first."""
    for folder in find_records(base):
        try:
            record = load_record(folder)
        except (DamagedError, OSError) as error:
            yield Phase("sweep", "sweep", folder, state="damaged", detail=str(error))
            continue
        if record.conclusion is not None:
            finished = (folder / RECORD).stat().st_mtime
            *_, result = in_words(record)
            yield Phase("sweep", "sweep", folder, state="done", finished=finished, detail=result)
            continue
        progress = Progress(record.done, record.total, "trials", record.seconds_left)
        state: State = "running" if is_running(folder) else "interrupted"
        detail = "\n".join(in_words(record))
        yield Phase("sweep", "sweep", folder, state=state, progress=progress, detail=detail)
