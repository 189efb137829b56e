"""The harmless types that lie beside the weights in many a checkpoint: allowed by name, and never built.

`torch.load(weights_only=True)` refuses every type that it does not know. Those listed here are let through, but each
becomes a `StandIn`, which keeps nothing but its name. So a file that somebody was sent runs no code, of NumPy, pathlib
or anything else, and a Windows path loads on Linux too. Nothing else is ever unpickled.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch

_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath")
_NUMPY_SCALARS = (
    *("bool", "bool_", "str_", "bytes_", "datetime64", "timedelta64", "float16", "float32", "float64"),
    *(f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)),
)

HARMLESS = frozenset(
    {
        *(
            f"builtins.{name}"
            for name in ("bool", "bytes", "dict", "float", "frozenset", "int", "list", "object")
        ),
        *(f"builtins.{name}" for name in ("range", "slice", "str", "tuple")),
        *(f"datetime.{name}" for name in ("date", "datetime", "time", "timedelta", "timezone")),
        *(f"{module}.{name}" for module in ("pathlib", "pathlib._local") for name in _PATHS),
        *(f"numpy.{name}" for name in ("dtype", "ndarray", *_NUMPY_SCALARS)),
        *(
            f"numpy.{core}.multiarray.{name}"
            for core in ("core", "_core")
            for name in ("scalar", "_reconstruct")
        ),
        "argparse.Namespace",
        "decimal.Decimal",
        "fractions.Fraction",
        "torch.torch_version.TorchVersion",
        "types.SimpleNamespace",
        "uuid.UUID",
    }
)
"""Full names of what may lie beside weights; `collections.deque` and `defaultdict` become a list and a dict."""


class StandIn:
    """What a file makes of a harmless type: it takes any arguments and any state, and does nothing with them."""

    stands_for = ""

    def __new__(cls, *args: object, **kwargs: object) -> StandIn:
        return object.__new__(cls)

    def __init__(self, *args: object, **kwargs: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class ScriptObject(StandIn):
    """A module or other object of a TorchScript archive: its attributes by name, none of its code."""

    attributes: dict[object, object] = {}  # noqa: RUF012 - of one without state, and never changed

    def __setstate__(self, state: object) -> None:
        self.attributes = state if isinstance(state, dict) else {}


def _new_dict(*args: object) -> dict[object, object]:
    return {}


def _new_list(*args: object) -> list[object]:
    return []


def _stand_in(name: str, parent: type[StandIn] = StandIn) -> tuple[type[StandIn], str]:
    return type("StandIn", (parent,), {"stands_for": name}), name


_ALLOWED: list[tuple[Callable[..., Any], str]] = [
    *(_stand_in(name) for name in sorted(HARMLESS)),
    (_new_dict, "collections.defaultdict"),
    (_new_list, "collections.deque"),
]


@contextlib.contextmanager
def allowed(script_types: tuple[str, ...] = ()) -> Iterator[None]:
    """Lets `torch.load(weights_only=True)` take the harmless types, and nothing that the process allowed elsewhere.

    `script_types` are the names of a TorchScript archive's own types, which become `ScriptObject`.
    """
    before = torch.serialization.get_safe_globals()
    torch.serialization.clear_safe_globals()
    scripts = [_stand_in(name, ScriptObject) for name in script_types]
    torch.serialization.add_safe_globals([*_ALLOWED, *scripts])
    try:
        yield
    finally:
        torch.serialization.clear_safe_globals()
        torch.serialization.add_safe_globals(before)
