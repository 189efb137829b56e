"""The state of a recipe's phases, read from the disk. Nothing is trained, built or written.

overview.py       all phases of a recipe and its sweeps, and the next command
phase_state.py    the state of one phase
live_progress.py  the progress of work that is not finished
outdated.py       what other settings have made
"""

from __future__ import annotations

from decant.pipeline.status.overview import Overview, next_command
from decant.pipeline.status.phase_state import Phase

__all__ = ["Overview", "Phase", "next_command"]
