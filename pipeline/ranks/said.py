"""What is said once for the whole job, whichever rank comes upon it."""

from __future__ import annotations

import hashlib

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import joined
from decant.pipeline.ranks.launch import is_first


def is_first_to_say(text: str) -> bool:
    """Whether no other rank has said this; before the ranks have joined, rank 0 alone speaks.

    >>> is_first_to_say("photos: left out 2 files")
    True
    """
    job = joined()
    if job is None:
        return is_first()
    try:
        return job.count(f"said/{hashlib.sha256(text.encode()).hexdigest()[:16]}") == 1
    except RankError:
        return True
