"""What of a language model's configuration decides its logits."""

from __future__ import annotations

import json
from typing import Any

_SETTINGS = (
    "model_type",
    "rope_theta",
    "rope_parameters",
    "rope_scaling",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "sliding_window",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "logits_scaling",
    "logit_scale",
)
"""What of a configuration decides logits, and is not in the weights."""


def deciding_settings(config: Any) -> dict[str, Any]:
    """The settings of a configuration of transformers that decide logits, and are not in the weights; none without one.

    >>> from types import SimpleNamespace
    >>> deciding_settings(SimpleNamespace(num_attention_heads=4, vocab_size=9))
    {'num_attention_heads': 4}
    """
    found = {key: value for key in _SETTINGS if (value := getattr(config, key, None)) is not None}
    return dict(json.loads(json.dumps(found, default=str)))
