"""A network on disk: all that builds it again is beside its weights."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import torch

from decant.pipeline.config.settings import Network
from decant.pipeline.errors import ModelError, WeightsError
from decant.pipeline.networks.build import build_network, num_parameters, specify_network
from decant.pipeline.networks.causal import config_of, cut_config, specify_causal
from decant.pipeline.networks.spec import CAUSAL
from decant.pipeline.networks.weight_memory import weights_size
from decant.pipeline.networks.weights import weights_sha256
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.runs.result import WEIGHTS
from decant.pipeline.runs.saved_network import load_network
from tests.helpers.extras import needing
from tests.helpers.small import recipe, teach


def test_a_finished_network_is_built_again_with_its_weights(tmp_path: Path) -> None:
    result = teach(tmp_path)
    network = load_network(result)
    assert weights_sha256(network.state_dict()) == result.weights_sha256
    assert num_parameters(network) == result.parameters
    assert (result.folder / WEIGHTS).stat().st_size == result.weights_bytes
    with safetensors.safe_open(result.folder / WEIGHTS, framework="pt") as file:
        assert json.loads(file.metadata()["network"])["name"] == "conv"


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    result = teach(tmp_path)
    content = bytearray((result.folder / WEIGHTS).read_bytes())
    content[-1] ^= 1
    (result.folder / WEIGHTS).write_bytes(content)
    with pytest.raises(WeightsError, match="not the weights that"):
        load_network(result)


def test_the_seed_decides_the_initial_weights() -> None:
    settings = recipe().settings
    spec = specify_network(settings.student.network, Splits.load(settings).student_train)
    first, again, other = build_network(spec, 3), build_network(spec, 3), build_network(spec, 4)
    digests = [weights_sha256(network.state_dict()) for network in (first, again, other)]
    assert digests[0] == digests[1] != digests[2]


def test_inputs_are_normalised_by_the_statistics_of_the_training_part() -> None:
    settings = recipe().settings
    train = Splits.load(settings).student_train
    spec = specify_network(settings.student.network, train)
    scaled = torch.from_numpy(train.data.raw(range(len(train)))).double() / 255  # type: ignore[arg-type]
    assert spec.mean == pytest.approx([float(scaled.mean())], abs=1e-5)
    assert spec.std == pytest.approx([float(scaled.std(unbiased=False))], abs=1e-5)


def test_a_mean_and_std_among_the_arguments_are_those_of_weights_from_elsewhere() -> None:
    settings = recipe("student.network.mean=[0.5]", "student.network.std=[1]").settings
    spec = specify_network(settings.student.network, Splits.load(settings).student_train)
    assert (spec.mean, spec.std) == ((0.5,), (1.0,))
    assert spec.args == {"hidden": 32, "layers": 1}, "the builder is not asked for them"


@pytest.mark.parametrize("value", ["0.5", '["a"]', "[true]"])
def test_a_mean_that_is_no_list_of_numbers_is_refused(value: str) -> None:
    settings = recipe(f"student.network.mean={value}").settings
    with pytest.raises(ModelError, match=r"network 'mlp': mean: expected a list, a number a channel, got"):
        specify_network(settings.student.network, Splits.load(settings).student_train)


TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}


@needing("transformers")
def test_a_language_model_with_an_infinite_setting_is_built() -> None:
    """As Mamba 2, Falcon-H1, Bamba, Nemotron-H and Granite's hybrids have: no step of time is too long."""
    sizes = {"hidden_size": 32, "num_heads": 4, "head_dim": 16, "state_size": 8, "n_groups": 1}
    network = Network(name="mamba2", num_hidden_layers=1, **sizes)
    spec = specify_causal(network, 300, 16, TOKENS, None)
    again = replace(spec, args=json.loads(json.dumps(spec.args, allow_nan=False)))
    assert build_network(again).config.time_step_limit[1] == float("inf")


@needing("transformers")
def test_lists_that_are_not_of_layers_stay_whole_where_layers_are_as_many() -> None:
    spec = specify_causal(Network(name="falcon_h1", num_hidden_layers=2), 300, 16, TOKENS, None)
    config = config_of(spec.args[CAUSAL])
    cut = cut_config(config, 2, [0])
    assert (cut.mlp_multipliers, cut.time_step_limit) == (config.mlp_multipliers, config.time_step_limit)


@needing("transformers")
def test_settings_with_which_the_library_builds_no_network_are_refused() -> None:
    with pytest.raises(ModelError, match="network 'reformer': AssertionError: If you want to use"):
        build_network(specify_causal(Network(name="reformer"), 300, 16, TOKENS, None))
    with pytest.raises(ModelError, match=r"it cannot be built \(unsupported operand"):
        weights_size(lambda: torch.nn.Linear(2 // None, 2))  # type: ignore[operator]
