"""The mistakes that `pipeline` reports are one family, drawn as they are; unknown names are met with the nearest."""

from __future__ import annotations

import inspect

import pytest

from decant.pipeline import errors
from decant.pipeline.errors import PipelineError, nearest

FAMILY = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind is not PipelineError
]


def test_every_error_is_a_pipeline_error_and_is_drawn_in_the_docstring() -> None:
    drawing = errors.__doc__ or ""
    drawn, above = dict[str, str](), "PipelineError"
    for line in drawing.splitlines():
        nested, _, name = line.partition("── ")
        if name and nested in ("├", "└"):
            above = name.split()[0]
            drawn[above] = "PipelineError"
        elif name:
            drawn[name.split()[0]] = above
    assert drawn == {kind.__name__: kind.__base__.__name__ for kind in FAMILY if kind.__base__ is not None}
    assert all(len(kind.__bases__) == 1 for kind in FAMILY)
    assert PipelineError.__bases__ == (Exception,)


@pytest.mark.parametrize("kind", FAMILY)
def test_an_error_says_its_text_and_has_a_docstring(kind: type[PipelineError]) -> None:
    assert str(kind("a/path: what is wrong")) == "a/path: what is wrong"
    assert kind.__doc__


NAMES = ["resnet20", "resnet32", "resnet56", "vgg8", "conv"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("resnet20x", "did you mean resnet20 or "),
        ("vgg", "did you mean vgg8?"),
        ("resnet", "did you mean resnet56 or resnet32 or resnet20?"),
        ("con", "did you mean conv?"),
        ("", "known: conv, resnet20, resnet32, resnet56, vgg8"),
        ("zzzzzzzz", "known: conv, resnet20, resnet32, resnet56, vgg8"),
    ],
)
def test_the_nearest_names_are_offered_or_else_all(name: str, says: str) -> None:
    assert nearest(name, NAMES).startswith(says)


def test_the_order_of_the_known_names_does_not_matter() -> None:
    assert (
        nearest("resnet", iter(NAMES)) == nearest("resnet", reversed(NAMES)) == nearest("resnet", set(NAMES))
    )


def test_at_most_three_names_are_offered() -> None:
    assert nearest("resnet", [f"resnet{depth}" for depth in range(10)]).count(" or ") == 2
