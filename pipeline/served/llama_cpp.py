"""llama.cpp: its own `/completion`, once for each place."""

from __future__ import annotations

from dataclasses import dataclass

from decant.pipeline.served.connection import Connection
from decant.pipeline.served.dialect import NEUTRAL, Said
from decant.pipeline.served.heads import AnswerError, Heads, a_list, entries, likeliest, number, token_id
from decant.pipeline.served.prompt import Prompt


@dataclass(frozen=True)
class LlamaCpp:
    """`/completion` of llama.cpp, which tells log-probabilities of generated tokens alone: one request for each place,
    with the token that follows forced by a bias. What it tells is of the logits before that, and before all samplers.
    """

    name: str = "llama.cpp"

    def ask(self, connection: Connection, prompt: Prompt, kept: int, said: Said) -> Heads:
        ids = prompt.ids
        found = [self._ask(connection, ids[: place + 2], kept, said) for place in prompt.places.tolist()]
        rows, values, following = zip(*found, strict=True)
        return likeliest(rows, values, following, kept)

    def _ask(
        self, connection: Connection, tokens: list[int], kept: int, said: Said
    ) -> tuple[list[int], list[float], float]:
        """(ids, log-probabilities, that of the last of `tokens`) after the tokens before it."""
        *before, following = tokens
        answer = connection.post(
            "/completion",
            {
                "prompt": before,
                "n_predict": 1,
                "n_probs": kept,
                "post_sampling_probs": False,
                "logit_bias": [[following, 1e6]],
                "samplers": ["top_k"],
                "top_k": 1,
                "repeat_penalty": 1.0,
                "cache_prompt": True,
                "response_fields": ["completion_probabilities", "tokens_evaluated", "truncated", "model"],
                **NEUTRAL,
            },
        )
        place = entries(answer, "completion_probabilities", 0)
        said.see(answer)
        if answer.get("truncated"):
            raise AnswerError(
                f"it cut the prompt of {len(before):,} tokens; start it with a larger --ctx-size"
            )
        count = answer.get("tokens_evaluated")
        if count is not None and count != len(before):
            raise AnswerError(f"it read {count} tokens where {len(before):,} were sent")
        top = a_list(entries(place, "top_logprobs"))
        drawn = token_id(entries(place, "id"))
        if drawn != following:
            raise AnswerError(
                f"it drew the token {drawn}, where {following} was forced: it takes no logit_bias"
            )
        return (
            [token_id(entries(one, "id")) for one in top],
            [number(entries(one, "logprob")) for one in top],
            number(entries(place, "logprob")),
        )
