"""The fingerprint of a user's code changes with what its function does, and with nothing else."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from decant.pipeline.support.source_code import code_sha256

FILES = {
    "users_net.py": (
        "import numpy as np\nfrom users_parts.blocks import Block\nWIDTH = 3\n\ndef other():\n    return 1\n\n"
        "class Net:\n    width = WIDTH\n    def forward(self, x): return Block()(x)\n\ndef net(): return Net()\n"
    ),
    "users_parts/__init__.py": "",
    "users_parts/blocks.py": "from .deep import *\nclass Block:\n    z = helper()\ndef unused(): pass\n",
    "users_parts/deep.py": "def helper():\n    from . import late\n    return late.value\n",
    "users_parts/late.py": "value = 1\nif __name__ == '__main__':\n    print(value)\n",
}


Digest = Callable[..., str | None]


@pytest.fixture
def digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Digest:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "users_parts", raising=False)  # found, and so imported, by another test
    (tmp_path / "users_parts").mkdir()

    def of(path: str = "", old: str = "", new: str = "") -> str | None:
        for name, content in FILES.items():
            if name == path:
                assert old in content
                content = content.replace(old, new)
            (tmp_path / name).write_text(content)
        return code_sha256("users_net:net")

    return of


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("users_net.py", "WIDTH = 3", "WIDTH = 4"),
        ("users_net.py", "Block()(x)", "-Block()(x)"),
        ("users_net.py", "return Net()", "return Net"),
        ("users_parts/blocks.py", "class Block:", "class Block(object):"),
        ("users_parts/deep.py", "return late.value", "return 2 * late.value"),
        ("users_parts/late.py", "value = 1", "value = 2"),
        ("users_parts/__init__.py", "", "print('set up')"),
    ],
)
def test_what_the_function_can_reach_counts(digest: Digest, path: str, old: str, new: str) -> None:
    assert digest() != digest(path, old, new)


@pytest.mark.parametrize(
    ("path", "old", "new"),
    [
        ("users_net.py", "return 1", "return 2"),
        ("users_net.py", "WIDTH = 3", "WIDTH = 3  # wide\n\n"),
        ("users_parts/blocks.py", "def unused(): pass", ""),
        ("users_parts/late.py", "print(value)", "print(-value)"),
    ],
)
def test_what_the_function_cannot_reach_does_not_count(digest: Digest, path: str, old: str, new: str) -> None:
    assert digest() == digest(path, old, new)


def test_names_that_are_not_the_users_have_none() -> None:
    assert code_sha256("conv") is code_sha256("torchvision:resnet18") is code_sha256("timm:x") is None
    assert code_sha256("math:sqrt") is code_sha256("no.such.package:net") is None


def test_a_file_is_read_into_its_parts_once_however_often_it_is_asked_for(
    digest: Digest, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, parsed = digest(), list[bytes]()
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda code, *more: parsed.append(code) or parse(code, *more))
    assert digest() == first
    assert parsed == []
    assert digest("users_parts/late.py", "value = 1", "value = 3") != first
    assert len(parsed) == 1, "the file that has changed"
