"""A tokenizer of the library transformers: loaded without running code, and what tells it from another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from decant.cache.io.opening import require_file
from decant.pipeline.errors import DataError
from decant.pipeline.support.hub import find_model
from decant.pipeline.support.plugins import optional


def load_tokenizer(name: str, subject: str = "tokenizer") -> Any:
    """A tokenizer by folder, .gguf file or name on the hub; no code of it is run. subject: what a message begins with.

    Raises DataError.

    >>> import tempfile
    >>> from decant.pipeline.corpus.made_tokenizers import byte_tokenizer
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = byte_tokenizer().save_pretrained(folder.name)
    >>> load_tokenizer(folder.name)("a text")["input_ids"]
    [65, 221, 84, 69, 88, 84]
    >>> folder.cleanup()
    """
    transformers = optional("transformers", "text", DataError)
    given = Path(name)
    try:
        folder, options = find_model(name, DataError), {}
        if given.suffix == ".gguf":
            folder, options = str(given.parent), {"gguf_file": given.name}
        for path in sorted(given.iterdir()) if given.is_dir() else ():
            if not path.is_dir():
                require_file(path)  # the library would wait for a pipe
        return transformers.AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:  # a damaged folder ends in any error of the library
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{subject} {name!r}: cannot be loaded ({reason})") from None


def num_ids(tokenizer: Any) -> int:
    """How many ids there are up to the largest; some tokenizers leave out numbers."""
    return max(len(tokenizer), max(tokenizer.get_vocab().values(), default=-1) + 1)


def tokenizer_identity(tokenizer: Any) -> dict[str, Any]:
    """What decides the tokens of a text, each part by its own digest so that a difference has a name.

    `vocabulary`: every token with its id. `model`: the algorithm with its merges or scores. `added_tokens`: with how
    they are cut out of a text. `rules`: normalisation, splitting and special tokens. `chat_template`: null without
    one. `bos` and `eos`: their ids. `special_tokens`: "characters" where those in texts are read so. The padding token
    is none of it: it does not change the tokens of a text.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = {} if backend is None else json.loads(backend.to_str())
    model = {key: value for key, value in content.get("model", {}).items() if key != "vocab"}
    rules = {key: content.get(key) for key in ("normalizer", "pre_tokenizer", "post_processor")}
    if backend is None:
        rules = {"class": type(tokenizer).__name__, "settings": repr(getattr(tokenizer, "init_kwargs", {}))}
    template = getattr(tokenizer, "chat_template", None)
    return {
        "size": num_ids(tokenizer),
        "vocabulary": _sha256(sorted(tokenizer.get_vocab().items())),
        "model": _sha256(model),
        "added_tokens": _sha256(_added(content, tokenizer)),
        "rules": _sha256(rules),
        "chat_template": None if template is None else _sha256(template),
        "bos": getattr(tokenizer, "bos_token_id", None),
        "eos": getattr(tokenizer, "eos_token_id", None),
        **({"special_tokens": "characters"} if splits_special_tokens(tokenizer) else {}),
    }


def splits_special_tokens(tokenizer: Any) -> bool:
    """Whether a tokenizer reads special tokens in texts as characters."""
    return bool(getattr(tokenizer, "split_special_tokens", False))


def _added(content: dict[str, Any], tokenizer: Any) -> Any:
    pad = getattr(tokenizer, "pad_token_id", None)
    special = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    if not content:
        return sorted(map(str, tokenizer.get_added_vocab()))
    # Naming an existing token as the one for padding marks it as special, which changes nothing for texts.
    return [
        token for token in content.get("added_tokens", []) if token["id"] != pad or token["id"] in special
    ]


def _sha256(content: Any) -> str:
    encoded = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True).encode()
    return hashlib.sha256(encoded).hexdigest()[:32]
