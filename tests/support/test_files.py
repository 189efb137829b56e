"""Small files of a run are whole or are not there."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from decant.pipeline.support.files import read_json, write_atomically, write_json


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "digits" / "a.bin"
    for content in (b"first", b"", bytes(range(256)) * 1000):
        write_atomically(path, content)
        assert path.read_bytes() == content
    assert os.listdir(path.parent) == ["a.bin"], "folders are made, drafts are not left"


def test_a_name_that_is_no_text_is_written_and_read(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "a.json", {"classes": [name, "é"]})
    assert read_json(tmp_path / "a.json") == {"classes": [name, "é"]}


def test_whoever_reads_meanwhile_reads_the_content_before_to_its_end(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a.bin", b"before")
    with open(tmp_path / "a.bin", "rb") as reader:
        write_atomically(tmp_path / "a.bin", b"after it")
        assert reader.read() == b"before"
    assert (tmp_path / "a.bin").read_bytes() == b"after it"


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


def test_a_reader_sees_one_whole_content_or_the_other_and_so_it_stays_after_a_kill(tmp_path: Path) -> None:
    path, length = tmp_path / "a.bin", 300_000
    script = (
        "import sys, pathlib\n"
        "from decant.pipeline.support.files import write_atomically\n"
        "path = pathlib.Path(sys.argv[1])\n"
        f"while True:\n    for content in (b'a', b'b'): write_atomically(path, content * {length})\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", script, str(path)])
    try:
        while not path.exists():
            assert writer.poll() is None
            time.sleep(0.01)
        for _ in range(200):
            content = path.read_bytes()
            assert content in (b"a" * length, b"b" * length), f"{len(content):,} bytes, {set(content)}"
    finally:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert path.read_bytes() in (b"a" * length, b"b" * length)
