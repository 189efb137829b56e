"""Answers of vLLM, as the arrays of rows that `import_rows` makes a cache of."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from decant.cache.errors import FormatError, shorten
from decant.cache.io.opening import open_read

_Rows: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]
"""Ids and log-probabilities (Q, k) of a sample, and (Q,) the log-probabilities of what follows."""


def read_vllm(path: Path, kept: int) -> dict[str, NDArray[Any]]:
    """Rows of the prompts in a file of answers of vLLM: JSON, or a line of JSON each, with `prompt_token_ids` and
    `prompt_logprobs`, as a server returns them for `prompt_logprobs = k` and `return_token_ids = true`, at the top or
    in a choice. Of a prompt of L tokens there are L − 1 rows, of the token after each but the last.

    kept: how many of the k are taken, the likeliest. Raises FormatError, naming sample and position, where there are
    fewer, or where a token of the prompt has no log-probability at its place, as in rows of another prompt.

    >>> import tempfile
    >>> row = {"3": {"logprob": -0.2}, "1": {"logprob": -2.0}}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "answers.json")
    ...     _ = path.write_text(json.dumps({"prompt_token_ids": [5, 3], "prompt_logprobs": [None, row]}))
    ...     arrays = read_vllm(path, kept=2)
    >>> arrays["ids"].tolist(), arrays["lengths"].tolist(), arrays["tokens"].tolist()
    ([[3, 1]], [1], [5, 3])
    """
    if type(kept) is not int or kept < 1:
        raise ValueError(f"kept: expected a whole number of 1 or more, found {kept!r}")
    lengths, tokens, parts = list[int](), list[NDArray[np.uint32]](), list[_Rows]()
    for number, answer in enumerate(_answers(path)):
        where = f"{path}: sample {number}"
        holder = next((one for one in _holders(answer) if one.get("prompt_logprobs") is not None), None)
        if holder is None:
            raise FormatError(f"{where}: has no prompt_logprobs; ask for them with prompt_logprobs = {kept}")
        own = holder.get("prompt_token_ids", answer.get("prompt_token_ids"))
        given = holder["prompt_logprobs"]
        if not isinstance(own, list) or not isinstance(given, list) or len(own) != len(given) or not given:
            raise FormatError(
                f"{where}: expected prompt_token_ids and prompt_logprobs of one length; ask for the ids with "
                "return_token_ids = true"
            )
        bad = next((one for one in own if type(one) is not int or not 0 <= one < 1 << 32), None)
        if bad is not None or None in own:
            raise FormatError(
                f"{where}: prompt_token_ids: expected numbers of 0 or more, found {shorten(bad)}"
            )
        lengths.append(len(own))
        tokens.append(np.array(own, np.uint32))
        if len(own) > 1:  # of the first token nothing is said
            parts.append(vllm_rows(given, own, kept, range(len(own) - 1), where))
    if not parts:
        raise FormatError(f"{path}: no rows: there is one for each token of a prompt but the last")
    following = np.concatenate([part[2] for part in parts])
    return {
        "ids": np.concatenate([part[0] for part in parts]),
        "log_probs": np.concatenate([part[1] for part in parts]),
        "next_log_prob": following.clip(np.finfo("f2").min, 0).astype("<f2"),
        "lengths": np.asarray(lengths, np.int64) - 1,
        "tokens": np.concatenate(tokens).astype(np.int64),
        "token_lengths": np.asarray(lengths, np.int64),
    }


def vllm_rows(
    given: object, tokens: Sequence[int], kept: int, places: Sequence[int], where: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """The rows (Q, kept) of some places of a prompt, from its `prompt_logprobs`: ids, log-probabilities by falling
    value, and (Q,) that of the token that follows each.

    given: what the server answered, a list with an entry for each of `tokens`. Raises FormatError, which begins with
    `where`, as `read_vllm` does.

    >>> answer = [None, {"3": {"logprob": -0.25}, "1": {"logprob": -2.0}}]
    >>> ids, log_probs, following = vllm_rows(answer, [5, 3], kept=2, places=[0], where="a prompt")
    >>> ids.tolist(), log_probs.tolist(), following.tolist()
    ([[3, 1]], [[-0.25, -2.0]], [-0.25])
    """
    if not isinstance(given, list) or len(given) != len(tokens):
        found = f"{len(given):,}" if isinstance(given, list) else shorten(given)
        raise FormatError(
            f"{where}: prompt_logprobs: expected one for each of {len(tokens):,} tokens, found {found}"
        )
    rows = [_row(given[place + 1], tokens[place + 1], kept, f"{where}, position {place}") for place in places]
    ids, log_probs, following = zip(*rows, strict=True)
    return np.asarray(ids, np.int64), np.asarray(log_probs, np.float64), np.asarray(following, np.float64)


def _answers(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file: one, a list of them, or one a line, of which one line is in memory at a time."""
    with open_read(path) as file:
        lines: Iterator[bytes] = (line for line in file if line.strip())
        first = next(lines, b"")
        if not first:
            return
        try:
            try:
                content = json.loads(first, object_pairs_hook=_once)
            except _TwiceError:
                raise
            except ValueError:  # one object or list, over several lines
                content, lines = json.loads(first + b"".join(lines), object_pairs_hook=_once), iter(())
            if isinstance(content, list) and not any(True for _ in lines):
                yield from (_an_object(answer, path) for answer in content)
                return
            yield _an_object(content, path)
            for line in lines:
                yield _an_object(json.loads(line, object_pairs_hook=_once), path)
        except _TwiceError as error:
            raise FormatError(f"{path}: {error}") from None
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{path}: not JSON, and no lines of JSON ({error})") from None


def _an_object(answer: object, path: Path) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise FormatError(f"{path}: expected an object for each sample, found {shorten(answer)}")
    return answer


def _holders(answer: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Where an answer may have the log-probabilities: at the top, or in its first choice."""
    yield answer
    choices = answer.get("choices")
    if isinstance(choices, list):
        yield from (choice for choice in choices[:1] if isinstance(choice, dict))


def _row(given: object, token: int, kept: int, where: str) -> tuple[list[int], list[float], float]:
    """(ids, log-probabilities, that of the token that came) of one position."""
    try:
        if not isinstance(given, dict):
            raise TypeError
        found = {_id(one): _number(value["logprob"]) for one, value in given.items()}
    except (KeyError, TypeError, ValueError, OverflowError):
        raise FormatError(f"{where}: expected {{id: {{logprob: …}}}}, found {shorten(given)}") from None
    if token not in found:
        raise FormatError(
            f"{where}: the next token is {token}, and its log-probability is not among those: rows of another prompt"
        )
    if len(found) < kept:
        raise FormatError(f"{where}: {len(found)} log-probabilities, and {kept} are to be kept")
    largest = sorted(found, key=lambda one: (-found[one], one))[:kept]
    return largest, [found[one] for one in largest], found[token]


def _id(text: str) -> int:
    """Of an output, as vLLM writes it. Raises ValueError for any other way to write a number."""
    found = int(text)
    if str(found) != text or not 0 <= found < 1 << 32:
        raise ValueError
    return found


def _number(value: object) -> float:
    """Raises TypeError for what is none in JSON."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


class _TwiceError(ValueError):
    """A name comes twice in an object, of which JSON libraries keep one in silence."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _TwiceError(f"{shorten(twice)} is there twice in one object")
    return found
