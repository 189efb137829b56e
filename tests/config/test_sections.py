"""What every section of a recipe has in common: exact, finite and frozen."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from decant.pipeline.config.sections import Count, Section, Share


class Example(Section):
    count: Count = 1
    share: Share = 0.5


@pytest.mark.parametrize(
    "given",
    [
        {"cuont": 1},
        {"count": "1"},
        {"count": 1.0},
        {"count": 0},
        {"share": 1.1},
        {"share": float("nan")},
        {"share": True},
    ],
)
def test_what_is_unknown_or_of_another_type_or_range_is_an_error(given: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Example.model_validate(given)


def test_a_whole_number_may_stand_for_a_share_and_nothing_changes_afterwards() -> None:
    made = Example.model_validate({"share": 1})
    assert made.share == 1.0
    with pytest.raises(ValidationError):
        made.count = 2
