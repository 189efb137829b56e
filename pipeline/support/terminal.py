"""What reaches a terminal: text without the characters that it would obey.

Names of files, classes and fields come from others, and may hold escapes that clear the screen, marks that reverse the
order of letters, and line breaks that begin a line of another's making. A message is one line (`one_line`). Whatever is
written passes a gate (`guard`), which lets no control character through but the end of a line; rich, which writes
escapes of its own, gets past it by a console (`console`) that takes such characters out of every text.

What an encoding other than UTF-8 does not have, as × in ASCII, is written as what it stands for.
"""

from __future__ import annotations

import codecs
import json
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console

SUBSTITUTE = "�"

_PLAIN = {
    "×": "x",
    "−": "-",
    "–": "-",
    "…": "...",
    "·": "-",
    "→": "->",
    "≤": "<=",
    "±": "+-",
    "²": "^2",
    "‖": "||",
    SUBSTITUTE: "?",
}
"""Signs of messages and tables, in ASCII."""

_IN_PLAIN = "decant-in-plain"


def printable(text: str, keep: str = "") -> str:
    """Text with a substitute for every character that is not to be seen, but for those to `keep`: controls, escapes,
    marks of direction, line breaks, halves of surrogate pairs.

    >>> printable("a\\x1b[2Jb\\u202ec\\n", keep="\\n")
    'a�[2Jb�c\\n'
    """
    if text.isprintable():
        return text
    return "".join(one if one in keep or _is_seen(one) else SUBSTITUTE for one in text)


def one_line(text: object) -> str:
    """The text of a message, in one line.

    >>> one_line("cats\\ndecant: all is well")
    'cats�decant: all is well'
    """
    return printable(str(text))


def short_json(value: Any, limit: int = 100) -> str:
    """A value as JSON, of at most `limit` characters, none of which acts on a terminal.

    >>> short_json({"name": "digits"}), short_json("a" * 9, limit=5)
    ('{"name": "digits"}', '"aaa…')
    """
    text = printable(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def in_plain(error: UnicodeError) -> tuple[str, int]:
    """What a codec writes in place of characters that its encoding lacks: the signs of our own messages in ASCII, any
    other character, as of a file's name, by its number as in JSON.

    >>> codecs.register_error("in plain", in_plain)
    >>> "24 samples × 3, 狐.png".encode("ascii", "in plain")
    b'24 samples x 3, \\\\u72d0.png'
    """
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    words = (_PLAIN.get(one) or json.dumps(one)[1:-1] for one in lacking)
    return "".join(words), error.end


def guard() -> None:
    """Lets nothing through to stdout and stderr that a terminal obeys, from now on and in this process. A character
    that their encoding lacks is no error.
    """
    codecs.register_error(_IN_PLAIN, in_plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper) and codecs.lookup(stream.encoding).name != "utf-8":
            stream.reconfigure(errors=_IN_PLAIN)
    if sys.stdout is not None and not isinstance(sys.stdout, _Gate):
        sys.stdout = cast(TextIO, _Gate(sys.stdout))
    if sys.stderr is not None and not isinstance(sys.stderr, _Gate):
        sys.stderr = cast(TextIO, _Gate(sys.stderr))


def console(stderr: bool = False, **options: Any) -> Console:
    """A console of rich on stdout or stderr, on which texts are as `printable` has them; line ends are kept."""
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class Printable(Console):
        def render(
            self, renderable: RenderableType, options: ConsoleOptions | None = None
        ) -> Iterator[Segment]:
            for segment in super().render(renderable, options):
                text = segment.text if segment.control else printable(segment.text, keep="\n")
                yield Segment(text, segment.style, segment.control)

    return Printable(file=_behind(sys.stderr if stderr else sys.stdout), **options)


class _Gate:
    """A text stream that writes what is printable, and line ends, to another. It has no binary stream below it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str | bytes) -> int:
        if isinstance(text, bytes):
            if not text:
                raise TypeError("a stream of text")  # by which click tells that it is one
            text = text.decode(errors="replace")
        start = "\r" if text.startswith("\r") else ""  # bars of libraries go back to the line's start
        self._stream.write(start + printable(text[len(start) :], keep="\n\t"))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        if name in ("buffer", "detach", "raw"):
            raise AttributeError(name)
        return getattr(self._stream, name)


def _behind(stream: TextIO) -> TextIO:
    """The stream that a gate writes to; any other itself."""
    return stream._stream if isinstance(stream, _Gate) else stream


def _is_seen(character: str) -> bool:
    """Whether a character can be seen, or is a space of some width."""
    return character.isprintable() or unicodedata.category(character) == "Zs"
