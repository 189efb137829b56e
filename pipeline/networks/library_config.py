"""Configurations of the transformers library: what a spec keeps of one, without what has the library run code; and
the library without its bars.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from decant.pipeline.errors import ModelError

MOST_LAYERS = 1_000
_UNTOLD = {
    "_name_or_path",
    "architectures",
    "dtype",
    "id2label",
    "label2id",
    "torch_dtype",
    "transformers_version",
}
"""What of a configuration a spec leaves out."""
_CODE = {
    "_attn_implementation",
    "_attn_implementation_internal",
    "_experts_implementation",
    "attn_implementation",
    "auto_map",
    "custom_pipelines",
    "experts_implementation",
    "quantization_config",
    "use_kernels",
}
"""Settings of a configuration by which the library fetches and runs code, such as kernels of the hub."""


_FLOAT = "__float__"
"""The key by which newer versions of the library write a number that JSON does not have, {"__float__": "Infinity"}."""


def kept(config: Any) -> dict[str, Any]:
    """What a spec keeps of the library's object of a configuration, as JSON."""
    text = config.to_json_string(use_diff=False)
    settings = json.loads(text, parse_constant=lambda name: {_FLOAT: name})
    return {key: settings[key] for key in sorted(settings) if key not in _UNTOLD}


def with_numbers(told: Mapping[str, Any]) -> Any:
    """What a spec keeps, with the numbers that JSON does not have."""
    return json.loads(json.dumps(dict(told)), object_hook=_number)


def _number(found: dict[str, Any]) -> Any:
    return float(found[_FLOAT]) if found.keys() == {_FLOAT} else found


def without_code(config: Any) -> Any:
    """A configuration without what has the library fetch code: it may come from the hub, or from a run folder."""
    if not isinstance(config, dict):
        return config
    return {name: without_code(value) for name, value in config.items() if name not in _CODE}


def require_not_deep(config: Mapping[str, Any]) -> None:
    """Raises ModelError for more layers than any network has, which would take long to make."""
    deep = next((key for key, value in config.items() if "layers" in key and _is_deep(value)), None)
    if deep is not None:
        raise ModelError(f"{deep} must be at most {MOST_LAYERS:,}, got {config[deep]}")


@contextlib.contextmanager
def quiet(transformers: Any) -> Iterator[None]:
    """Without the library's bars, and its word on a fresh last layer."""
    log = transformers.utils.logging
    level, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bar:
            log.enable_progress_bar()


def one_line(error: Exception) -> str:
    """The words of an error."""
    return " ".join(str(error).split()) or type(error).__name__


def _is_deep(value: object) -> bool:
    return isinstance(value, int | float) and value > MOST_LAYERS
