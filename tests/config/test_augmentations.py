"""What `views.augment` may list, as a recipe's file says it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from decant.pipeline.config.augmentations import Augmentation
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.errors import RecipeError

DEFAULTS: list[tuple[str, dict[str, Any]]] = [
    ('op="pad-crop"', {"op": "pad-crop", "padding": 4}),
    ('op="flip"', {"op": "flip", "p": 0.5}),
    ('op="center-crop", size=28', {"op": "center-crop", "size": 28}),
    (
        'op="random-resized-crop"',
        {"op": "random-resized-crop", "size": None, "scale": [0.08, 1.0], "ratio": [0.75, 4 / 3]},
    ),
    (
        'op="color-jitter"',
        {"op": "color-jitter", "brightness": 0.4, "contrast": 0.4, "saturation": 0.4, "hue": 0.1, "p": 1.0},
    ),
    ('op="rand-augment"', {"op": "rand-augment", "num_ops": 2, "magnitude": 9}),
    ('op="trivial-augment"', {"op": "trivial-augment"}),
    ('op="cutout", size=16', {"op": "cutout", "size": 16}),
    (
        'op="random-erasing"',
        {"op": "random-erasing", "p": 0.5, "scale": [0.02, 0.33], "ratio": [0.3, 3.3], "value": 0},
    ),
    ('op="mixup"', {"op": "mixup", "alpha": 0.2, "p": 1.0}),
    ('op="cutmix"', {"op": "cutmix", "alpha": 1.0, "p": 1.0}),
    (
        'op="transform", name="torchvision:GaussianBlur", kernel_size=[3, 3]',
        {"op": "transform", "name": "torchvision:GaussianBlur", "kernel_size": [3, 3]},
    ),
]


def parsed(table: str) -> Any:
    """The operation that a recipe with `{table}` in its list has."""
    (operation,) = load_recipe("digits", [f"views.augment=[{{{table}}}]"]).settings.views.augment
    return operation


@pytest.mark.parametrize(("table", "dump"), DEFAULTS)
def test_an_operation_says_every_value_in_one_way(table: str, dump: dict[str, Any]) -> None:
    operation = parsed(table)
    assert operation.model_dump(mode="json") == dump
    again = TypeAdapter(Augmentation).validate_json(operation.model_dump_json())
    assert again == operation
    assert json.dumps(again.model_dump(mode="json")) == json.dumps(dump), "floats stay floats"


def test_every_operation_is_tried_here() -> None:
    known = TypeAdapter(Augmentation).json_schema()["discriminator"]["mapping"]
    assert set(known) == {dump["op"] for _, dump in DEFAULTS}


def test_whole_numbers_are_the_floats_that_they_equal() -> None:
    dump = parsed('op="random-resized-crop", scale=[1, 1], ratio=[1, 2]').model_dump_json()
    assert dump == '{"op":"random-resized-crop","size":null,"scale":[1.0,1.0],"ratio":[1.0,2.0]}'


@pytest.mark.parametrize(("table", "_"), DEFAULTS)
def test_an_operation_reads_back_from_the_resolved_recipe(table: str, _: Any, tmp_path: Any) -> None:
    recipe = load_recipe("digits", [f"views.augment=[{{{table}}}]"])
    file = tmp_path / "again.toml"
    file.write_text(recipe.to_toml(), "utf-8")
    assert load_recipe(str(file)).settings == recipe.settings


REFUSED = [
    ('op="center-crop"', "size: missing"),
    ('op="center-crop", size=0', "size: expected a whole number at least 1, found 0"),
    ('op="random-resized-crop", scale=0.5', "scale: expected a list, found 0.5"),
    ('op="random-resized-crop", scale=[0.5]', r"scale: expected \[from, to\], .*, found \[0.5\]"),
    ('op="random-resized-crop", scale=[0.9, 0.5]', r"scale: expected .* smaller first, found \[0.9, 0.5\]"),
    ('op="random-resized-crop", scale=[0, 1]', r"scale\[0\]: expected a number above 0 and at most 1"),
    ('op="random-resized-crop", ratio=[0.001, 1]', r"ratio\[0\]: expected a number at least 0.01"),
    ('op="random-resized-crop", ratio=[1, 101]', r"ratio\[1\]: .* at most 100, found 101"),
    ('op="random-erasing", scale=[0.1, 1.1]', r"scale\[1\]: expected"),
    ('op="random-erasing", ratio=[1, 2, 3]', r"ratio: expected \[from, to\]"),
    ('op="random-erasing", value=256', "value: expected a whole number at least 0 and at most 255"),
    ('op="random-erasing", p=1.5', "p: expected a number at least 0 and at most 1"),
    ('op="color-jitter", brightness=-0.1', "brightness: expected a number at least 0 and at most 10"),
    ('op="color-jitter", hue=0.51', "hue: expected a number at least 0 and at most 0.5"),
    ('op="rand-augment", magnitude=31', "magnitude: expected a whole number at least 0 and at most 30"),
    ('op="rand-augment", num_ops=0', "num_ops: expected a whole number at least 1"),
    ('op="trivial-augment", p=1', "p: unknown key"),
    ('op="cutout", size=2.5', "size: expected a whole number"),
    ('op="mixup", alpha=0', "alpha: expected a number above 0, found 0"),
    ('op="cutmix", p=-1', "p: expected a number at least 0"),
    ('op="transform"', "name: missing"),
    (
        'op="transform", name="Blur"',
        "name: expected torchvision:NAME or package.module:callable, found 'Blur'",
    ),
    ('op="transform", name="mine:"', "name: expected torchvision:NAME"),
    ('op="transform", name="a:b", strength=inf', "strength: numbers must be finite, found inf"),
    ('op="transform", name="a:b", range=[0.0, nan]', "range: numbers must be finite"),
    ('op="cutot"', "op: unknown operation 'cutot'; did you mean cutout"),
]


@pytest.mark.parametrize(("table", "says"), REFUSED)
def test_what_cannot_be_is_refused_in_words(table: str, says: str) -> None:
    with pytest.raises(RecipeError, match=rf"^digits: views\.augment\[0\]\.{says}"):
        parsed(table)


def test_a_transform_keeps_its_arguments_apart_and_to_itself() -> None:
    operation = parsed('op="transform", name="mine:blur", strength=2')
    assert operation.args == {"strength": 2}
    operation.args["strength"] = 3
    assert operation.args == {"strength": 2}
    assert operation != parsed('op="transform", name="mine:blur", strength=3')
    with pytest.raises(ValidationError, match="frozen"):
        operation.strength = 3
