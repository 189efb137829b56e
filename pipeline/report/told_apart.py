"""What tells networks of one name from each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from decant.pipeline.runs.saved_recipe import what_differs

_FEW = 80  # characters of settings in a name
_LONGEST_NAME = 300  # characters


def shortened(name: str) -> str:
    """A name as charts have it: the time to draw one grows as the square of its length.

    >>> len(shortened("a" * 1_000))
    301
    """
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def told_apart(names: Sequence[str], folders: Sequence[tuple[Path, Path]]) -> list[str]:
    """What tells each network from those that charts would show under the same name; "" where no other has its name.

    It is the settings in which they differ; or the digest of the network's folder, where these are many or none.

    folders: of each, that of a run and that of its seeds.

    >>> told_apart(["lenet, labels", "lenet, kd"], [(Path("a/seed-0"), Path("a")), (Path("b/seed-0"), Path("b"))])
    ['', '']
    """
    found, drawn = [""] * len(names), [shortened(name) for name in names]
    for equal in [name for name, often in Counter(drawn).items() if often > 1]:
        places = [place for place, name in enumerate(drawn) if name == equal]
        differing = what_differs([folders[place][0] for place in places])
        told = len(set(differing)) == len(places) and all(0 < len(words) <= _FEW for words in differing)
        for place, words in zip(places, differing, strict=True):
            found[place] = words if told else folders[place][1].name.rpartition("-")[2]
    return found
