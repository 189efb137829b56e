"""JSON that others may have written: read with limits, then held against a type, so that what is wrong is named."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Annotated, Any, TypeVar, cast

from pydantic import Field, GetCoreSchemaHandler, GetPydanticSchema, TypeAdapter, ValidationError
from pydantic_core import CoreSchema

MOST_BYTES = 64 << 20
"""Of a file; the largest that a run writes, with the names of 20,000 classes, has less than one of these MiB."""
_DEEPEST = 64
_LARGEST = 1e100
"""Numbers beyond are none that was measured, and overflow where they are squared."""

Whole = Annotated[int, Field(ge=0, lt=2**63)]
"""A count."""
Amount = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Seconds, bytes or the like."""
Finite = Annotated[float, Field(allow_inf_nan=False)]

T = TypeVar("T")


def _from_table(source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
    schema = handler(source)
    cast(dict[str, Any], handler.resolve_ref_schema(schema))["strict"] = False
    return schema


FROM_TABLE = GetPydanticSchema(_from_table)
"""Beside a dataclass whose own settings are strict: it is made from a table, and its fields from exact types alone."""


def parse(text: str | bytes) -> Any:
    """The value of a JSON text. Raises ValueError where it is none, nests deeply, or has numbers that nothing measures.

    >>> parse('{"seed": 0, "loss": NaN}')
    {'seed': 0, 'loss': nan}
    >>> parse("1e300")
    Traceback (most recent call last):
    ValueError: the number 1e300 is too large
    """
    try:
        content = json.loads(text, parse_int=_integer, parse_float=_float)
    except RecursionError:
        raise ValueError("it nests too deeply") from None
    require_shallow(content)
    return content


def check(adapter: TypeAdapter[T], content: Any) -> T:
    """`content`, which `parse` gave, as the type of the adapter. Raises ValueError, naming the first field that does
    not fit, and what it should be.

    >>> check(TypeAdapter(dict[str, Whole]), {"seed": -1})
    Traceback (most recent call last):
    ValueError: seed: expected greater than or equal to 0, found -1
    """
    try:
        return adapter.validate_python(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        path = ".".join(_plain(part) for part in problem["loc"]) or "the whole"
        if problem["type"] == "missing":
            raise ValueError(f"{path}: missing") from None
        expected = problem["msg"].replace("Input should be", "expected").replace("Value error, ", "")
        found = textwrap.shorten(json.dumps(problem["input"], default=repr), 60, placeholder=" …")
        raise ValueError(f"{path}: {expected[:1].lower()}{expected[1:]}, found {found}") from None


def _integer(digits: str) -> int:
    if len(digits) > 20 or not -(2**63) <= int(digits) < 2**63:
        raise ValueError(f"the number {digits[:20]}… is too large")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if abs(value) > _LARGEST:
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def require_shallow(content: Any) -> None:
    """Raises ValueError where tables and lists lie so deep in one another that walking through them fails."""
    level, depth = [content], 0
    while level:
        if depth > _DEEPEST:
            raise ValueError("it nests too deeply")
        inner = [
            value.values() if isinstance(value, dict) else value
            for value in level
            if isinstance(value, dict | list)
        ]
        level, depth = (
            [value for values in inner for value in values if isinstance(value, dict | list)],
            depth + 1,
        )


def _plain(part: object) -> str:
    """A part of a path: a name or a number as it is, anything else in quotes."""
    text = str(part)
    return text if re.fullmatch(r"[\w.+:-]{1,60}", text, re.ASCII) else json.dumps(textwrap.shorten(text, 60))
