"""Which files a path of weights names, and the digest of them all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.support.weight_files import content_sha256, weight_files


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(b"weights")
    assert content_sha256(tmp_path / "a.pth") == hashlib.sha256(b"weights").hexdigest()


def test_the_digest_of_shards_changes_with_any_of_them(tmp_path: Path) -> None:
    for name in ("a.bin", "b.bin"):
        (tmp_path / name).write_bytes(name.encode())
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "b.bin", "y": "a.bin", "z": "a.bin"}}))
    assert [file.name for file in weight_files(tmp_path)] == ["a.bin", "b.bin"]
    before = content_sha256(tmp_path)
    assert before == content_sha256(index)
    (tmp_path / "b.bin").write_bytes(b"another")
    assert content_sha256(tmp_path) not in (None, before)


def test_what_is_not_there_has_no_digest(tmp_path: Path) -> None:
    assert content_sha256(tmp_path / "a.pth") is None
    assert content_sha256(tmp_path) is None


def test_a_key_that_is_not_given_is_in_no_digest_and_no_recipe() -> None:
    assert "weights_key" not in load_recipe("digits").settings.teacher.model_dump()
    assert "weights_key" not in load_recipe("digits").to_toml()
    given = load_recipe("digits", ["teacher.weights=a.pth", "teacher.weights_key=model"])
    assert given.settings.teacher.model_dump()["weights_key"] == "model"
    assert 'weights_key = "model"' in given.to_toml()
