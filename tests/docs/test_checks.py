"""The messages that docs/what-can-go-wrong.md quotes are those of the code."""

from __future__ import annotations

import ast
import re
from functools import cache

from tests.helpers.processes import ROOT

PAGE = (ROOT / "docs/what-can-go-wrong.md").read_text("utf-8")
_FEWEST = 12
"""Characters of a quoted piece that make it a message, and not a word that many files have."""


@cache
def said() -> str:
    """Every text that the code has, the parts of an f-string one after the other."""
    texts = []
    for path in [*ROOT.glob("cache/**/*.py"), *ROOT.glob("pipeline/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                texts.append("".join(parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                texts.append(node.value)
    return "\n".join(texts)


def quoted() -> list[str]:
    """What is quoted in the columns of messages, and in the text between the tables."""
    return [found for found in re.findall(r"(?<!`)`([^`\n]+)`(?!`)", PAGE) if "…" in found]


def test_every_quoted_message_is_in_the_code() -> None:
    pieces = [piece.strip(" ,:;()") for message in quoted() for piece in message.split("…")]
    long = [piece for piece in pieces if len(piece) >= _FEWEST]
    assert len(long) > 40
    assert [piece for piece in long if piece not in said()] == []
