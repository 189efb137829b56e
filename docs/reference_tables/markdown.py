"""Markdown: a table, a docstring."""

from __future__ import annotations

import inspect
from typing import Any


def table(columns: tuple[str, ...], rows: list[Any]) -> str:
    def line(cells: Any) -> str:
        return "| " + " | ".join(str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"

    return "\n".join([line(columns), line(["---"] * len(columns)), *map(line, rows)])


def one_line(text: str | None) -> str:
    return " ".join(inspect.cleandoc(text or "").split())


def docstring(value: Any) -> str:
    """A docstring as Markdown: examples become code."""
    return as_markdown(inspect.cleandoc(getattr(value, "__doc__", None) or ""))


def as_markdown(text: str) -> str:
    """The text of a docstring as Markdown."""
    lines, inside = [], False
    for line in text.splitlines():
        begins = line.startswith(">>>")
        if begins and not inside:
            lines += ["", "```pycon"]
        elif inside and not line.strip():
            lines.append("```")
        inside = begins or (inside and bool(line.strip()))
        lines.append(line)
    return "\n".join([*lines, *(["```"] if inside else [])])
