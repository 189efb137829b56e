"""How a server is asked for the log-probabilities of a prompt's tokens: what all ways have in common.

Each asks with token ids, so nothing is tokenised again, and for one token to be generated, which is left unread: some
servers take no 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from decant.pipeline.served.connection import Connection
from decant.pipeline.served.heads import AnswerError, Heads
from decant.pipeline.served.prompt import Prompt

NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}
"""No server is known to apply these to a prompt's log-probabilities; should one, nothing changes."""


class Dialect(Protocol):
    """Asks for the `kept` likeliest tokens at the places of a prompt."""

    @property
    def name(self) -> str: ...

    def ask(self, connection: Connection, prompt: Prompt, kept: int, said: Said) -> Heads:
        """Raises ServerErrors, and AnswerError for an answer that is not believed."""


@dataclass
class Said:
    """What the answers of a server say of itself, each time."""

    model: str | None = None
    by_text: bool = False
    """Whether it names tokens by their texts."""

    def see(self, answer: dict[str, Any]) -> None:
        """Takes the model's name. Raises AnswerError where it is another than before."""
        model = answer.get("model")
        if isinstance(model, str) and model:
            if self.model is not None and model != self.model:
                raise AnswerError(f"it answers as the model {model!r}, and answered as {self.model!r} before")
            self.model = model


def counted(answer: dict[str, Any]) -> object:
    """How many tokens of a prompt a server says that it read; None where it does not."""
    usage = answer.get("usage")
    return usage.get("prompt_tokens") if isinstance(usage, dict) else None
