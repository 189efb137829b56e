"""Settings that may follow a schedule while a student trains. Imports nothing heavy."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field, TypeAdapter, ValidationError, WrapValidator

from decant.pipeline.config.sections import Section

Setting = TypeVar("Setting")


class Scheduled(Section):
    """A number that changes while a student trains: `{ from = 8.0, to = 2.0, schedule = "cosine" }`."""

    from_: Annotated[float, Field(alias="from")]
    to: float
    schedule: Literal["linear", "cosine"] = "linear"

    def at(self, progress: float) -> float:
        """The number at `progress`, the share of the training that is done, in 0..1.

        >>> Scheduled.model_validate({"from": 8.0, "to": 2.0}).at(0.5)
        5.0
        """
        share = progress if self.schedule == "linear" else (1 - math.cos(math.pi * progress)) / 2
        return self.from_ + (self.to - self.from_) * share


def _number_or_schedule(**bounds: float) -> WrapValidator:
    """Validates a number within `bounds`, or a schedule whose both ends are."""
    number = TypeAdapter(Annotated[float, Field(strict=True, allow_inf_nan=False, **bounds)])

    def read(value: Any, _: Callable[[Any], Any]) -> float | Scheduled:
        if not isinstance(value, (dict, Scheduled)):
            return number.validate_python(value)
        scheduled = Scheduled.model_validate(value)
        for end, at in (("from", scheduled.from_), ("to", scheduled.to)):
            try:
                number.validate_python(at)
            except ValidationError as error:
                allowed = error.errors()[0]["msg"].removeprefix("Input should be ")
                raise ValueError(f"{end}: must be {allowed}, found {at:g}") from None
        return scheduled

    return WrapValidator(read)


Share = Annotated[
    Annotated[float, Field(ge=0, le=1)] | Scheduled,
    _number_or_schedule(ge=0, le=1),
]
Weight = Annotated[Annotated[float, Field(ge=0)] | Scheduled, _number_or_schedule(ge=0)]
Temperature = Annotated[Annotated[float, Field(gt=0)] | Scheduled, _number_or_schedule(gt=0)]


def at(value: Setting | Scheduled, progress: float) -> Setting | float:
    """The value of a setting at `progress`, the share of the training that is done."""
    return value.at(progress) if isinstance(value, Scheduled) else value
