"""The manifest: equal questions have equal keys, and whatever makes two keys differ is named."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from decant.cache import FormatError, Manifest, MismatchError
from decant.cache.identities import differences, require_equal
from decant.cache.manifest import MAX_BYTES, class_list
from tests.helpers.caches import identity_with, manifest

leaves = st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text(max_size=3)
content = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner, max_size=3),
)
tables = st.dictionaries(st.text("abc.", max_size=2), content, max_size=3)


def test_json_gives_the_same_manifest_back() -> None:
    first = manifest(info={"batch_size": 64, "device": "cpu"}, data={"classes": ["naïve", "café"]})
    again = Manifest.from_json(first.to_json())
    assert again == first
    assert again.to_json() == first.to_json()


def test_the_key_covers_identity_and_not_info() -> None:
    assert manifest(info={"batch_size": 1}).key == manifest(info={"batch_size": 2}).key
    assert manifest(teacher={"sha256": "cd"}).key != manifest().key


def test_the_key_is_that_of_version_1() -> None:
    """Files are found by it: it may never change."""
    first = Manifest.build(num_samples=3, num_outputs=2)
    assert first.key == "c137c5c17c1cbdad3deaf3c1d957ba946bc6ea73bb91ef729912139d20eb27e2"


@given(tables, tables)
def test_differences_are_empty_exactly_when_the_keys_agree(
    ours: dict[str, Any], theirs: dict[str, Any]
) -> None:
    first, second = identity_with(manifest(), "data", ours), identity_with(manifest(), "data", theirs)
    found = differences(first.identity, second.identity)
    assert (found == []) == (first.key == second.key), found
    assert all(difference.field.startswith("data") for difference in found)


def test_every_differing_field_is_named_with_both_values() -> None:
    mine = manifest(data={"classes": ["cat", "dog"]}, teacher={"network": {"name": "a", "width": 1}})
    other = manifest(data={"classes": ["dog", "cat"]}, teacher={"network": {"name": "b"}}, num_views=3)
    with pytest.raises(MismatchError) as caught:
        require_equal(mine.identity, other.identity, subject="cache.h5", hint="Build it.")
    assert [difference.field for difference in caught.value.differences] == [
        "data.classes[0]",
        "data.classes[1]",
        "teacher.network.name",
        "teacher.network.width",
        "views.count",
    ]
    assert "teacher.network.name: expected 'a', found 'b'" in str(caught.value)
    assert "teacher.network.width: expected 1, found nothing" in str(caught.value)
    assert str(caught.value).endswith("Build it.")


def test_only_the_asked_sections_are_compared() -> None:
    require_equal(
        manifest().identity, manifest(num_views=3).identity, subject="", hint="", sections=("teacher", "data")
    )


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("views", "count", 0),
        ("views", "count", True),
        ("views", "count", 2.0),
        ("data", "length", -1),
        ("data", "length", 2**41),
        ("data", "targets", 0),
        ("teacher", "outputs", "10"),
        ("teacher", "outputs", None),
        ("encoding", "dtype", "float64"),
        ("encoding", "dtype", ["float16"]),
    ],
)
def test_sizes_that_cannot_be_are_refused_by_name(section: str, field: str, value: Any) -> None:
    with pytest.raises(FormatError, match=rf"{section}\.{field}"):
        identity_with(manifest(), section, {field: value})


def test_sections_are_exactly_the_known_ones() -> None:
    identity = dict(manifest().identity)
    with pytest.raises(FormatError, match="unknown section 'extra'"):
        Manifest({**identity, "extra": {}})
    del identity["views"]
    with pytest.raises(FormatError, match=r"identity\.views"):
        Manifest(identity)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b"\xff",
        b'{"identity": {}, "info": {}}',
        b'{"identity":{},"identity":{},"info":{}}',
        b'{"identity":{},"info":{"x":NaN}}',
        b'{"identity":{},"info":{"x":1e999}}',
        b'{"identity":{},"info":{}}',
        b'{"identity":[],"info":{}}',
        b'{"identity":{},"info":{},"more":{}}',
        b"[" * 50_000,
        b'{"identity":{},"info":' + b'{"a":' * 40 + b"1" + b"}" * 41,
        b'{"identity":{},"info":{"x":' + b"9" * 5000 + b"}}",
    ],
)
def test_what_is_not_canonical_json_is_refused(text: bytes) -> None:
    with pytest.raises(FormatError, match="manifest"):
        Manifest.from_json(text)


def test_every_other_spelling_of_a_manifest_is_refused() -> None:
    text = manifest(info={"a": "b"}).to_json()
    for other in (
        text.replace(b",", b", "),
        text.replace(b'"a"', b'"\\u0061"'),
        text.replace(b'"info":{', b'"info":{"a":"c",'),
        text + b"\n",
        b'{"info":{"a":"b"},' + text[1:].replace(b',"info":{"a":"b"}', b""),
    ):
        assert other != text
        with pytest.raises(FormatError, match="canonical"):
            Manifest.from_json(other)


@pytest.mark.parametrize(("one", "other"), [(1, True), (1, 1.0), (0.0, -0.0), ([], {}), ("1", 1), (None, 0)])
def test_values_that_python_takes_for_equal_still_differ(one: Any, other: Any) -> None:
    first, second = (identity_with(manifest(), "data", {"x": value}) for value in (one, other))
    assert first.key != second.key
    assert [found.field for found in differences(first.identity, second.identity)] == ["data.x"]
    assert differences(first.identity, identity_with(manifest(), "data", {}).identity) != []


def test_deep_tables_are_refused_before_anything_walks_them() -> None:
    inner: dict[str, Any] = {}
    for _ in range(500):
        inner = {"a": inner}
    with pytest.raises(FormatError, match="nested"):
        manifest(info=inner)


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, np.float32(1), b"x"])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    with pytest.raises(FormatError, match="JSON"):
        manifest(info={"value": value})


def test_a_manifest_larger_than_an_attribute_is_refused() -> None:
    with pytest.raises(FormatError, match="at most"):
        manifest(info={"long": "x" * MAX_BYTES})


def test_long_class_lists_become_a_digest_that_still_tells_the_order() -> None:
    names = [f"class {number}" for number in range(21_841)]
    kept = class_list(names)
    assert isinstance(kept, dict)
    assert kept["count"] == 21_841
    assert len(json.dumps(kept)) < 300
    assert class_list(names[::-1]) != kept
    assert class_list(names[:100]) == names[:100]


def test_a_name_that_would_upset_a_terminal_is_escaped() -> None:
    ours = manifest(data={"\x1b[2J": 1, "\ud800": "\x1b[31m"})
    text = str(MismatchError("", differences(ours.identity, manifest().identity)).differences)
    lines = [str(difference) for difference in differences(ours.identity, manifest().identity)]
    assert all(line.isprintable() and line.encode() for line in lines), text
