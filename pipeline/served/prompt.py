"""The tokens that a server is asked about, and how those that it reports are compared with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.corpus.difference import decoder_of, difference
from decant.pipeline.served.heads import AnswerError

_BOS = (
    "; where the server adds a token, start it so that it does not, or make the corpus with a tokenizer that adds it "
    "too"
)


@dataclass(frozen=True)
class Prompt:
    """Tokens (L,), and the places (Q,) at which the log-probabilities of the next token are wanted."""

    tokens: NDArray[np.int64]
    places: NDArray[np.int64]
    tokenizer: Any = field(default=None, repr=False)
    """To show tokens as text, and to know them by their text; or None."""

    @property
    def ids(self) -> list[int]:
        """The tokens, for JSON."""
        return [int(one) for one in self.tokens]

    @property
    def next_ids(self) -> NDArray[np.int64]:
        """(Q,) the token that follows each place."""
        return self.tokens[self.places + 1]

    def require_same(self, theirs: list[int]) -> None:
        """Raises AnswerError, naming the first token that differs, where the server read others."""
        found = np.array(theirs, np.int64)
        if not np.array_equal(found, self.tokens):
            said = difference(
                self.tokens, found, decoder_of(self.tokenizer), here="the corpus", reader="the server"
            )
            raise AnswerError(said + (_BOS if "special token" in said else ""))

    def require_count(self, count: object) -> None:
        """The same of a server that says of the tokens how many it read."""
        if count is not None and count != len(self.tokens):
            raise AnswerError(f"it read {count} tokens, and the corpus has {len(self.tokens):,}{_BOS}")
