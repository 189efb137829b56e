"""A library that is an extra: the module, or the command that installs it."""

from __future__ import annotations

import json
import sys

import pytest

from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.support.optional import optional


def test_what_is_installed_is_given() -> None:
    assert optional("json", "text", DataError) is json


@pytest.mark.parametrize("error", [DataError, ModelError])
def test_what_is_missing_is_named_with_the_command(error: type[DataError]) -> None:
    with pytest.raises(
        error, match=r"^no_such_library is not installed; run: pip install 'decant-kd\[text\]'$"
    ):
        optional("no_such_library", "text", error)


def test_a_library_that_is_there_but_broken_is_not_called_missing(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half_a_library.py").write_text("import no_such_library\n")  # type: ignore[operator]
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        optional("half_a_library", "text", DataError)
    sys.modules.pop("half_a_library", None)
