"""What a server said of some places of a prompt, as arrays; what cannot be right in it is refused by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from decant.cache import pack_ids

_ROUNDING = 2e-3  # of a mass
_ABOVE = 1e-3  # nats that a log-probability may be above 0 by rounding
_APART = 2e-2  # nats, and share, between two statements of one log-probability
_LEAST = -65_504.0  # the least float16


class AnswerError(ValueError):
    """An answer that is not believed; whoever asked adds the sample."""


class MissingError(AnswerError):
    """An answer without log-probabilities of the prompt."""


class FewerError(AnswerError):
    """An answer with fewer log-probabilities of a place than were asked for."""


class UnnamedError(AnswerError):
    """An answer of which too few tokens can be known by their texts."""


class Heads(NamedTuple):
    """The likeliest tokens at Q places, by falling log-probability."""

    ids: NDArray[np.int64]
    """(Q, k)"""
    log_probs: NDArray[np.float64]
    """(Q, k) at T = 1."""
    next_log_prob: NDArray[np.float64]
    """(Q,) of the token that follows each place."""
    unnamed: int = 0
    """Places at which the server names a likely token by a text that is of several tokens, or of none; it is in the
    tail.
    """

    @property
    def tail(self) -> NDArray[np.float64]:
        """(Q,) the probability of all other tokens."""
        return np.maximum(1 - np.exp(self.log_probs).sum(axis=1), 0)

    def rows(self, num_outputs: int) -> dict[str, NDArray[Any]]:
        """By table, as a cache with `Sparse(head=k)` stores them; the log-sum-exp of raw logits, which no server tells,
        is 0.
        """
        with np.errstate(divide="ignore"):
            tail = np.log(self.tail)
        return {
            **pack_ids(self.ids, num_outputs),
            "log_probs": self.log_probs.clip(_LEAST, 0).astype("<f2"),
            "stats": np.stack([np.zeros_like(tail), tail], axis=1).astype("<f4"),
        }


def joined(parts: Sequence[Heads]) -> Heads:
    """Those of several prompts, one after the other."""
    ids, log_probs, next_log_prob, unnamed = zip(*parts, strict=True)
    return Heads(np.concatenate(ids), np.concatenate(log_probs), np.concatenate(next_log_prob), sum(unnamed))


def likeliest(
    ids: Sequence[Sequence[int]],
    log_probs: Sequence[Sequence[float]],
    next_log_prob: Sequence[float],
    kept: int,
) -> Heads:
    """The `kept` likeliest of each place, of lists in any order; of equal ones the lower id first. Raises FewerError.

    >>> likeliest([[4, 1, 2]], [[-2.0, -0.5, -2.0]], [-0.5], kept=2).ids.tolist()
    [[1, 2]]
    """
    fewest = min(map(len, ids))
    if fewest < kept:
        raise FewerError(f"gives {fewest} log-probabilities at a place, and {kept} are asked for")
    longest = max(map(len, ids))
    every = np.array([[*row, *[-1] * (longest - len(row))] for row in ids], np.int64)
    values = np.array([[*row, *[-np.inf] * (longest - len(row))] for row in log_probs], np.float64)
    padded = every < 0  # NaN stays to be found, and ids below 0 are none
    if any(one < 0 for row in ids for one in row):
        raise AnswerError("names a token by a number below 0")
    order = np.lexsort((every, np.where(padded, np.inf, -values)), axis=1)[:, :kept]
    ordered, falling = (np.take_along_axis(array, order, axis=1) for array in (every, values))
    return Heads(ordered.astype(np.int64), falling.astype(np.float64), np.array(next_log_prob, np.float64))


def require_sound(heads: Heads, next_ids: NDArray[np.int64], num_outputs: int) -> None:
    """Raises AnswerError, naming the place among the rows, where they cannot be log-probabilities of a softmax, or
    contradict themselves. next_ids: (Q,) the token that follows each place.
    """
    ids, log_probs, following = heads.ids, heads.log_probs, heads.next_log_prob
    ordered = np.sort(ids, axis=1)
    listed = ids == next_ids[:, None]
    inside = listed.any(axis=1)
    with np.errstate(invalid="ignore", over="ignore"):
        own = np.where(inside, np.where(listed, log_probs, -np.inf).max(axis=1), following)
        same = (own == following) | (np.abs(own - following) <= _APART * (1 + np.abs(following)))
        last = log_probs[:, -1]
        problems = {
            "a log-probability is NaN": np.isnan(log_probs).any(axis=1) | np.isnan(following),
            "a log-probability is above 0, as of raw logits": (log_probs > _ABOVE).any(axis=1)
            | (following > _ABOVE),
            f"it names a token that is none of {num_outputs:,}: its tokenizer is another, or its head has more rows": (
                (ids < 0) | (ids >= num_outputs)
            ).any(axis=1),
            "it names a token twice": (ordered[:, 1:] == ordered[:, :-1]).any(axis=1),
            "its probabilities sum to more than 1": ~(np.exp(log_probs).sum(axis=1) <= 1 + _ROUNDING),
            "it says two things of the token that follows": ~same,
            "it leaves out the token that follows, which is likelier than those that it lists": ~inside
            & (following > last + _APART * (1 + np.abs(last))),
        }
    for problem, bad in problems.items():
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            shown = ", ".join(
                f"{one}: {value:.4g}" for one, value in zip(ids[row][:4], log_probs[row][:4], strict=True)
            )
            raise AnswerError(
                f"row {row:,}: {problem} (of {{{shown}…}}, next {next_ids[row]}: {following[row]:.4g})"
            )


def number(value: object) -> float:
    """A number of an answer. Raises AnswerError for anything else, as a text or nothing."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise AnswerError(f"expected a log-probability, found {type(value).__name__}")
    try:
        return float(value)
    except OverflowError:
        raise AnswerError("expected a log-probability, found an integer beyond all floats") from None


def token_id(value: object) -> int:
    """An id of an answer. Raises AnswerError."""
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise AnswerError("expected the number of a token, found another value")
    return value


def entries(content: object, *names: str | int) -> Any:
    """What lies at a path in an answer. Raises MissingError, naming what is not there.

    >>> entries({"choices": [{"text": "a"}]}, "choices", 0, "text")
    'a'
    """
    found: Any = content
    for place, name in enumerate(names):
        try:
            found = _inner(found, name)
        except (KeyError, IndexError):
            raise MissingError(f"has no {'.'.join(map(str, names[: place + 1]))} in its answer") from None
    if found is None:
        raise MissingError(f"has no {'.'.join(map(str, names))} in its answer")
    return found


def a_list(value: object) -> list[Any]:
    """A list of an answer. Raises AnswerError for anything else."""
    if not isinstance(value, list):
        raise AnswerError(f"expected a list, found {type(value).__name__}")
    return value


def _inner(content: Any, name: str | int) -> Any:
    if isinstance(name, str) and isinstance(content, dict):
        return content[name]
    if isinstance(name, int) and isinstance(content, list):
        return content[name]
    raise KeyError
