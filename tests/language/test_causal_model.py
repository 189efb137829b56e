"""A network in two halves gives the logits of the whole, whatever its head is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decant.objectives import TeacherHead
from decant.pipeline.errors import ModelError
from decant.pipeline.language.causal_model import CausalModel
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers import language

IDS = torch.randint(0, 340, (2, 16), generator=torch.Generator().manual_seed(0))
MASK = torch.ones_like(IDS)
SIZES = {
    "vocab_size": 350,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


class Recurrent(nn.Module):
    """A network of one's own, that takes neither a mask nor names."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(350, 16)
        self.body, self.head = nn.GRU(16, 16, batch_first=True), nn.Linear(16, 350)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(self.embedding(tokens))[0])
        return logits


class TiedByHand(Recurrent):
    """Whose head is no layer."""

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.body(self.embedding(tokens))[0] @ self.embedding.weight.T
        return logits


def of_library(kind: str, **settings: Any) -> Any:
    import transformers

    config = getattr(transformers, f"{kind}Config")(**{**SIZES, **settings})
    network = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    with torch.no_grad():
        network.get_output_embeddings().weight.mul_(20)
    return network


def set_in(network: Any, final_logit_softcapping: float) -> Any:
    """The network with a soft cap after what it does to its logits."""
    inner = network.forward

    def forward(*args: Any, **named: Any) -> Any:
        returned = inner(*args, **named)
        returned.logits = final_logit_softcapping * torch.tanh(returned.logits / final_logit_softcapping)
        return returned

    network.forward, network.config.final_logit_softcapping = forward, final_logit_softcapping
    return network


NETWORKS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "llama": (lambda: language.llama(350), "nothing"),
    "tied": (lambda: language.llama(350, tie_word_embeddings=True), "nothing"),
    "bfloat16": (lambda: language.llama(350).bfloat16(), "nothing"),
    "soft cap": (
        lambda: of_library("Gemma2", final_logit_softcapping=5.0, query_pre_attn_scalar=8),
        "soft cap 5",
    ),
    "scale": (lambda: of_library("Cohere", logit_scale=0.0625), "times 0.0625"),
    "scaling": (lambda: of_library("Granite", logits_scaling=8.0), "divided by 8"),
    "scaling that multiplies": (lambda: of_library("HyperCLOVAX", logits_scaling=0.125), "times 0.125"),
    "multiplier": (
        lambda: of_library(
            "FalconH1", lm_head_multiplier=0.5, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8
        ),
        "times 0.5",
    ),
    "soft cap by another name": (
        lambda: of_library("RecurrentGemma", logits_soft_cap=5.0, num_hidden_layers=3, lru_width=32),
        "soft cap 5",
    ),
    "scale and soft cap": (
        lambda: set_in(of_library("Cohere", logit_scale=0.25), final_logit_softcapping=5.0),
        "times 0.25, soft cap 5",
    ),
    "own": (Recurrent, "nothing"),
    "compiled": (lambda: torch.compile(language.llama(350), backend="eager"), "nothing"),  # type: ignore[return-value]
}
_SLOW = {"compiled": [pytest.mark.slow]}


@pytest.mark.parametrize("name", [pytest.param(name, marks=_SLOW.get(name, [])) for name in NETWORKS])
def test_both_halves_together_are_the_whole(name: str) -> None:
    build, after = NETWORKS[name]
    torch.manual_seed(0)
    network = build().eval()
    model = CausalModel(network, num_outputs=340)
    model.prepare(IDS)
    assert model.after == after
    assert model.num_rows == 350
    hidden = model.hidden(IDS, MASK)
    assert hidden.shape[:2] == IDS.shape
    assert hidden.shape[2] < 340, "the head was not found"
    with torch.inference_mode():
        whole = network(IDS)
    whole = (whole if isinstance(whole, Tensor) else whole.logits).flatten(0, 1)[:, :340].float()
    some = torch.tensor([3, 30, 5])
    parts = torch.cat(list(model.logits(hidden.flatten(0, 1)[some])))
    assert parts.dtype == torch.float32
    assert torch.allclose(
        parts, whole[some], rtol=0, atol=float(whole.abs().max()) * 2**-7 if name == "bfloat16" else 1e-5
    )


@pytest.mark.parametrize("name", [name for name in NETWORKS if name not in _SLOW])
def test_the_head_alone_makes_logits_of_hidden_states(name: str) -> None:
    torch.manual_seed(0)
    model = CausalModel(NETWORKS[name][0]().eval(), num_outputs=340)
    model.prepare(IDS)
    hidden = model.hidden(IDS, MASK).flatten(0, 1)
    expected = torch.cat(list(model.logits(hidden)))
    head = model.head()
    assert (head.num_outputs, head.width) == (340, hidden.shape[1])
    rounding = float(expected.abs().max()) * (2**-7 if name == "bfloat16" else 1e-5)
    stored = hidden.float()
    assert torch.allclose(torch.from_numpy(head.logits(stored.numpy())), expected, atol=rounding)
    assert torch.allclose(TeacherHead(head).logits(stored), expected, atol=rounding)


def test_the_head_is_applied_to_a_few_positions_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CausalModel(language.llama(350), num_outputs=340)
    model.prepare(IDS)
    hidden = model.hidden(IDS, MASK).flatten(0, 1)
    whole = torch.cat(list(model.logits(hidden)))
    monkeypatch.setattr("decant.pipeline.language.causal_model._CHUNK_BYTES", 4 * 350 * 5)
    parts = list(model.logits(hidden))
    assert [len(part) for part in parts] == [5] * 6 + [2]
    assert torch.allclose(torch.cat(parts), whole, atol=1e-5)


def test_where_no_layer_is_the_head_the_logits_of_the_whole_are_taken_and_that_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    forget_what_was_said()
    torch.manual_seed(0)
    network = TiedByHand()
    model = CausalModel(network, num_outputs=340)
    model.prepare(IDS)
    assert "no layer of it is found that computes its logits" in capsys.readouterr().err
    parts = torch.cat(list(model.logits(model.hidden(IDS, MASK).flatten(0, 1))))
    with pytest.raises(ModelError, match="has no linear layer that makes its logits of hidden states"):
        model.head()
    with torch.inference_mode():
        assert torch.equal(parts, network(IDS).flatten(0, 1)[:, :340])


def _t5() -> Any:
    import transformers

    sizes = {"vocab_size": 350, "d_model": 32, "d_ff": 32, "d_kv": 8, "num_layers": 1, "num_heads": 4}
    return transformers.T5ForConditionalGeneration(transformers.T5Config(**sizes))


def test_what_is_no_causal_language_model_is_refused() -> None:
    import transformers

    small = {"vocab_size": 350, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = transformers.BertConfig(**small, intermediate_size=32)
    cases: list[tuple[nn.Module, int, str]] = [
        (transformers.BertModel(config), 340, r"expected logits \(2, 16, 'C'\)"),
        (transformers.BertForSequenceClassification(config), 340, "has it a language-model head"),
        (transformers.BertForMaskedLM(config), 340, "no causal language model"),
        (_t5(), 340, "T5ForConditionalGeneration: is an encoder and a decoder"),
        (language.llama(330), 340, "knows 330 tokens, and the tokenizer 340"),
        (nn.Identity(), 340, "Identity: "),
        (nn.Linear(3, 3), 340, "Linear: failed on a batch of 2 × 16 tokens"),
    ]
    for network, tokens, said in cases:
        with pytest.raises(ModelError, match=said):
            CausalModel(network.eval(), tokens).prepare(IDS.clamp(max=329))


def test_logits_that_are_not_finite_are_said_to_be_so() -> None:
    network = language.llama(350)
    with torch.no_grad():
        network.model.norm.weight[3] = float("nan")
    with pytest.raises(ModelError, match="gives logits that are not finite for the first tokens"):
        CausalModel(network, 340).prepare(IDS)


def test_a_token_that_is_masked_everywhere_is_named() -> None:
    class Masked(Recurrent):
        def forward(self, tokens: Tensor) -> Tensor:
            logits: Tensor = super().forward(tokens)
            return logits.index_fill(2, torch.tensor([7]), -torch.inf)

    with pytest.raises(ModelError, match="gives the token 7 a logit of −inf everywhere, as where tokens are"):
        CausalModel(Masked().eval(), 340).prepare(IDS)


def test_memory_that_runs_out_names_the_batch() -> None:
    class Full(Recurrent):
        def forward(self, tokens: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(
        ModelError, match="ran out of memory on a batch of 2 × 16 tokens; set a smaller tokens_per_batch"
    ):
        CausalModel(Full(), 340).prepare(IDS)


def test_a_network_without_one_linear_head_is_not_called_without_it() -> None:
    from decant.pipeline.language.without_head import WithoutHead

    class Twice(torch.nn.Module):
        """Its head is adapted, by a layer that does nothing yet."""

        def __init__(self) -> None:
            super().__init__()
            self.table, self.base_layer = torch.nn.Embedding(350, 8), torch.nn.Linear(8, 350)
            self.more = torch.nn.Parameter(torch.zeros(350))

        def forward(self, input_ids: Tensor) -> Tensor:
            return self.base_layer(self.table(input_ids)) + self.more

    network = language.llama(350)
    assert WithoutHead(network, 340, IDS).why_not is None
    network.lm_head.forward = network.lm_head.forward
    said = {
        str(WithoutHead(network, 340, IDS).why_not),
        str(WithoutHead(Twice(), 340, IDS).why_not),
        str(WithoutHead(network, 400, IDS).why_not).partition(":")[2],
    }
    assert said == {
        "something calls its head in a way of its own",
        "its head is not one linear layer",
        " knows 350 tokens, and the tokenizer 400; take the tokenizer of this network, or give the network a row for "
        "each token (resize_token_embeddings)",
    }


class Scaled(nn.Linear):
    """A layer that does more than its weight says."""

    def forward(self, states: Tensor) -> Tensor:
        return 3 * super().forward(states)


@pytest.mark.parametrize("by", ["class", "hook"])
def test_a_head_whose_outputs_are_not_those_of_its_weight_is_called(by: str) -> None:
    from decant.pipeline.objectives.chunked import PendingLogits

    torch.manual_seed(0)
    network = Recurrent().eval()
    if by == "class":
        network.head = Scaled(16, 350)
    else:
        network.head.register_forward_hook(lambda layer, given, output: 3 * output)
    model = CausalModel(network, 350)
    model.prepare(IDS)
    found = model.last_layer(model.states(IDS, MASK).flatten(0, 1))
    assert not isinstance(found, PendingLogits)
    torch.testing.assert_close(found, network(IDS).flatten(0, 1))
    assert model.linear_head is None
    with pytest.raises(ModelError, match="no linear layer that makes its logits"):
        model.head()


def test_narrow_logits_are_no_wider_than_float32() -> None:
    """So that a device encodes what a processor does."""
    for dtype, narrow in ((torch.float64, torch.float32), (torch.bfloat16, torch.bfloat16)):
        model = CausalModel(language.llama(350).to(dtype), 340)
        model.prepare(IDS)
        hidden = model.hidden(IDS, MASK).flatten(0, 1)
        assert next(model.narrow_logits(hidden)).dtype == narrow
        assert torch.equal(
            torch.cat(list(model.narrow_logits(hidden))).float(), torch.cat(list(model.logits(hidden)))
        )
