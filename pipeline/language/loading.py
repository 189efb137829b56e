"""Causal language models of transformers from a folder, a GGUF file or the hub, with their tokenizers."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from decant.cache.io.opening import require_file
from decant.pipeline.corpus import load_tokenizer
from decant.pipeline.errors import ModelError, WeightsError
from decant.pipeline.networks.library_config import quiet
from decant.pipeline.support.hub import find_model
from decant.pipeline.support.plugins import in_words, optional

_GGUF = ".gguf"
_OTHER_KIND = re.compile(
    r"Unrecognized configuration class <class '[^']*\.(\w+?)(Config)?'> for this kind of"
)


class Loaded(NamedTuple):
    """A network in evaluation mode, and its tokenizer."""

    network: nn.Module
    tokenizer: Any


def load_causal(name: str, dtype: str = "auto") -> Loaded:
    """A causal language model from a folder, a .gguf file, or the hub, and its tokenizer. No code of it is run, and
    weights are read from safetensors or GGUF alone.

    dtype: of the weights, as "float32" or "bfloat16"; "auto" is that of the file. GGUF weights are float32, and need
    the libraries gguf and accelerate.

    Raises ModelError where there is none, or it has no language-model head; WeightsError, DataError.

    >>> import tempfile
    >>> from transformers import LlamaConfig, LlamaForCausalLM
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer
    >>> folder = tempfile.TemporaryDirectory()
    >>> sizes = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "num_hidden_layers": 1}
    >>> LlamaForCausalLM(LlamaConfig(vocab_size=257, **sizes)).save_pretrained(folder.name)
    >>> _ = byte_tokenizer().save_pretrained(folder.name)
    >>> network, tokenizer = load_causal(folder.name)
    >>> type(network).__name__, len(tokenizer)
    ('LlamaForCausalLM', 257)
    >>> folder.cleanup()
    """
    network = load_causal_network(name, dtype)
    return Loaded(network, load_tokenizer(name))


def load_causal_network(name: str, dtype: str = "auto") -> nn.Module:
    """The network of `load_causal` alone: its folder needs no tokenizer. Raises ModelError and WeightsError."""
    transformers = optional("transformers", "text", ModelError)
    path = Path(name)
    for file in sorted(path.iterdir()) if path.is_dir() else ():
        if not file.is_dir():
            require_file(file)  # the library would wait for a pipe
    options: dict[str, Any] = {_dtype_name(transformers): dtype, "use_safetensors": True}
    if path.suffix == _GGUF:
        _require_gguf(name)
    _require_peft(path)
    try:
        folder = find_model(name, WeightsError)
        if path.suffix == _GGUF:
            folder, options = str(path.parent), {"gguf_file": path.name}
        with quiet(transformers):
            network, info = transformers.AutoModelForCausalLM.from_pretrained(
                folder, trust_remote_code=False, output_loading_info=True, **options
            )
    except Exception as error:  # a damaged folder ends in any error of the library
        reason = error if isinstance(error, WeightsError) else _reason(error)
        raise WeightsError(f"{name}: cannot be loaded as a causal language model ({reason})") from error
    missing = sorted(info["missing_keys"])
    if missing or info["mismatched_keys"]:
        lacking = missing[0] if missing else str(info["mismatched_keys"][0])
        raise ModelError(
            f"{name}: {lacking} is not among its weights, and would be random: it has no language-model head, or is "
            "another network"
        )
    evaluated: nn.Module = network.eval()
    return evaluated


def _reason(error: Exception) -> str:
    """An error of the library in one line, which says of what kind a network is that is not of this one."""
    other = _OTHER_KIND.match(str(error))
    return f"{other[1]} is of another kind of network" if other else in_words(error)


def _require_peft(folder: Path) -> None:
    """Raises ModelError for a folder with an adapter where nothing can apply it: the library would load what else is in
    the folder, without it.
    """
    if (folder / "adapter_config.json").is_file() and importlib.util.find_spec("peft") is None:
        raise ModelError(
            f"{folder}: holds an adapter (adapter_config.json), which the library peft applies: pip install peft, or "
            "merge it into its network first, by merge_and_unload()"
        )


def _require_gguf(name: str) -> None:
    missing = [library for library in ("gguf", "accelerate") if importlib.util.find_spec(library) is None]
    if missing:
        raise ModelError(
            f"{name}: {' and '.join(missing)} not installed; run: pip install {' '.join(missing)}"
        )


def _dtype_name(transformers: Any) -> str:
    """What the library calls the dtype of weights, which changed in 4.56."""
    major, minor = (int(part) for part in transformers.__version__.split(".")[:2])
    return "dtype" if (major, minor) >= (4, 56) else "torch_dtype"
