"""SGLang: its own `/generate`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from decant.pipeline.served.connection import Connection
from decant.pipeline.served.dialect import NEUTRAL, Said
from decant.pipeline.served.heads import AnswerError, Heads, a_list, entries, likeliest, number, token_id
from decant.pipeline.served.prompt import Prompt


@dataclass(frozen=True)
class Sglang:
    """`/generate` of SGLang."""

    name: str = "sglang"

    def ask(self, connection: Connection, prompt: Prompt, kept: int, said: Said) -> Heads:
        answer = connection.post(
            "/generate",
            {
                "input_ids": prompt.ids,
                "sampling_params": {"max_new_tokens": 1, **NEUTRAL},
                "return_logprob": True,
                "logprob_start_len": 0,
                "top_logprobs_num": kept,
                "return_text_in_logprobs": False,
            },
        )
        about = entries(answer, "meta_info")
        own, top = (entries(about, name) for name in ("input_token_logprobs", "input_top_logprobs"))
        said.see(about)
        if not isinstance(own, list) or not isinstance(top, list) or len(own) != len(top):
            raise AnswerError("expected as many input_token_logprobs as input_top_logprobs")
        if len(own) == len(prompt.tokens) - 1:  # without the first, of which nothing is said
            own, top = [[None, prompt.ids[0]], *own], [None, *top]
        prompt.require_same([_pair(one)[1] for one in own])
        prompt.require_count(about.get("prompt_tokens"))
        rows = [a_list(top[place + 1]) for place in prompt.places]
        pairs = [[_pair(one) for one in row] for row in rows]
        return likeliest(
            [[one for _, one in row] for row in pairs],
            [[number(value) for value, _ in row] for row in pairs],
            [number(_pair(own[place + 1])[0]) for place in prompt.places],
            kept,
        )


def _pair(value: object) -> tuple[Any, int]:
    """(log-probability or None, id) of SGLang."""
    if not isinstance(value, list) or len(value) < 2:
        raise AnswerError("expected [log-probability, id], found another value")
    return value[0], token_id(value[1])
