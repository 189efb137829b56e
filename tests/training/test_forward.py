"""What a network does wrong on a batch is told by its name; what is ours stays what it is."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError
from decant.pipeline.training.forward import forward, name_error, require_batch_of_one


class Body(nn.Module):
    """Outputs (B, 3), or an error."""

    described, num_outputs = "network 'mine:net'", 3

    def __init__(self, error: BaseException | None = None) -> None:
        super().__init__()
        self.error = error

    def forward(self, inputs: Tensor) -> Tensor:
        if self.error is not None:
            raise self.error
        return inputs[:, :3]


def test_outputs_of_the_right_shape_are_passed_on() -> None:
    assert forward(Body(), torch.zeros(2, 4)).shape == (2, 3)
    assert forward(nn.Linear(4, 7), torch.zeros(2, 4)).shape == (2, 7)


def test_memory_that_runs_out_names_the_setting_and_what_stays() -> None:
    gone = Body(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"))
    with pytest.raises(ModelError, match=r"on a batch of 2 .*; set teacher\.batch_size lower$"):
        forward(gone, torch.zeros(2, 4), "teacher.batch_size")
    with pytest.raises(ModelError, match=r"; set cache\.batch_size lower, rows that are written stay$"):
        forward(gone, torch.zeros(2, 4), "cache.batch_size")


def test_memory_that_runs_out_in_a_step_names_the_batch() -> None:
    class Tokens(dict[str, Tensor]):
        described = "2 × 16 tokens"

    said = r"on a batch of 2 × 16 tokens, batch 3 of epoch 1 \(.*\); set student\.tokens_per_batch lower$"
    error, batch = torch.OutOfMemoryError("CUDA out of memory"), Tokens(ids=torch.zeros(2, 16))
    with pytest.raises(ModelError, match=said):
        name_error(error, nn.Linear(1, 1), batch, "failed", "student.tokens_per_batch", "batch 3 of epoch 1")


def test_an_interrupt_is_no_error_of_the_network() -> None:
    with pytest.raises(KeyboardInterrupt):
        forward(Body(KeyboardInterrupt()), torch.zeros(2, 4))


def test_an_error_of_a_network_that_ships_stays_what_it_is() -> None:
    network = Body(TypeError("ours"))
    network.described = "network 'conv'"
    with pytest.raises(TypeError, match="ours"):
        forward(network, torch.zeros(2, 4))


def test_trying_a_batch_of_one_changes_nothing() -> None:
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    require_batch_of_one(network, torch.ones(1, 1, 2, 2), "hint")
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    with pytest.raises(
        ModelError, match=r"layer 0 \(BatchNorm2d\) normalises one value a channel, .*; hint$"
    ):
        require_batch_of_one(network, torch.ones(1, 1, 1, 1), "hint")
