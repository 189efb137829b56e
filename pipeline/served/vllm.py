"""vLLM: `prompt_logprobs` of its completions."""

from __future__ import annotations

from dataclasses import dataclass

from decant.cache import FormatError, vllm_rows
from decant.pipeline.served.connection import Connection
from decant.pipeline.served.dialect import NEUTRAL, Said, counted
from decant.pipeline.served.heads import AnswerError, FewerError, Heads, entries, token_id
from decant.pipeline.served.prompt import Prompt


@dataclass(frozen=True)
class Vllm:
    """`prompt_logprobs` of vLLM's completions."""

    model: str
    name: str = "vllm"

    def ask(self, connection: Connection, prompt: Prompt, kept: int, said: Said) -> Heads:
        answer = connection.post(
            "/v1/completions",
            {
                "model": self.model,
                "prompt": prompt.ids,
                "prompt_logprobs": kept,
                "max_tokens": 1,
                "add_special_tokens": False,
                "return_token_ids": True,
                "repetition_penalty": 1.0,
                **NEUTRAL,
            },
        )
        choice = entries(answer, "choices", 0)
        given = entries(choice, "prompt_logprobs")
        theirs = choice.get("prompt_token_ids", answer.get("prompt_token_ids"))
        said.see(answer)
        if isinstance(theirs, list):
            prompt.require_same([token_id(one) for one in theirs])
        prompt.require_count(counted(answer))
        if isinstance(given, list):
            counts = [len(row) for row in given[1:] if isinstance(row, dict)]
            if counts and min(counts) < kept:
                raise FewerError(
                    f"gives {min(counts)} log-probabilities at a place, and {kept} are asked for"
                )
        try:
            return Heads(*vllm_rows(given, prompt.ids, kept, prompt.places.tolist(), "its answer"))
        except FormatError as error:
            raise AnswerError(str(error)) from None
