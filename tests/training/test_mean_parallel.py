"""Several ranks that train one language model: parameters that a step leaves out, and what every rank is left with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.extras import needs
from tests.ranks.forked import run_forked

pytestmark = needs("transformers")
VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SIZES = {"vocab_size": 64, "hidden_size": 16, "num_attention_heads": 2}


def network_of(kind: str) -> Any:
    import transformers

    sizes: dict[str, Any] = {
        "ffn_dim": 16,
        "num_hidden_layers": 4,
        "word_embed_proj_dim": 16,
        "layerdrop": 0.5,
    }
    settings = {**SIZES, **sizes}
    if kind == "gemma3":
        text = {"intermediate_size": 32, "num_hidden_layers": 1, "num_key_value_heads": 1, "head_dim": 8}
        settings = {
            "text_config": {**SIZES, **text},
            "vision_config": {**VISION, "image_size": 28, "patch_size": 14},
            "mm_tokens_per_image": 4,
        }
    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(kind, **settings))


def train(kind: str, folder: Path) -> None:
    """Three steps of one of two ranks, of which the first has fewer rows than the other."""
    import torch.distributed as dist

    from decant.pipeline.config.settings import StudentSettings
    from decant.pipeline.language import criteria
    from decant.pipeline.language.blocks import Block
    from decant.pipeline.language.causal_model import CausalModel
    from decant.pipeline.training.group import Group
    from decant.pipeline.training.mean_parallel import MeanParallel

    dist.init_process_group("gloo")
    rank, network = dist.get_rank(), network_of(kind).eval()
    model = CausalModel(network, 64)
    model.prepare(torch.arange(16).reshape(2, 8))
    network.train()

    def call(_: Any, inputs: dict[str, Any], setting: str) -> Any:
        ids = inputs["ids"]
        return model.last_layer(model.states_at([Block(ids, torch.ones_like(ids))], inputs["places"]))

    settings = StudentSettings(network="conv", epochs=1)  # type: ignore[arg-type]
    parallel = MeanParallel(network, settings, Group(rank, 2), call)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for step in range(3):
        parallel.step = step
        count = 6 + 4 * rank
        inputs = {"ids": torch.arange(16).reshape(2, 8) + 16 * rank, "places": torch.arange(count)}
        labels = [torch.arange(count) + step]
        _, own = parallel.terms(criteria.from_labels, inputs, labels, 0.0, 16, "tokens_per_batch")  # type: ignore[arg-type]
        optimizer.zero_grad()
        own.backward()
        optimizer.step()
    torch.save(network.state_dict(), folder / f"{kind}-{rank}.pt")


@pytest.mark.parametrize("kind", ["gemma3", "opt"])
def test_a_step_may_leave_out_parameters(tmp_path: Path, kind: str) -> None:
    """As those of a network for images, where there are none, and of layers that are dropped, others on each rank."""
    configuration = pytest.importorskip("transformers.models.auto.configuration_auto")
    if kind not in configuration.CONFIG_MAPPING:
        pytest.skip(f"this transformers has no {kind}")
    run_forked(2, train, kind, tmp_path, folder=tmp_path)
    one, other = (torch.load(tmp_path / f"{kind}-{rank}.pt") for rank in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
