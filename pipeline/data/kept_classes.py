"""The columns of a table of logits that belong to the classes of the data, where the table has more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from decant.pipeline.errors import DataError, nearest


def kept_columns(
    chosen: Sequence[int | str],
    outputs: int,
    names: Sequence[str] | None,
    num_classes: int | None,
    classes: Sequence[str] = (),
    setting: str = "teacher.classes",
) -> list[int]:
    """The column of each class of the data: `chosen`, by number or by name, of `outputs` columns called `names`.

    The data have `num_classes`, called `classes` where they have names; None where no data are known. Names are
    compared as they are, then without case, and with a space for an underscore. Raises DataError, which begins with
    `setting`: for a column or name that is not there, one that is there twice, a name of two columns, another
    number of them than the data have classes, and classes in another order than the data's.

    >>> kept_columns(["dog", "fox"], 3, ["cat", "dog", "fox"], 2)
    [1, 2]
    >>> kept_columns([0, 2], 3, None, 2)
    [0, 2]
    """
    places = (_places(names or ()), _places(_plain(names or ())))
    columns = [_column(one, outputs, names, places, setting) for one in chosen]
    often = Counter(columns)
    twice = next((one for one, column in zip(chosen, columns, strict=True) if often[column] > 1), None)
    if twice is not None:
        raise DataError(
            f"{setting}: {twice!r} is there twice; each class of the data has a column of its own"
        )
    if num_classes is not None and len(columns) != num_classes:
        known = f": {_listed(classes)}" if classes else ""
        raise DataError(
            f"{setting}: keeps {len(columns):,} of {outputs:,} columns, and the data have {num_classes:,} classes"
            f"{known}; give one for each, in their order"
        )
    kept = None if names is None else [names[column] for column in columns]
    if (
        kept is not None
        and _plain(kept) != _plain(classes)
        and sorted(_plain(kept)) == sorted(_plain(classes))
    ):
        raise DataError(
            f"{setting}: keeps {_listed(kept)} in this order, and the data's classes are {_listed(classes)}; "
            "give them in the data's order"
        )
    return columns


def _places(names: Sequence[str]) -> dict[str, list[int]]:
    """The columns that each name is the name of."""
    places: dict[str, list[int]] = {}
    for column, name in enumerate(names):
        places.setdefault(name, []).append(column)
    return places


def _column(
    chosen: int | str,
    outputs: int,
    names: Sequence[str] | None,
    places: tuple[Mapping[str, list[int]], Mapping[str, list[int]]],
    setting: str,
) -> int:
    """The column of one class. `places` are those of the names as they are, and as `_plain` makes them."""
    if isinstance(chosen, int):
        if not 0 <= chosen < outputs:
            raise DataError(
                f"{setting}: {chosen:,} is no column; there are {outputs:,}, 0 to {outputs - 1:,}"
            )
        return chosen
    if names is None:
        raise DataError(
            f"{setting}: the names of the {outputs:,} outputs are not known; give column numbers from 0"
        )
    exactly, plainly = places
    found = exactly.get(chosen) or plainly.get(_plain([chosen])[0]) or []
    if not found:
        raise DataError(f"{setting}: no output is called {chosen!r}; {_nearest(chosen, names)}")
    if len(found) > 1:
        raise DataError(
            f"{setting}: {chosen!r} is the name of columns {', '.join(map(str, found))}; give the number of one"
        )
    return found[0]


def _nearest(chosen: str, names: Sequence[str]) -> str:
    hint = nearest(chosen, names)
    return (
        hint
        if hint.startswith("did") or len(names) <= 20
        else f"the first of {len(names):,} are {_listed(names)}"
    )


def _plain(names: Sequence[str]) -> list[str]:
    return [name.strip().lower().replace("_", " ") for name in names]


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")
