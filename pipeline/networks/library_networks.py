"""Networks of the transformers library, built from their configurations with fresh weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from torch import nn

from decant.pipeline.errors import ModelError, is_out_of_memory
from decant.pipeline.networks.causal import config_of
from decant.pipeline.networks.library_config import one_line
from decant.pipeline.networks.weight_memory import require_room, weights_size
from decant.pipeline.support.plugins import optional


def build(builder: Any, config: Any) -> nn.Module:
    """The network that the library makes of a configuration, in float32. Raises ModelError."""
    try:
        require_room(weights_size(lambda: builder(config)))
        body: nn.Module = builder(config)
    except ModelError:
        raise
    except Exception as error:  # settings that do not go together end in any error of the library
        if is_out_of_memory(error):
            raise
        kind = "" if isinstance(error, TypeError | ValueError) else f"{type(error).__name__}: "
        raise ModelError(f"{kind}{one_line(error)}") from error
    return body.float()


def build_causal(config: Mapping[str, Any]) -> nn.Module:
    """The language model of a configuration, as `NetworkSpec.args` has it, with fresh float32 weights of torch's global
    generator. No code of a configuration is run. Raises ModelError.
    """
    transformers = optional("transformers", "text", ModelError)
    made = config_of(config)
    kind = functools.partial(transformers.AutoModelForCausalLM.from_config, trust_remote_code=False)
    return build(kind, made)
