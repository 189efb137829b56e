"""The table of objectives that `decant objectives` prints, made from their settings. Imports nothing heavy."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from decant.pipeline.config.objectives import BUILTIN, Builtin, name_of


class Entry(NamedTuple):
    """A row of the table."""

    name: str
    formula: str
    use: str
    defaults: dict[str, Any]
    """The settings of this objective alone, then `standardize`, which most have."""
    source: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The row as text."""
        defaults = ", ".join(f"{key} {_shown(value)}" for key, value in self.defaults.items())
        return (self.name, self.formula, self.use, defaults, self.source)


def catalogue() -> list[Entry]:
    """Every objective that ships, and a function of the user's.

    >>> catalogue()[0].cells[:2]
    ('kd', '(1 − alpha)·CE + alpha·T²·KL(teacher ‖ student)')
    """
    entries = [
        Entry(name_of(kind), _formula(kind), kind.use, _defaults(kind), kind.source) for kind in BUILTIN
    ]
    own = Entry(
        "package.module:function",
        "function(student_logits, teacher_logits, labels, **args) → a scalar",
        "anything else",
        {},
        "one's own",
    )
    return [*entries, own]


def _formula(kind: type[Builtin]) -> str:
    return inspect.cleandoc(kind.__doc__ or "").removesuffix(".")


def _defaults(kind: type[Builtin]) -> dict[str, Any]:
    left_out = ("name", "interpolate")  # the latter is of how the teacher's rows are stored
    values = {key: field.default for key, field in kind.model_fields.items() if key not in left_out}
    own = {key: value for key, value in values.items() if key != "standardize"}
    return {key: value for key, value in {**own, **values}.items() if value is not None}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
