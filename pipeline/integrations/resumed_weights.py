"""The weights of a checkpoint that a Trainer of transformers goes on from, all of them.

A model of transformers may be saved with the names that its weights have on the hub, which are not always those of its
modules. `from_pretrained` knows both; a Trainer loads by the names of the modules, and leaves what it does not find as
it is, with a line in the log. A training that goes on so has fresh weights among its own.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn
from transformers import PreTrainedModel

from decant.pipeline.errors import WeightsError


def not_loaded(model: nn.Module, missing: Iterable[str]) -> list[str]:
    """The names among `missing` whose weights are none of those that were loaded, as those of a tied head are."""
    names = set(missing)
    state = {name: value for name, value in model.state_dict().items() if isinstance(value, Tensor)}
    loaded = {value.data_ptr() for name, value in state.items() if name not in names}
    left_out = set(getattr(model, "_keys_to_ignore_on_save", None) or ())
    return [name for name in state if name in names - left_out and state[name].data_ptr() not in loaded]


def load_by_other_names(model: nn.Module, folder: str, lacking: list[str]) -> None:
    """Loads what `save_pretrained` has written to `folder`, whatever names it wrote.

    Raises WeightsError where weights are missing all the same.
    """
    if isinstance(model, PreTrainedModel):
        found, about = type(model).from_pretrained(folder, output_loading_info=True)
        lacking = not_loaded(found, about["missing_keys"])
        if not lacking:
            model.load_state_dict(found.state_dict())
            return
    raise WeightsError(
        f"{folder}: has no {lacking[0]}, of {len(lacking):,} weights that it lacks: the training would go on with "
        "fresh ones; it is of another model"
    )
