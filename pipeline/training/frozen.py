"""Layers that are not trained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from decant.pipeline.errors import ModelError, nearest

_BATCH_NORM = nn.modules.batchnorm._BatchNorm


def freeze(network: nn.Module, names: Sequence[str], setting: str) -> list[nn.Module]:
    """Has the parameters below these names need no gradient; returns the batch normalisation among them, which must
    stay in evaluation mode. `body.`, which stands before every name, may be left out.

    Raises ModelError, beginning with `setting`, for a name without such layers, and where nothing is left to train.

    >>> network = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 1))
    >>> [type(module).__name__ for module in freeze(network, ["0", "1"], "teacher.freeze")]
    ['BatchNorm1d']
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['2.weight', '2.bias']
    """
    parameters = dict(network.named_parameters())
    norms = {path: module for path, module in network.named_modules() if isinstance(module, _BATCH_NORM)}
    frozen = set[str]()
    for name in names:
        found = {path for path in (*parameters, *norms) if _lies_in(path, name)}
        if not found:
            known = {path.removeprefix("body.") for path in _places(parameters)}
            hint = nearest(name.removeprefix("body."), known)
            if not hint.startswith("did"):
                hint = f"the first are {', '.join(list(dict.fromkeys(_places(parameters)))[:5])}"
            raise ModelError(f"{setting}: the network has no layer {name!r}; {hint}")
        frozen |= found
    for path in frozen & parameters.keys():
        parameters[path].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in parameters.values()):
        raise ModelError(f"{setting}: leaves nothing to train")
    return [module for path, module in norms.items() if path in frozen or _all_frozen(path, module, frozen)]


def _all_frozen(path: str, module: nn.Module, frozen: set[str]) -> bool:
    own = [f"{path}.{name}" for name, _ in module.named_parameters()]
    return bool(own) and frozen.issuperset(own)


def _lies_in(path: str, name: str) -> bool:
    return any(f"{one}.".startswith(f"{name}.") for one in (path, path.removeprefix("body.")))


def _places(parameters: dict[str, nn.Parameter]) -> Iterator[str]:
    """Every name that a parameter lies below."""
    for path in parameters:
        parts = path.removeprefix("body.").split(".")
        for end in range(1, len(parts) + 1):
            yield ".".join(parts[:end])
