"""Whether a network keeps samples of one row apart."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from decant.pipeline.errors import ModelError
from decant.pipeline.language.apart import (
    are_behind_others,
    are_behind_padding,
    are_in_one_row,
    require_apart,
)

POSITIONS = torch.tensor([[0, 1, 2, 0, 1, 2, 3]])
NUMBERS = torch.tensor([[0, 0, 0, 1, 1, 1, 1]])


class Recurrent(nn.Module):
    """A state that begins anew where `seq_idx` changes. Of a row of another length its sums are rounded otherwise, as
    those of a GPU's kernels are.
    """

    def __init__(self, rounding: float = 0.0) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(9, 8), nn.Linear(8, 9)
        self.rounding = rounding

    def forward(self, input_ids: Tensor, seq_idx: Tensor | None = None, **_: Any) -> Any:
        at_each = self.embedding(input_ids)
        state, found = torch.zeros_like(at_each[:, 0]), []
        for place in range(input_ids.shape[1]):
            if seq_idx is not None and place and seq_idx[0, place] != seq_idx[0, place - 1]:
                state = torch.zeros_like(state)
            state = state / 2 + at_each[:, place]
            found.append(state * (1 + self.rounding * input_ids.shape[1]))
        return SimpleNamespace(logits=self.head(torch.stack(found, dim=1)))


def row(**more: Any) -> dict[str, Any]:
    return {"input_ids": torch.arange(7)[None], "position_ids": POSITIONS, **more}


def test_what_a_collator_gives_beside_the_positions_is_used() -> None:
    """As `seq_idx`, by which recurrent layers tell samples apart; of what is not understood nothing is found out."""
    network = Recurrent()
    with pytest.raises(ModelError, match="does not keep samples apart"):
        require_apart(network, row())
    require_apart(network, row(seq_idx=NUMBERS))
    require_apart(network, row(beginnings=torch.tensor([0, 3])))
    with pytest.raises(ModelError, match="does not keep samples apart"):
        require_apart(network, row(seq_idx=torch.zeros_like(NUMBERS)))


def test_a_network_that_sees_the_padding_in_front_of_a_sample_is_refused() -> None:
    """Whatever row of a batch has it. A recurrent one that takes the mask leaves padding out of its state."""
    ids = torch.tensor([[3, 4, 5, 6], [0, 0, 7, 8]])
    mask = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": mask, "position_ids": (mask.cumsum(1) - 1).clamp(min=0)}
    assert are_behind_padding(inputs)
    assert are_behind_others(inputs)
    with pytest.raises(
        ModelError, match=r"Recurrent: sees the padding in front of a sample.*pad on the right"
    ):
        require_apart(Recurrent(), inputs)

    class Masked(Recurrent):
        def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Any) -> Any:  # type: ignore[override]
            at_each, found = self.embedding(input_ids) * attention_mask[..., None], []
            state = torch.zeros_like(at_each[:, 0])
            for place in range(input_ids.shape[1]):
                state = state / 2 + at_each[:, place]
                found.append(state)
            return SimpleNamespace(logits=self.head(torch.stack(found, dim=1)))

    require_apart(Masked(), inputs)
    assert not are_behind_others({"input_ids": ids, "attention_mask": mask.flip(1)}), "behind the sample"
    assert not are_behind_others({"input_ids": ids})
    assert not are_behind_others({"input_ids": ids, "attention_mask": torch.zeros(2, 1, 4, 4)}), "of pairs"


def test_samples_share_a_row_where_positions_begin_again_that_no_mask_has_padded() -> None:
    for positions, shared in (([0, 1, 2, 0, 1], True), ([0, 0, 1], True), ([0, 1, 2], False)):
        assert are_in_one_row({"position_ids": torch.tensor([positions])}) == shared, positions
    for positions, mask in (([1, 1, 0, 1], [0, 0, 1, 1]), ([0, 1, 0, 0], [1, 1, 0, 0])):
        padded = {"position_ids": torch.tensor([positions]), "attention_mask": torch.tensor([mask])}
        assert not are_in_one_row(padded)


def test_a_mask_of_ones_tells_no_samples_apart_that_share_a_row() -> None:
    """Beside it networks of transformers do not heed positions. Padding in front and behind is not taken for one."""
    mask = torch.tensor([[0, 1, 1, 1, 1, 1, 0]])
    positions = torch.tensor([[0, 0, 1, 2, 0, 1, 0]])
    shared = {"input_ids": torch.arange(7)[None], "position_ids": positions, "attention_mask": mask}
    assert are_in_one_row(shared)
    with pytest.raises(ModelError, match="sees the padding"):
        require_apart(Recurrent(), shared)
    shared["attention_mask"] = torch.ones_like(mask)
    shared["position_ids"] = POSITIONS
    assert are_in_one_row(shared)
    with pytest.raises(ModelError, match=r"does not keep samples apart.*or leave out attention_mask"):
        require_apart(Recurrent(), shared)
    require_apart(Recurrent(), {**shared, "seq_idx": NUMBERS})
    several_axes = POSITIONS.expand(3, 1, 7)  # as of images, which have the same place in time
    assert not are_in_one_row({**shared, "position_ids": several_axes})


def test_a_network_that_returns_its_logits_alone_is_tried_too() -> None:
    class Alone(Recurrent):
        def forward(self, input_ids: Tensor) -> Any:  # type: ignore[override]
            return super().forward(input_ids).logits

    with pytest.raises(ModelError, match="does not keep samples apart"):
        require_apart(Alone(), row())


def test_nothing_is_found_out_of_a_network_that_cannot_be_called() -> None:
    network = Recurrent()

    def fail(*_: Any) -> None:
        raise RuntimeError("FlashAttention only supports Ampere GPUs or newer")

    network.register_forward_pre_hook(fail)
    require_apart(network, row())


def test_the_network_is_run_without_autocast_and_without_a_cache_of_its_states() -> None:
    network, ran = Recurrent(), list[tuple[bool, Any]]()
    network.register_forward_pre_hook(
        lambda _, __, named: ran.append((torch.is_autocast_enabled("cpu"), named["use_cache"])),
        with_kwargs=True,
    )
    with torch.autocast("cpu", torch.bfloat16):
        require_apart(network, row(seq_idx=NUMBERS))
    assert ran == [(False, False)] * 2


def test_rows_of_one_length_are_compared_whose_rounding_is_the_same() -> None:
    network = Recurrent(rounding=2**-8)
    require_apart(network, row(seq_idx=NUMBERS))
    with pytest.raises(ModelError, match="does not keep samples apart"):
        require_apart(network, row())


def test_where_samples_begin_is_given_as_it_is_of_the_rows_that_are_compared() -> None:
    """To attention of rows of several lengths. Who does not heed it is refused."""
    network, given = Recurrent(), list[dict[str, Any]]()
    network.register_forward_pre_hook(lambda _, __, named: given.append(named), with_kwargs=True)
    with pytest.raises(ModelError, match="does not keep samples apart"):
        require_apart(network, row(cu_seq_lens_q=torch.tensor([0, 3, 7]), max_length_q=4))
    assert [one["cu_seq_lens_q"].tolist() for one in given] == [[0, 3, 7], [0, 4, 7]]
    assert [one["max_length_q"] for one in given] == [4, 4]


def test_masked_outputs_are_no_difference() -> None:
    network = Recurrent()
    network.head.register_forward_hook(
        lambda _, __, logits: logits.index_fill(-1, torch.tensor([2]), -torch.inf)
    )
    require_apart(network, row(seq_idx=NUMBERS))
    with pytest.raises(ModelError, match="does not keep samples apart"):
        require_apart(network, row())


def test_each_module_is_in_its_mode_again() -> None:
    network = Recurrent()
    network.head.eval()
    require_apart(network, row(seq_idx=NUMBERS))
    assert network.training
    assert not network.head.training
