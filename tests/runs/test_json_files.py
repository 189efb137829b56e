"""JSON of a run reads back, and is whole or is not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from decant.pipeline.runs.json_files import read_json, write_json


def test_a_name_that_is_no_text_is_written_and_read(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", {"classes": [name, "é"]})
    assert read_json(tmp_path / "a.json") == {"classes": [name, "é"]}


def test_json_is_for_people_and_reads_back(tmp_path: Path) -> None:
    content = {"größe": [1, 2.5, None, True], "nested": {"α": 0.9}, "long": "x" * 100}
    write_json(tmp_path / "a.json", content)
    text = (tmp_path / "a.json").read_text("utf-8")
    assert read_json(tmp_path / "a.json") == content
    assert '"größe": [\n' in text
    assert text.endswith("}\n")


def test_a_write_that_fails_leaves_the_file_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"epoch": 1})

    def full_disk(descriptor: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_json(path, {"epoch": 2})
    assert read_json(path) == {"epoch": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_is_no_json_leaves_the_file_before_it(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"epoch": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"epoch": object()})
    assert read_json(tmp_path / "a.json") == {"epoch": 1}
