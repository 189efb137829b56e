"""What ranks compare before they begin, so that none works on something else than the others."""

from __future__ import annotations

import hashlib
import json
import platform
import socket
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path

from decant.pipeline.errors import RankError
from decant.pipeline.ranks.job import Job

_SHOWN = 3
_DISTRIBUTION = "decant-kd"


def require_equal_ranks(job: Job, subject: str, facts: Mapping[str, object]) -> None:
    """Compares the facts of every rank with those of rank 0; returns when all agree.

    facts: values that JSON can hold, by the names under which messages show them; a dictionary in a dictionary is
    compared entry by entry. subject: what they are facts of, for messages.

    Raises RankError in rank 0, which names a rank and what it differs in, and OtherRankFailedError in all others.
    """
    given = json.dumps([socket.gethostname(), dict(_flat(facts))], default=str)
    name = f"{subject}/{job.number(subject)}"
    told = job.gather(f"facts/{name}", given, f"their {subject}")
    if told:
        found = [json.loads(each) for each in told]
        said = [
            difference
            for rank, (host, others) in enumerate(found)
            if (difference := _difference(rank, host, found[0][1], others))
        ]
        if said:
            more = f"; {len(said) - 1} other ranks differ too" if len(said) > 1 else ""
            raise RankError(f"ranks have not the same {subject}: {said[0]}{more}")
        job.set(f"agreed/{name}", "yes")
    job.get(f"agreed/{name}", f"whether all ranks have the same {subject}")


@cache
def program_facts() -> dict[str, object]:
    """Versions, and the digest of this package's code, which a checkout may change without another version."""
    digest = hashlib.sha256()
    root = Path(__file__).parents[2]
    for folder in ("cache", "pipeline"):
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return {
        "decant": _version(_DISTRIBUTION),
        "code of decant": digest.hexdigest()[:16],
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "Python": ".".join(platform.python_version_tuple()[:2]),
    }


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _flat(facts: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Dictionaries in dictionaries as names with points.

    >>> _flat({"cache": {"dtype": "float16"}, "seed": 0})
    {'cache.dtype': 'float16', 'seed': 0}
    """
    found: dict[str, object] = {}
    for name, value in facts.items():
        if isinstance(value, Mapping) and value:
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _difference(rank: int, host: str, first: Mapping[str, object], other: Mapping[str, object]) -> str | None:
    """What a rank differs in from rank 0; None where it does not."""
    names = [name for name in {**first, **other} if first.get(name) != other.get(name)]
    if not names:
        return None
    said = [f"{name} is {_shown(other, name)} and {_shown(first, name)} on rank 0" for name in names[:_SHOWN]]
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"rank {rank} on {host}: {', '.join(said)}{more}"


def _shown(facts: Mapping[str, object], name: str) -> str:
    if name not in facts:
        return "absent"
    text = json.dumps(facts[name], ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"
