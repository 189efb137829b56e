"""A student of some of its teacher's layers is the teacher without the others."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from decant.language import cut_layers
from decant.pipeline.errors import ModelError
from tests.helpers import language
from tests.language.test_causal_model import IDS, of_library


def gpt2() -> Any:
    import transformers

    sizes = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=350, **sizes)).eval()


@pytest.mark.parametrize("kind", ["llama", "tied", "gpt2", "layers of two kinds"])
@pytest.mark.parametrize("layers", [[0, 1, 2, 3], [0, 2], [3, 1], [1, 1]], ids=str)
def test_a_cut_network_is_the_teacher_without_the_other_layers(kind: str, layers: list[int]) -> None:
    torch.manual_seed(0)
    teacher = {
        "llama": lambda: language.llama(350, num_hidden_layers=4),
        "tied": lambda: language.llama(350, num_hidden_layers=4, tie_word_embeddings=True),
        "gpt2": gpt2,
        "layers of two kinds": lambda: of_library(
            "Gemma2", num_hidden_layers=4, query_pre_attn_scalar=8, sliding_window=4
        ),
    }[kind]()
    before = copy.deepcopy(teacher.state_dict())
    student = cut_layers(teacher, layers)
    body = teacher.get_submodule("transformer" if kind == "gpt2" else "model")
    name = "h" if kind == "gpt2" else "layers"
    expected = copy.deepcopy(teacher)
    whole = getattr(body, name)
    if kind == "layers of two kinds":  # what a layer sees is said by the configuration
        assert student.config.layer_types == [teacher.config.layer_types[layer] for layer in layers]
        expected.model.config.layer_types = student.config.layer_types
    expected.config.num_hidden_layers = len(layers)
    inner = expected.transformer if kind == "gpt2" else expected.model
    setattr(inner, name, nn.ModuleList(copy.deepcopy(whole[layer]) for layer in layers))
    with torch.inference_mode():
        ours, theirs = (network(input_ids=IDS, use_cache=False).logits for network in (student, expected))
    assert torch.equal(ours, theirs)
    for key, value in teacher.state_dict().items():
        assert torch.equal(value, before[key])
    with torch.no_grad():
        next(student.parameters()).zero_()
    assert torch.equal(next(iter(teacher.state_dict().values())), next(iter(before.values()))), (
        "weights are shared"
    )


def test_what_cannot_be_cut_is_refused() -> None:
    teacher = language.llama(350)
    cases: list[tuple[nn.Module, list[int], str]] = [
        (teacher, [], "layers: expected numbers from 0 to 1, found"),
        (teacher, [2], "layers: expected numbers from 0 to 1, found"),
        (nn.Linear(2, 2), [0], "has no config.num_hidden_layers"),
    ]
    for network, layers, said in cases:
        with pytest.raises(ModelError, match=said):
            cut_layers(network, layers)


def test_a_student_of_a_teacher_from_a_quantised_file_is_saved_as_what_it_is(tmp_path: Path) -> None:
    teacher = language.llama(350)
    teacher.config.quantization_config = {"quant_method": "gguf", "gguf_file": "teacher.gguf"}
    cut_layers(teacher, [1]).save_pretrained(tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())


def test_layers_whose_kind_goes_by_their_number_keep_it_or_are_refused() -> None:
    """Of a mixture of experts whose first layer has none."""
    import transformers

    sizes = {"hidden_size": 16, "intermediate_size": 32, "moe_intermediate_size": 8, "head_dim": 8}
    more = {"num_attention_heads": 2, "num_key_value_heads": 1, "num_experts": 2, "num_experts_per_tok": 1}
    config = {**sizes, **more, "vocab_size": 350, "num_hidden_layers": 4}
    kind = transformers.Qwen3MoeForCausalLM
    teacher = kind(transformers.Qwen3MoeConfig(**config, mlp_only_layers=[0, 2]))
    for layers, dense in (([0, 3], [0]), ([1, 2], [1]), ([1, 3], [])):
        student = cut_layers(teacher, layers)
        assert student.config.mlp_only_layers == dense
        for ours, theirs in zip(student.model.layers, layers, strict=True):
            assert type(ours.mlp) is type(teacher.model.layers[theirs].mlp)
    alternating = kind(transformers.Qwen3MoeConfig(**config, mlp_only_layers=[], decoder_sparse_step=2))
    with pytest.raises(
        ModelError, match=r"its layers 0, 2 cannot be the layers of a network of 2, .* decides its kind"
    ):
        cut_layers(alternating, [0, 2])
