"""`package.module:name` and libraries that are extras: what is found, and one voice for what is wrong."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest

from decant.pipeline.errors import DataError, ModelError, RecipeError
from decant.pipeline.support.plugins import Plugin, optional, source_sha256

SOURCE = """
scale = 3
_hidden = print

def double(value, times=2):
    return times * value

class Kept:
    def __init__(self, size):
        self.size = size
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of a user's."""
    (tmp_path / "users_code.py").write_text(SOURCE)
    (tmp_path / "broken_code.py").write_text("1 / 0")
    (tmp_path / "many_names.py").write_text("".join(f"def f{number}(): pass\n" for number in range(30)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "users_code", raising=False)
    return "users_code"


def plugin(name: str) -> Plugin:
    return Plugin(name, f"section.key {name!r}", RecipeError)


def test_functions_and_classes_are_found() -> None:
    assert plugin("users_code:double").load()(4) == 8
    assert plugin("users_code:Kept").load()(size=1).size == 1


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nobodys:f", "cannot be imported (ModuleNotFoundError: No module named 'nobodys')"),
        ("broken_code:f", "cannot be imported (ZeroDivisionError: division by zero [broken_code.py:1])"),
        (":f", "cannot be imported (ValueError: Empty module name)"),
        ("users_code:doubel", "module users_code has no 'doubel'; did you mean double?"),
        ("users_code:other", "module users_code has no 'other'; known: Kept, double"),
        ("users_code:", "module users_code has no ''; known: Kept, double"),
        ("users_code:scale", "scale is not callable, it is of type int"),
        ("many_names:zzzzzz", "module many_names has no 'zzzzzz'"),
    ],
)
def test_what_cannot_be_found_is_told_with_the_nearest_name(name: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        plugin(name).load()
    assert str(caught.value) == f"section.key {name!r}: {says}"


def test_a_subject_that_is_empty_leaves_the_beginning_to_the_caller() -> None:
    with pytest.raises(ModelError, match=r"^cannot be imported \("):
        Plugin("nobodys:f", "", ModelError).load()


@pytest.mark.parametrize(
    ("positional", "keywords", "says"),
    [
        ([], {}, r"no arguments \(TypeError: missing a required argument: 'value'\)"),
        (["value"], {"time": 3}, r"value, time = 3 \(TypeError: got an unexpected keyword argument 'time'\)"),
    ],
)
def test_arguments_that_are_not_taken_are_told_as_they_are_written(
    positional: list[str], keywords: dict[str, Any], says: str
) -> None:
    found = plugin("users_code:double")
    found.check_arguments(found.load(), "value", times=3)
    with pytest.raises(RecipeError, match=f"^section.key 'users_code:double': does not take {says}$"):
        found.check_arguments(found.load(), *positional, **keywords)


def test_the_digest_is_of_the_file_whether_or_not_its_function_is_there() -> None:
    expected = hashlib.sha256(SOURCE.encode()).hexdigest()
    assert source_sha256("users_code:double") == source_sha256("users_code:gone") == expected
    assert "users_code" not in sys.modules
    assert source_sha256("nobodys:f") is source_sha256("no.such.package:f") is source_sha256(":f") is None


# Libraries that are extras


def test_what_is_installed_is_given() -> None:
    assert optional("json", "text", DataError) is sys.modules["json"]


@pytest.mark.parametrize("error", [DataError, ModelError])
def test_what_is_missing_is_named_with_the_command(error: type[DataError]) -> None:
    with pytest.raises(
        error, match=r"^no_such_library is not installed; run: pip install 'decant-kd\[text\]'$"
    ):
        optional("no_such_library", "text", error)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        (
            "raise AttributeError('Found no doc')",
            "AttributeError: Found no doc",
        ),  # as Altair under python -OO
        ("raise OSError('libfoo.so: undefined symbol')", "OSError: libfoo.so: undefined symbol"),
    ],
)
def test_a_library_that_is_there_but_broken_is_not_called_missing(
    code: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "half_a_library.py").write_text(code)
    with pytest.raises(
        DataError, match=rf"^half_a_library is installed but cannot be imported \({said}"
    ) as raised:
        optional("half_a_library", "text", DataError)
    assert raised.value.__cause__ is not None, "--debug shows where"
