"""`decant export` of a language model: a folder that `from_pretrained` of the transformers library loads, with its
tokenizer, tried before it is published.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from decant.cache.io.drafts import DRAFT
from decant.cache.io.opening import require_folder
from decant.pipeline.corpus import TokenSamples
from decant.pipeline.corpus.tokenizer import tokenizer_identity
from decant.pipeline.errors import ModelError
from decant.pipeline.language.loading import load_causal
from decant.pipeline.phases.language.finished_teacher import load_teacher
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.runs.locks import alone_with, holder
from decant.pipeline.runs.open import FinishedRun
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.support.plugins import in_words

FORMAT = "transformers"
_TRIED = 8  # samples


@dataclass(frozen=True)
class ExportedModel:
    """The result of an export."""

    folder: Path
    """Of weights, configuration and tokenizer."""
    bytes: int
    """Of its files together."""
    samples: int
    """Of the test part, on which what was loaded from it again was compared with the network."""
    largest_difference: float
    """Of logits."""


def export_language_model(
    run: FinishedRun, formats: Sequence[str] | None = None, output: Path | None = None
) -> ExportedModel:
    """Exports a run to the folder `transformers` in `output`, by default RUN/export. The folder is written beside
    it, loaded again by the library, and compared with the network, in its tokens and its logits, before it takes that
    name.

    Raises ModelError for other formats, where the library cannot write the network, where what it loads again differs,
    and where a folder `transformers` is in `output` already.
    """
    if formats is not None and tuple(formats) != (FORMAT,):
        other = next(name for name in formats if name != FORMAT)
        raise ModelError(
            f"--formats {other}: a language model is exported as a folder of the transformers library alone: --formats "
            f"{FORMAT}"
        )
    target = run.folder / "export" if output is None else output
    if output is None:
        require_folder(target)
    elif (target / FORMAT).exists():
        raise ModelError(f"{target / FORMAT}: is there already; give another --output")
    plan = LanguagePlan.of(run.recipe, run.result.seeds_folder.parent)
    network = load_teacher(run.result) if run.result.kind == "teacher" else load_network(run.result)
    network.eval()
    lock = target if output is None else target / "export"
    with alone_with(lock):
        if output is not None and (target / FORMAT).exists():  # others may have written there since
            raise ModelError(f"{target / FORMAT}: is there already; give another --output")
        target.mkdir(exist_ok=True)
        if holder(lock):  # without locks another process may write one now
            for left in target.glob(f".{FORMAT}-{'?' * 8}{DRAFT}"):  # by an export that was killed
                shutil.rmtree(left, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(DRAFT, f".{FORMAT}-", target))
        try:
            _write(draft, network, plan.data.tokenizer)
            samples, difference = _tried(draft, network, plan.data.tokenizer, plan.data.samples("test"))
            size = sum(file.stat().st_size for file in draft.iterdir())
            draft.chmod(0o755)
            _replace(draft, target / FORMAT)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return ExportedModel(target / FORMAT, size, samples, difference)


def _write(folder: Path, network: Any, tokenizer: Any) -> None:
    try:
        network.save_pretrained(folder, safe_serialization=True)
        tokenizer.save_pretrained(folder)
    except OSError:
        raise
    except Exception as error:  # the library raises errors of its own
        raise ModelError(f"{FORMAT}: the library cannot write it ({in_words(error)})") from error


def _tried(folder: Path, network: nn.Module, tokenizer: Any, samples: TokenSamples) -> tuple[int, float]:
    """How many samples were tried, and the largest difference of two logits. Raises ModelError."""
    loaded = load_causal(str(folder), "float32")
    theirs, ours = tokenizer_identity(loaded.tokenizer), tokenizer_identity(tokenizer)
    changed = [name for name in ours if theirs[name] != ours[name]]
    if changed:
        raise ModelError(f"{FORMAT}: the tokenizer that is loaded again has another {', '.join(changed)}")
    device = next(network.parameters()).device
    again, count, largest = loaded.network.to(device), min(_TRIED, len(samples)), 0.0
    for index in range(count):
        ids = torch.from_numpy(samples.tokens(index))[None].to(device)
        found, expected = _logits(again, ids), _logits(network.float(), ids)
        difference, size = float((found - expected).abs().max()), float(expected.abs().max())
        if not difference <= 1e-4 * max(1.0, size):
            raise ModelError(
                f"{FORMAT}: logits of what is loaded again differ by up to {difference:.3g} on test sample {index}"
            )
        largest = max(largest, difference)
    return count, largest


@torch.inference_mode()
def _logits(network: nn.Module, ids: Tensor) -> Tensor:
    logits: Tensor = network(input_ids=ids).logits
    return logits.float()


def _replace(draft: Path, target: Path) -> None:
    """Gives a whole folder its name; an older one goes away first."""
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    draft.rename(target)
