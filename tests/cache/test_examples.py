"""Every function and class that `decant.cache` offers has an example; `tests/project/test_examples.py` runs them."""

from __future__ import annotations

import importlib
import inspect

import pytest

from decant import cache, encodings

OFFERED = {
    "Dense": encodings.Dense,
    **{
        name: found
        for name in cache.__all__
        if inspect.isclass(found := getattr(cache, name)) or inspect.isfunction(found)
    },
}
RETURNED = {
    "Leftover",
    "LogitSource",
    "PositionProfile",
    "PositionSummary",
    "RegressionSummary",
    "SequenceBatch",
    "ShownRow",
    "SigmoidScores",
    "SigmoidSummary",
    "SoftLabelStream",
    "SparseRows",
    "Summary",
    "SurveyedSize",
    "Unfinished",
}
"""Classes that a caller does not make: the examples are with the functions that return them."""


@pytest.mark.parametrize("name", sorted(OFFERED.keys() - RETURNED))
def test_what_is_offered_has_an_example(name: str) -> None:
    found = OFFERED[name]
    if inspect.isclass(found) and issubclass(found, Exception):
        found = importlib.import_module(found.__module__)  # the tree of errors has one for all
    assert ">>> " in (found.__doc__ or ""), name
