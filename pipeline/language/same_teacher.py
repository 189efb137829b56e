"""Whether a teacher says what a cache holds of it: by the beginning of one sample.

Weights, class and configuration tell most teachers apart. An adapter that is switched off, its scale, a hook or a
setting that no weight shows change what a network says all the same.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from decant.cache import LogitCache, LogitCacheWriter, MismatchError
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.language.batches import probe
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.language.served_pass import prompts

_PLACES, _LOOKED_AT, _LONG = 32, 64, 512
_FAR = 5.0
_LEAST = -50.0  # of masked tokens, whose logits are about −10,000, and others that never come
_WIDE = (torch.float32, torch.float64)
_EXACT, _HALF = (0.01, 2**-9), (0.1, 2**-7)
"""(nats, share of the log-probability) that the same network may differ by, on average, from one machine or batch to
another: in float32 and float64, with what a device rounds of the former, and in half precision.
"""


def require_same_teacher(
    model: CausalModel, samples: TokenSamples, cache: LogitCache, *, cast: bool = False
) -> None:
    """Raises MismatchError where a network says other things than a cache has that is whole. cast: whether the cache
    may have been computed in half precision, whatever the weights are in.
    """
    index = _telling(samples, np.ones(len(samples), np.bool_))
    # Without its head the network would give the logits of all these tokens.
    if _last(samples, index) > _LONG:
        model.prepare(probe(samples))
    _require(model, samples, index, cache.next_log_prob([index], 0), cache.path, cast)


def require_same_as_begun(model: CausalModel, samples: TokenSamples, writer: LogitCacheWriter) -> None:
    """The same of a pass that goes on, with one of the samples that are written; nothing where none is."""
    written = writer.is_written()
    if written.any():
        index = _telling(samples, written)
        _require(model, samples, index, writer.next_log_prob(index), writer.partial)


def _require(
    model: CausalModel,
    samples: TokenSamples,
    index: int,
    stored: NDArray[np.floating],
    where: Path | str,
    cast: bool = False,
) -> None:
    now, is_exact = _next_log_probs(model, samples, index)
    before = np.maximum(stored[: len(now)].astype(np.float64), _LEAST)
    apart = np.minimum(np.nan_to_num(np.abs(np.maximum(now, _LEAST) - before), nan=_FAR), _FAR).mean()
    room, share = _EXACT if is_exact and not cast else _HALF
    if apart > room + share * np.abs(before).mean():
        raise MismatchError(
            f"{where}: holds what another teacher says: {model.name} is by its name and weights the one that is noted, "
            f"but gives the next tokens of sample {index:,} log-probabilities that are {apart:.2f} nats apart on "
            "average. What is no weight has changed, as an adapter that is switched off or scaled otherwise, the "
            "number of experts per token, or the epsilon of a norm. Set it as it was, give another path, or delete the "
            "file."
        )


def _telling(samples: TokenSamples, candidates: NDArray[np.bool_]) -> int:
    """Of these samples one with many places, of the first of these the one that the fewest tokens are read of."""
    places = np.where(candidates, np.minimum(samples.num_positions, _PLACES), -1)
    most = np.flatnonzero(places == places.max())[:_LOOKED_AT].tolist()
    return min(most, key=lambda index: _last(samples, index))


def _last(samples: TokenSamples, index: int) -> int:
    """The last of the first places of a sample."""
    return int(samples.positions(index)[:_PLACES][-1])


@torch.no_grad()
def _next_log_probs(
    model: CausalModel, samples: TokenSamples, index: int
) -> tuple[NDArray[np.float64], bool]:
    """(q,) what a network gives to the tokens that follow the first places of a sample, and whether it computes in no
    half precision.
    """
    found, is_exact = [], all(value.dtype in _WIDE for value in model.network.parameters())
    for prompt in prompts(samples, index, _PLACES):
        ids = torch.from_numpy(np.asarray(prompt.ids, np.int64))[None].to(model.device)
        places = torch.from_numpy(prompt.places).to(model.device)
        states = model.states(ids[:, :-1], torch.ones_like(ids[:, :-1]))[0, places]
        logits = torch.cat(list(model.logits(states)))
        is_exact = is_exact and not _is_half(logits)
        next_ids = ids[0, places + 1][:, None]
        found.append((logits.gather(1, next_ids)[:, 0] - logits.logsumexp(1)).cpu())
    return torch.cat(found).double().numpy(), is_exact


def _is_half(logits: Tensor) -> bool:
    """Whether logits in float32 were computed in half precision, as of a network with an autocast of its own."""
    return any(bool((logits.to(dtype).float() == logits).all()) for dtype in (torch.bfloat16, torch.float16))
