"""A message that lists what differs keeps its lines, and no line of it begins as a message does."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.commands import decant

FEW = (
    "--recipe",
    "digits",
    "--set",
    "teacher.epochs=1",
    "--set",
    "student.epochs=1",
    "--set",
    "student.seeds=1",
)


def test_what_differs_is_a_line_each(tmp_path: Path) -> None:
    assert decant("teacher", *FEW, cwd=tmp_path).returncode == 0
    assert decant("cache-logits", *FEW, cwd=tmp_path).returncode == 0
    refused = decant("student", *FEW, "--set", "cache.dtype=float32", cwd=tmp_path)
    assert refused.returncode == 1
    first, nearest, field = refused.stderr.splitlines()
    assert first.startswith("decant: caches/digits-train-conv-")
    assert first.endswith("--set cache.dtype=float32")
    assert nearest.startswith("  The nearest there, caches/digits-train-conv-")
    assert field == "  encoding.dtype: expected 'float32', found 'float16'"
