"""Log-probabilities of the likeliest tokens, as other programs save them, become a sparse cache with positions.

What they hold is the head of the softmax at T = 1. The mass of all other tokens is what is missing from 1, so the cache
serves T = 1 alone, and logits are known but for a number that a whole row has in common.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from decant.cache.encodings import Sparse
from decant.cache.encodings.ids import pack_ids
from decant.cache.errors import FormatError, ValueRefusedError, shorten
from decant.cache.io.opening import open_read
from decant.cache.manifest import Manifest
from decant.cache.positions import Positions
from decant.cache.store.local import Store
from decant.cache.writer import LogitCacheWriter

_LEAST = -65_504.0  # the least float16
_AT_ONCE = 1 << 16  # positions that are written at once


@dataclass(frozen=True)
class TopRows:
    """One sample: its tokens, and what a teacher said of the token after each but the last."""

    tokens: NDArray[np.int64]
    """(L,)."""
    ids: NDArray[np.int64]
    """(L − 1, k): the likeliest tokens to come, in any order."""
    log_probs: NDArray[np.float64]
    """(L − 1, k): log softmax of each, at T = 1."""
    next_log_prob: NDArray[np.float64]
    """(L − 1,): that of the token that came; NaN where it is not known."""

    def __post_init__(self) -> None:
        positions = max(0, len(self.tokens) - 1)
        if self.ids.shape != self.log_probs.shape or self.ids.shape[:1] != (positions,) or self.ids.ndim != 2:
            raise ValueRefusedError(
                f"rows: expected ids and log_probs ({positions}, k), one row for each token but the last, found "
                f"{self.ids.shape} and {self.log_probs.shape}"
            )


def read_vllm(path: Path, kept: int) -> Iterator[TopRows]:
    """Samples from answers of vLLM: JSON, or a line of JSON each, with `prompt_token_ids` and `prompt_logprobs`, as a
    server returns them for `prompt_logprobs = k` and `return_token_ids = true`, at the top or in a choice.

    kept: how many of the k are taken, the likeliest. Raises FormatError, naming sample and position, where there are
    fewer, or where a token of the prompt has no log-probability at its place, as in rows of another prompt.
    """
    for number, answer in enumerate(_answers(path)):
        where = f"{path}: sample {number}"
        holder = next((one for one in _holders(answer) if one.get("prompt_logprobs") is not None), None)
        if holder is None:
            raise FormatError(f"{where}: has no prompt_logprobs; ask for them with prompt_logprobs = {kept}")
        tokens = holder.get("prompt_token_ids", answer.get("prompt_token_ids"))
        given = holder["prompt_logprobs"]
        if (
            not isinstance(tokens, list)
            or not isinstance(given, list)
            or len(tokens) != len(given)
            or not given
        ):
            raise FormatError(
                f"{where}: expected prompt_token_ids and prompt_logprobs of one length; ask for the ids with "
                "return_token_ids = true"
            )
        rows = [
            _row(one, token, kept, f"{where}, position {place}")
            for place, (one, token) in enumerate(zip(given[1:], tokens[1:], strict=True))
        ]  # of the first token nothing is said
        ids, log_probs, following = zip(*rows, strict=True) if rows else ((), (), ())
        yield TopRows(
            np.asarray(tokens, np.int64),
            np.asarray(ids, np.int64).reshape(-1, kept),
            np.asarray(log_probs, np.float64).reshape(-1, kept),
            np.asarray(following, np.float64),
        )


def read_npz(path: Path) -> Iterator[TopRows]:
    """Samples from a .npz file of arrays: `lengths` (N,), the tokens of each sample; `tokens` (Σ L,), of all samples
    one after another; `ids` and `log_probs` (Σ (L − 1), k), a row for each token but the last of its sample.

    Raises FormatError for other arrays, and for pickles.
    """
    try:
        with open_read(path) as file, np.load(file, allow_pickle=False) as content:
            arrays = {name: np.asarray(content[name]) for name in ("lengths", "tokens", "ids", "log_probs")}
    except KeyError as error:
        raise FormatError(f"{path}: expected lengths, tokens, ids and log_probs: {error.args[0]}") from None
    except (ValueError, EOFError, OSError, TypeError, AttributeError) as error:
        raise FormatError(f"{path}: not a .npz file of plain arrays ({error})") from None
    lengths, tokens, ids = arrays["lengths"], arrays["tokens"], arrays["ids"]
    log_probs = arrays["log_probs"].astype(np.float64)
    whole = all(arrays[name].dtype.kind in "iu" for name in ("lengths", "tokens", "ids"))
    if not whole or lengths.ndim != 1 or (lengths < 1).any() or tokens.shape != (lengths.sum(),):
        raise FormatError(
            f"{path}: expected integers lengths (N,) of 1 or more, and as many tokens and ids as they say"
        )
    if ids.ndim != 2 or ids.shape != log_probs.shape or len(ids) != lengths.sum() - len(lengths):
        raise FormatError(
            f"{path}: expected ids and log_probs ({lengths.sum() - len(lengths)}, k), found {ids.shape} and "
            f"{log_probs.shape}"
        )
    ends = np.cumsum(lengths.astype(np.int64))
    for number, end in enumerate(ends.tolist()):
        first = end - int(lengths[number])
        own = tokens[first:end].astype(np.int64)
        rows = slice(first - number, end - number - 1)
        found = ids[rows].astype(np.int64) == own[1:, None]
        following = np.where(found.any(axis=1), np.where(found, log_probs[rows], 0).sum(axis=1), np.nan)
        yield TopRows(own, ids[rows].astype(np.int64), log_probs[rows], following)


def import_top_rows(
    store: Store,
    samples: Sequence[TopRows],
    num_outputs: int,
    *,
    teacher: Mapping[str, Any],
    data: Mapping[str, Any],
    **positions: Any,
) -> Path:
    """Publishes samples as a sparse cache of `store`, and returns its path; a second import of the same finds the
    first.

    teacher and data say where they are from; the identity also has the SHA-256 of all rows. positions: what else tells
    the positions, as the digest of the tokenizer. Raises ValueRefusedError for rows that cannot be a softmax: ids twice
    or beyond C, log-probabilities above 0, or probabilities of more than 1 together.

    >>> import tempfile
    >>> from decant.cache import LogitCache
    >>> sample = TopRows(np.array([5, 2, 7]), np.array([[2, 3], [7, 1]]), np.log([[0.5, 0.2], [0.9, 0.1]]),
    ...                  np.log([0.5, 0.9]))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = import_top_rows(Store(folder), [sample], 10, teacher={"network": "mine"}, data={"name": "toy"})
    ...     rows = LogitCache.open(path).rows([0])
    >>> rows.ids.tolist(), np.exp(rows.log_tail[:, 0]).round(3).tolist()
    ([[2, 3], [7, 1]], [0.300..., 0.0])
    """
    widths = {sample.ids.shape[1] for sample in samples if len(sample.tokens) > 1}
    if len(widths) != 1:
        raise ValueRefusedError(f"rows: expected one k in all samples, found {sorted(widths) or 'none'}")
    encoding, digest = Sparse(widths.pop()), hashlib.sha256()
    for sample in samples:
        for part in (sample.ids, sample.log_probs, sample.next_log_prob):
            digest.update(np.ascontiguousarray(part).data)
    lengths = np.array([len(sample.tokens) for sample in samples])
    of = Positions.of(
        np.maximum(lengths - 1, 0),
        tokens=np.concatenate([sample.tokens for sample in samples]),
        token_lengths=lengths,
        predicts="next",
        **positions,
    )
    manifest = Manifest.build(
        num_samples=len(samples),
        num_outputs=num_outputs,
        encoding={**encoding.identity, "teacher_precision": "unknown"},
        teacher={**teacher, "rows_sha256": digest.hexdigest()},
        data=data,
        positions=of,
    )
    with store.building(manifest) as path:
        return store.find(manifest) or _write(path, manifest, of, samples)


def _write(path: Path, manifest: Manifest, positions: Positions, samples: Sequence[TopRows]) -> Path:
    with LogitCacheWriter(path, manifest, positions=positions) as writer:
        some: list[int] = []
        for number in range(len(samples)):
            some.append(number)
            if sum(len(samples[one].ids) for one in some) >= _AT_ONCE or number == len(samples) - 1:
                chosen = [samples[one] for one in some if len(samples[one].ids)]
                if chosen:
                    rows = _encoded(chosen, manifest.num_outputs)
                    following = np.concatenate([one.next_log_prob for one in chosen]).clip(_LEAST, None)
                    writer.write_encoded(some, rows, next_log_prob=following.astype("<f2"))
                some = []
        return writer.publish()


def _encoded(samples: Sequence[TopRows], num_outputs: int) -> dict[str, NDArray[Any]]:
    """Rows as a sparse file has them: by falling probability, the lower id first where two are equal."""
    ids = np.concatenate([sample.ids for sample in samples])
    log_probs = np.concatenate([sample.log_probs for sample in samples])
    if ids.min(initial=0) < 0 or ids.max(initial=0) >= num_outputs:
        raise ValueRefusedError(f"ids: expected 0 to {num_outputs - 1:,}, found {ids.min()} to {ids.max()}")
    order = np.lexsort((ids, -log_probs), axis=1)
    ids, log_probs = (np.take_along_axis(one, order, axis=1) for one in (ids, log_probs))
    rest = 1 - np.exp(log_probs).sum(axis=1)
    with np.errstate(divide="ignore"):
        tail = np.log(np.maximum(rest, 0))
    stored = log_probs.clip(_LEAST, None).astype("<f2")
    stats = np.stack([np.zeros(len(tail)), tail], axis=1).astype("<f4")
    return {**pack_ids(ids, num_outputs), "log_probs": stored, "stats": stats}


def _answers(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file: one, a list of them, or one a line."""
    with open_read(path) as file:
        text = file.read()
    try:
        try:
            content = json.loads(text)
        except ValueError:
            content = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: not JSON, and no lines of JSON ({error})") from None
    for answer in content if isinstance(content, list) else [content]:
        if not isinstance(answer, dict):
            raise FormatError(f"{path}: expected an object for each sample, found {shorten(answer)}")
        yield answer


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
        found = {int(one): float(value["logprob"]) for one, value in given.items()}
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"{where}: expected {{id: {{logprob: …}}}}, found {shorten(given)}") from None
    if token not in found:
        raise FormatError(
            f"{where}: the next token is {token}, and its log-probability is not among those: rows of another prompt"
        )
    if len(found) < kept:
        raise FormatError(f"{where}: {len(found)} log-probabilities, and {kept} are to be kept")
    largest = sorted(found, key=lambda one: (-found[one], one))[:kept]
    return largest, [found[one] for one in largest], found[token]
