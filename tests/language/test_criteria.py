"""The losses of causal students: some positions at a time as all at once, for every encoding and objective."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.helpers.extras import needs

pytestmark = [
    *needs("transformers"),
    pytest.mark.filterwarnings("ignore:.*likely not a trained teacher"),  # of a teacher with fresh weights
]
NAMES = ("kd", "ce+kl", "soft-ce", "js", "rkl", "mse", "nkd", "dkd", "ls")


@pytest.fixture(scope="module")
def caches(samples: Any, teacher: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from decant.encodings import Dense, Sparse
    from decant.language import cache_logits

    folder: Path = tmp_path_factory.mktemp("criteria")
    kinds = {"sparse": Sparse(head=16), "draws": Sparse(0, draws=16), "hidden": "hidden", "dense": Dense()}
    return {
        name: cache_logits(teacher, samples, folder / f"{name}.h5", encoding=kind, show_progress=False)
        for name, kind in kinds.items()
    }


def pending(count: int, outputs: int, **layer: Any) -> Any:
    from decant.pipeline.objectives.chunked import PendingLogits
    from decant.pipeline.objectives.fused.last_layer import LastLayer

    torch.manual_seed(0)
    tensors = torch.randn(count, 8), torch.randn(outputs, 8), torch.randn(outputs)
    return PendingLogits(*(one.requires_grad_() for one in tensors), LastLayer(**layer))


def gradients(found: Any, of: Any) -> list[torch.Tensor]:
    tensors = (of.hidden, of.weight, of.bias)
    return [found.total.detach(), *torch.autograd.grad(found.total, tensors)]


def made(of: Any) -> torch.Tensor:
    z = of.layer.scale * (of.hidden @ of.weight.t()) + of.bias
    cap = of.layer.soft_cap
    return z if cap is None else cap * torch.tanh(z / cap)


def _settings(encoding: str) -> Iterator[tuple[Any, dict[str, Any]]]:
    """The objectives with their settings; z-scores of logits, which some losses make first, are of whole rows."""
    from decant.pipeline.config.objectives import BUILTIN, name_of

    for kind in BUILTIN:
        if name_of(kind) in NAMES:
            more = {"temperature": 1.0} if "temperature" in kind.model_fields else {}
            yield kind, more
            if "standardize" in kind.model_fields and encoding in ("hidden", "dense"):
                yield kind, {**more, "standardize": True}


@pytest.mark.parametrize("layer", [{}, {"scale": 0.5, "soft_cap": 3.0}], ids=str)
@pytest.mark.parametrize("encoding", ["labels", "sparse", "draws", "hidden", "dense"])
def test_some_positions_at_a_time_are_all_at_once(
    caches: dict[str, Any], samples: Any, encoding: str, layer: dict[str, float], monkeypatch: Any
) -> None:
    from decant.pipeline.config.objectives import name_of
    from decant.pipeline.errors import RecipeError
    from decant.pipeline.language import criteria
    from decant.pipeline.language.dataset import targets_of
    from decant.pipeline.objectives import chunked

    indices = np.array([0, 3, 4])
    cache = caches["dense" if encoding == "labels" else encoding]
    labels = np.concatenate([samples.tokens(one)[1:] for one in indices.tolist()])
    outputs = pending(len(labels), cache.num_outputs, **layer)
    rows = (targets_of(cache, indices, labels, 0),)
    monkeypatch.setattr(chunked, "CHUNK", 7 * cache.num_outputs)
    tried = 0
    for kind, more in _settings(encoding):
        try:
            loss = criteria.from_cache(kind(name=name_of(kind), **more), cache)
        except RecipeError:
            continue
        if encoding == "labels":
            loss, rows = criteria.from_labels, ()
        labels_of = torch.from_numpy(labels)
        some = gradients(loss(outputs, labels_of, *rows, progress=0.5), outputs)
        whole = gradients(loss(made(outputs), labels_of, *rows, progress=0.5), outputs)
        for one, other in zip(some, whole, strict=True):
            torch.testing.assert_close(one, other, rtol=2e-4, atol=2e-5, msg=f"{name_of(kind)} {more}")
        tried += 1
    assert tried >= {"labels": 9, "sparse": 6, "draws": 4, "hidden": 10, "dense": 10}[encoding]


def test_no_positions_have_a_loss_of_0() -> None:
    from decant.objectives import kd
    from decant.pipeline.language.criteria import from_labels, of_pending

    labels, loss = torch.zeros(0, dtype=torch.long), of_pending(kd)
    assert loss is not None
    for autocast in (None, torch.float16):
        outputs = replace(pending(0, 20), autocast=autocast)
        for terms in (from_labels(outputs, labels), loss(outputs, torch.zeros(0, 20), labels)):
            assert terms.total.item() == 0
            assert not any(one.any() for one in gradients(terms, outputs))


@pytest.mark.parametrize("name", NAMES)
def test_a_function_as_it_is_has_its_own_defaults(name: str) -> None:
    """The temperature of dense rows is another than that of sparse ones."""
    from functools import partial

    from decant import objectives
    from decant.pipeline.language.criteria import of_pending

    function, outputs = objectives.FUNCTIONS[name], pending(6, 20)
    labels, rows = torch.tensor([3, 1, 0, 5, 5, 19]), 3 * torch.randn(6, 20)
    given = {"kd": {"alpha": 0.5}, "ce+kl": {"weight": 3.0}}.get(name, {})
    for objective in (function, partial(function, **given)):
        loss = of_pending(objective)
        assert loss is not None
        found, whole = loss(outputs, rows, labels), objective(made(outputs), rows, labels)
        torch.testing.assert_close(found.total, whole.total)
        for one, other in ((found.hard, whole.hard), (found.soft, whole.soft)):
            assert (one is None) == (other is None)
            assert one is None or torch.allclose(one, other)
