"""How far the phases of a recipe are, as it shows on the disk. Nothing is trained, built or written.

live_progress.py  work that is not finished: how far it is
phase_state.py    how one phase stands
outdated.py   what a run folder still holds of other settings
overview.py   all phases of a recipe, and the next command
"""

from __future__ import annotations

from decant.pipeline.status.overview import Overview, next_command
from decant.pipeline.status.phase_state import Phase

__all__ = ["Overview", "Phase", "next_command"]
