"""What every section of a recipe is made of, and how several kinds of one section are told apart."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Count = Annotated[int, Field(ge=1, lt=2**31), WithJsonSchema({"type": "integer", "minimum": 1})]
Share = Annotated[float, Field(ge=0, le=1)]


class Section(BaseModel):
    """Frozen, and exact: an unknown key or a value of another type is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Section)


def kinds(namespace: Mapping[str, Any], parent: type[Kind]) -> tuple[type[Kind], ...]:
    """The classes below `parent` in a module's namespace that no other class extends, in the order of the file."""
    return tuple(
        value
        for value in namespace.values()
        if isinstance(value, type) and issubclass(value, parent) and not value.__subclasses__()
    )


def one_of(classes: Sequence[type[Section]], key: str) -> Any:
    """The type of a field that holds any of these, told apart by the text at `key`."""
    return Annotated[functools.reduce(operator.or_, classes), Field(discriminator=key)]
