"""`cache_logits`: any teacher, found again, never replaced, gone on with, and in parts."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset

import decant
from decant.cache import (
    CacheWarning,
    LogitCache,
    LogitCacheWriter,
    MismatchError,
    StorageError,
    ValueRefusedError,
)
from decant.pipeline.errors import DataError, ModelError
from decant.pipeline.own_loop.caching import Estimate
from decant.pipeline.own_loop.labels import Labels
from decant.pipeline.own_loop.transforms import name_of
from tests.helpers.caches import leftovers
from tests.helpers.commands import fork_python
from tests.helpers.processes import finished

pytestmark = pytest.mark.filterwarnings("ignore:.*likely not a trained teacher")

N, C = 37, 3
DATA = TensorDataset(
    5 * torch.eye(C)[torch.arange(N) % C] + 0.01 * torch.arange(N)[:, None], torch.arange(N) % C
)


def noisy(x: torch.Tensor) -> torch.Tensor:
    return x + 0.1 * torch.randn(C)


def views(count: int = 2, **more: Any) -> decant.Views:
    return decant.Views(DATA, noisy, count=count, **more)


def linear(seed: int = 0) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(C, C)


@dataclass
class ModelOutput:
    """As those of transformers are."""

    logits: torch.Tensor
    hidden: torch.Tensor


RETURNS: dict[str, Callable[[torch.Tensor], Any]] = {
    "a tensor": lambda logits: logits,
    "half precision": lambda logits: logits.bfloat16(),
    "with a gradient": lambda logits: logits.clone().requires_grad_(),
    "a tuple": lambda logits: (logits, torch.zeros(len(logits), 4, 4)),
    "a dictionary": lambda logits: {"loss": torch.zeros(()), "logits": logits},
    "a dictionary of other names": lambda logits: {"loss": torch.zeros(()), "scores": logits},
    "an output of transformers": lambda logits: ModelOutput(logits, torch.zeros(len(logits), 7)),
}


@pytest.mark.parametrize("returns", RETURNS)
def test_logits_are_found_in_what_a_teacher_returns(returns: str, tmp_path: Path) -> None:
    with torch.inference_mode(False):
        teacher = lambda x: RETURNS[returns](3 * x)  # noqa: E731
        cache = decant.cache_logits(teacher, views(), tmp_path / "a.h5", name="mine", batch_size=8)
    expected = torch.stack([3 * views()[index, 1][0] for index in range(N)])
    closeness = 2**-7 if returns == "half precision" else 2**-10
    assert np.allclose(cache.logits(slice(None), view=1), expected, rtol=closeness, atol=closeness)


def test_what_is_ambiguous_is_asked_for(tmp_path: Path) -> None:
    def two(x: torch.Tensor) -> Any:
        return {"first": x, "second": 2 * x}

    with pytest.raises(
        ModelError, match=r"2 values can be logits \(2, C\): 'first', 'second'; say which: output="
    ):
        decant.cache_logits(two, views(), tmp_path / "a.h5", name="two")
    for file, output in (("b.h5", "second"), ("own.h5", lambda returned: returned["second"])):
        for _ in range(2):
            cache = decant.cache_logits(two, views(), tmp_path / file, name="two", output=output)
        assert np.allclose(cache.logits(5), 2 * views()[5, 0][0], rtol=2**-10)
    with pytest.raises(MismatchError, match=r"teacher.output: expected 'first', found 'second'"):
        decant.cache_logits(two, views(), tmp_path / "b.h5", name="two", output="first")
    with pytest.raises(MismatchError, match=r"teacher.collate"):
        decant.cache_logits(
            two, views(), tmp_path / "b.h5", name="two", output="second", collate=lambda x: torch.stack(x) / 2
        )
    with pytest.raises(ModelError, match=r"output='third': not in what it returned, a dict of first, second"):
        decant.cache_logits(two, views(), tmp_path / "c.h5", name="two", output="third")
    with pytest.raises(
        ValueError, match=r"has no weights by which it could be told from another; give .* a name"
    ):
        decant.cache_logits(two, views(), tmp_path / "c.h5")


def test_outputs_that_are_no_rows_of_logits_are_told_what_to_do(tmp_path: Path) -> None:
    for returned, says in (
        (lambda x: x.sum(1), r"found float32 \(2,\); of one number a sample make \(B, 1\): output=lambda"),
        (lambda x: x[..., None, None], r"found float32 .*; rows of tokens, frames or pixels are written by"),
        (lambda x: {"out": x[..., None]}, r"0 values can be logits .*; rows of tokens, frames or pixels"),
        (lambda x: {"loss": x.mean()}, r"0 values can be logits .*; say which part of what it returns"),
    ):
        with pytest.raises(ModelError, match=says):
            decant.cache_logits(returned, views(), tmp_path / "a.h5", name="mine")
    with pytest.raises(
        ValueRefusedError, match=r"logit -inf .* logarithm of a probability of 0, which log\(p"
    ):
        decant.cache_logits(lambda x: (0 * x).log(), views(), tmp_path / "a.h5", name="mine")


def test_named_inputs_are_keywords_of_the_teacher(tmp_path: Path) -> None:
    class Texts:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Any:
            return {"ids": torch.tensor([index, 2]), "mask": torch.ones(2), "label": index % 2}

    def teacher(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return ids * mask

    cache = decant.cache_logits(teacher, Texts(), tmp_path / "a.h5", name="sum")
    assert cache.logits([3, 8]).tolist() == [[3, 2], [8, 2]]
    assert cache.manifest.info["item_keys"] == [["ids", "mask"], "label"]
    train = decant.SoftLabelDataset(Texts(), cache, check_inputs="all")
    assert train[4]["teacher_logits"].tolist() == [4, 2]


def test_a_teacher_gets_its_modes_and_gradients_back(tmp_path: Path) -> None:
    teacher = nn.Sequential(linear(), nn.Dropout(0.9), nn.BatchNorm1d(C), nn.Linear(C, C))
    teacher.train()
    teacher[2].eval()  # frozen, as in fine-tuning
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    cache = decant.cache_logits(teacher, views(), tmp_path / "a.h5")
    assert [module.training for module in teacher.modules()] == [True, True, True, False, True]
    assert torch.equal(torch.random.get_rng_state(), before)
    teacher.eval()
    with torch.no_grad():
        assert np.allclose(cache.logits(9, view=1), teacher(views()[9, 1][0][None])[0], atol=2**-8)


def test_what_was_cached_is_found_and_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "teacher.h5"
    decant.cache_logits(linear(), views(), path)
    content, calls = path.read_bytes(), []

    class Counted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            calls.append(len(x))
            return super().forward(x)

    decant.cache_logits(linear(), views(), path, batch_size=5)
    counted = Counted(C, C)
    counted.load_state_dict(linear().state_dict())
    for other, field in (
        ((linear(1), views()), r"teacher\.weights_sha256: the teacher has other weights"),
        ((counted, views()), r"teacher\.network\.name"),
        ((linear(), views(seed=1)), r"views\.seed"),
        ((linear(), views(count=3)), r"views\.count"),
        (
            (linear(), decant.Views(DATA, lambda x: x + 0.1 * torch.randn(C), count=2)),
            r"views\.code: code that the transform or the dataset names was edited",
        ),
        (
            (linear(), decant.Views(TensorDataset(DATA.tensors[0] + 1, DATA.tensors[1]), noisy, count=2)),
            r"data\.digest: labels, or tensors of the dataset, are others\.\nviews\.probes: some inputs are others",
        ),
    ):
        with pytest.raises(MismatchError, match=rf"holds other logits than are asked for:(.|\n)*{field}"):
            decant.cache_logits(*other, path)
    with pytest.raises(
        MismatchError, match=r"encoding\.teacher_precision: expected 'bfloat16', found 'float32'"
    ):
        decant.cache_logits(linear(), views(), path, precision="bfloat16")
    assert path.read_bytes() == content
    assert calls == []


class Scaled(nn.Module):
    """What no weight shows: a number, an activation and a hook."""

    def __init__(self, by: float = 1.0, activation: nn.Module | None = None) -> None:
        super().__init__()
        self.inner, self.by = nn.Sequential(linear(), activation or nn.ReLU(), linear(1)), by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) / self.by


def hooked(teacher: nn.Module) -> nn.Module:
    teacher.register_forward_hook(lambda module, given, logits: logits.flip(1))
    return teacher


def exported(teacher: nn.Module) -> nn.Module:
    batch = {"x": {0: torch.export.Dim("batch", min=1)}}
    return torch.export.export(teacher, (torch.zeros(2, C),), dynamic_shapes=batch).module()


def run(teacher: nn.Module) -> Callable[[torch.Tensor], Any]:
    """A function, of which nobody sees the weights."""
    return lambda x: teacher(x)


def named(function: Callable[[torch.Tensor], Any]) -> dict[str, Any]:
    return {"teacher": function, "name": "a session of another runtime"}


CHANGED: dict[str, tuple[Callable[[], Any], Callable[[], Any], str]] = {
    "a temperature": (Scaled, lambda: Scaled(4.0), "apart, of at most"),
    "an activation": (Scaled, lambda: Scaled(activation=nn.Tanh()), "apart, of at most"),
    "a hook": (Scaled, lambda: hooked(Scaled()), "apart, of at most"),
    "an exported graph": (
        lambda: exported(Scaled()),
        lambda: exported(Scaled(2.0)),
        "apart, of at most",
    ),
    "what is behind a name": (
        lambda: named(run(linear())),
        lambda: named(run(linear(1))),
        "apart, of at most",
    ),
    "the number of outputs behind a name": (
        lambda: named(run(linear())),
        lambda: named(lambda x: torch.cat([x, x], 1)),
        "gives 6 outputs, and the file has 3",
    ),
    "to no number": (lambda: named(run(linear())), lambda: named(lambda x: x * torch.nan), "are not finite"),
}


def given(teacher: Any) -> dict[str, Any]:
    return teacher if isinstance(teacher, dict) else {"teacher": teacher}


@pytest.mark.parametrize("changed", CHANGED)
def test_a_teacher_that_no_weight_tells_from_another_is_found_out_by_what_it_says(
    changed: str, tmp_path: Path
) -> None:
    before, after, why = CHANGED[changed]
    path = tmp_path / "teacher.h5"
    decant.cache_logits(**given(before()), views=views(), path=path)
    content = path.read_bytes()
    assert decant.cache_logits(**given(before()), views=views(), path=path, batch_size=1).num_samples == N
    with pytest.raises(MismatchError, match=rf"teacher\.h5: holds what another teacher says: (.|\n)*{why}"):
        decant.cache_logits(**given(after()), views=views(), path=path)
    assert path.read_bytes() == content


ENCODINGS = [
    decant.encodings.Dense("float32"),
    decant.encodings.Quantised(),
    decant.encodings.Sparse(2),
    decant.encodings.Sparse(1, draws=1),
]


@pytest.mark.parametrize("encoding", ENCODINGS, ids=str)
def test_the_same_holds_of_every_encoding_and_in_half_precision(
    encoding: decant.encodings.Encoding, tmp_path: Path
) -> None:
    path, teacher = tmp_path / "teacher.h5", Scaled()
    for _ in range(2):
        decant.cache_logits(teacher, views(), path, encoding=encoding, precision="bfloat16")
    teacher.by = 4.0
    with pytest.raises(MismatchError, match="holds what another teacher says"):
        decant.cache_logits(teacher, views(), path, encoding=encoding, precision="bfloat16")


def test_a_pass_does_not_go_on_with_another_teacher(tmp_path: Path) -> None:
    path, teacher = tmp_path / "teacher.h5", Scaled()
    decant.cache_logits(teacher, views(), path, part=(0, 2), wait=False, batch_size=4)
    (begun,) = tmp_path.glob("*.partial")
    content = begun.read_bytes()
    teacher.by = 4.0
    with pytest.raises(MismatchError, match=r"partial: holds what another teacher says: .*Scaled is"):
        decant.cache_logits(teacher, views(), path, batch_size=4)
    teacher.by = 1.0
    assert begun.read_bytes() == content
    decant.cache_logits(teacher, views(), path, batch_size=4)
    decant.cache_logits(teacher, views(), tmp_path / "whole.h5")
    whole = LogitCache.open(tmp_path / "whole.h5").logits(slice(None))
    assert np.array_equal(LogitCache.open(path).logits(slice(None)), whole)


def test_a_teacher_that_fails_where_its_cache_is_found_is_said(tmp_path: Path) -> None:
    class OnOneMachine(nn.Linear):
        fails = False

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.fails:
                raise RuntimeError("no kernel for this device")
            return super().forward(x)

    teacher, path = OnOneMachine(C, C), tmp_path / "teacher.h5"
    decant.cache_logits(teacher, views(), path)
    teacher.fails = True
    with pytest.warns(CacheWarning, match=r"that it gives these logits was not tried: .*no kernel for this"):
        assert decant.cache_logits(teacher, views(), path).num_samples == N


class Sized(torch.utils.data.Dataset[Any]):
    """Inputs of one shape in each batch of 8, and of another in the next."""

    def __len__(self) -> int:
        return N

    def __getitem__(self, index: int) -> Any:
        return torch.full((2 + index // 8, C), float(index)), index % C


class OfTwo(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(x)


class OfAnySize(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.mean(1))


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    ("kind", "data", "batch_size"), [(OfAnySize, Sized(), 8), (OfTwo, DATA, 2)], ids=["shapes", "memory"]
)
def test_a_teacher_that_can_only_run_the_batches_of_its_pass_is_found_again(
    tmp_path: Path, kind: type[nn.Linear], data: Any, batch_size: int, begun: bool
) -> None:
    teacher, path = kind(C, C), tmp_path / "teacher.h5"
    part: dict[str, Any] = {"part": (0, 2), "wait": False} if begun else {}
    with warnings.catch_warnings(action="error", category=CacheWarning):
        warnings.filterwarnings("ignore", "(?s).*likely not a trained teacher")
        decant.cache_logits(teacher, data, path, batch_size=batch_size, **part)
        assert decant.cache_logits(teacher, data, path, batch_size=batch_size).num_samples == N


@pytest.mark.parametrize("batch_size", [64, 4, 1])
def test_a_teacher_whose_answers_depend_on_the_batch_is_found_again(tmp_path: Path, batch_size: int) -> None:
    """Also with batches of another size than those it was cached in, and of one, in which nothing is beside a row."""

    def teacher(x: torch.Tensor) -> torch.Tensor:
        return x - 3 * x.mean(0) * (len(x) > 1)

    path = tmp_path / "teacher.h5"
    with pytest.warns(CacheWarning, match="the logits of sample 0 change"):
        decant.cache_logits(teacher, views(), path, name="centred", batch_size=64)
    with warnings.catch_warnings(action="error", category=CacheWarning):
        found = decant.cache_logits(teacher, views(), path, name="centred", batch_size=batch_size)
    assert found.num_samples == N


@pytest.mark.parametrize("by", ["a temperature", "noise"])
def test_whether_such_a_teacher_has_changed_is_doubted(tmp_path: Path, by: str) -> None:
    """What a pass that went on has computed beside other rows is not known, so that it may be the same."""

    def centred(x: torch.Tensor) -> torch.Tensor:
        return x - 3 * x.mean(0) * (len(x) > 1)

    def changed(x: torch.Tensor) -> torch.Tensor:
        return 4 * centred(x) if by == "a temperature" else x + 40 * torch.randn(len(x), 1)

    path = tmp_path / "teacher.h5"
    with pytest.warns(CacheWarning, match="the logits of sample 0 change"):
        decant.cache_logits(centred, views(), path, name="centred", batch_size=64)
    with pytest.warns(
        CacheWarning, match=r"teacher\.h5: whether it holds what \S*changed says cannot be told"
    ):
        decant.cache_logits(changed, views(), path, name="centred", batch_size=64)


def test_a_pass_goes_on_after_a_kill_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    """Killed by a teacher that fails in the middle."""
    batches = []

    class Fails(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            batches.append(len(x))
            if len(batches) == 8:
                raise RuntimeError("power cut")
            return super().forward(x)

    torch.manual_seed(0)
    teacher, path = Fails(C, C), tmp_path / "teacher.h5"
    with pytest.raises(ModelError, match=r"Fails: failed on float32 \(5, 3\) \(RuntimeError: power cut"):
        decant.cache_logits(teacher, views(), path, batch_size=8)
    assert not path.exists()
    before = len(batches)
    decant.cache_logits(teacher, views(), path, batch_size=8)
    # the probe, rows that are tried again where any were written, and the batches that were not
    assert len(batches) - before <= 3 + 1 + 9
    decant.cache_logits(teacher, views(), tmp_path / "whole.h5", batch_size=8)
    assert path.read_bytes() == (tmp_path / "whole.h5").read_bytes()
    assert leftovers(tmp_path) == ["teacher.h5.lock", "whole.h5.lock"]


PART = """
import sys, warnings
warnings.simplefilter("ignore")
import decant
from tests.own_loop.test_caching import linear, views
cache = decant.cache_logits(linear(), views(), sys.argv[1], batch_size=4, part=(int(sys.argv[2]), 2))
print(cache.num_views)
"""


def test_parts_are_joined_by_whoever_comes_last(tmp_path: Path) -> None:
    path = tmp_path / "teacher.h5"
    processes = [fork_python(PART, path, part) for part in range(2)]
    assert [finished(process).split()[-1] for process in processes] == ["2", "2"]
    decant.cache_logits(linear(), views(), tmp_path / "alone.h5", batch_size=4)
    assert path.read_bytes() == (tmp_path / "alone.h5").read_bytes()
    assert leftovers(tmp_path) == ["alone.h5.lock"]


def test_a_part_may_leave_the_others_to_other_jobs(tmp_path: Path) -> None:
    path = tmp_path / "teacher.h5"
    for part in (2, 0):
        assert decant.cache_logits(linear(), views(), path, batch_size=4, part=(part, 3), wait=False) is None
    cache = decant.cache_logits(linear(), views(), path, batch_size=4, part=(1, 3), wait=False)
    assert cache is not None
    assert cache.verify() == []
    with pytest.raises(ValueError, match=r"part: expected \(i, n\)"):
        decant.cache_logits(linear(), views(), path, part=(2, 2))


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    found = decant.cache_logits(
        linear(), views(), tmp_path / "new" / "teacher.h5", batch_size=4, dry_run=True
    )
    assert isinstance(found, Estimate)
    assert (found.rows, found.missing, found.seconds > 0) == (2 * N, 2 * N, True)
    assert list(tmp_path.iterdir()) == []
    cache = decant.cache_logits(linear(), views(), tmp_path / "teacher.h5")
    again = decant.cache_logits(linear(), views(), tmp_path / "teacher.h5", dry_run=True)
    assert (again.missing, again.seconds) == (0, 0)
    assert again.bytes == pytest.approx(cache.path.stat().st_size, abs=60_000)


def test_labels_of_any_kind_are_kept(tmp_path: Path) -> None:
    def kept(labels: Any, classes: Any = None) -> Any:
        class Labelled(TensorDataset):
            def __getitem__(self, index: int) -> Any:
                return self.tensors[0][index], labels[index]

        data = Labelled(DATA.tensors[0])
        if classes:
            data.classes = classes  # type: ignore[attr-defined]
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.h5"
        cache = decant.cache_logits(linear(), data, path)
        decant.SoftLabelDataset(data, cache, check_inputs="all")[5]
        return cache.labels

    ids = DATA.tensors[1]
    assert kept(ids).tolist() == ids.tolist()
    assert kept(torch.eye(C)[ids]).tolist() == ids.tolist()
    assert kept(["abc"[label] for label in ids], ["a", "b", "c"]).tolist() == ids.tolist()
    assert kept([None] * N).tolist() == [-1] * N
    assert kept(ids / 7).shape == (N, 1)
    assert kept(torch.rand(N, 2)).shape == (N, 2)
    several = torch.tensor([[1, index % 2, 1] for index in range(N)])
    assert kept(several).tolist() == kept(several.bool()).tolist() == several.tolist()
    assert kept(torch.eye(C, dtype=torch.int64)[ids]).tolist() == ids.tolist()


def test_the_kind_of_labels_is_told_from_some_of_them() -> None:
    def targets(*labels: Any, outputs: int = 3, mixed: bool = False) -> int | None:
        return Labels.of(list(labels), None, mixed, outputs).num_targets

    ids = ((2, 0), ("a",), (None,), ([1],), ([0, 1, 0], [1, 0, 0]))
    assert [targets(*labels) for labels in ids] == [None] * len(ids)
    rows = ((None, 0.5), ([True, True],), ([1, 1, 0],), ([0.5, 0.5, 0],), ([2, -1, 0],), (np.float32([]),))
    assert [targets(*labels) for labels in rows] == [1, 2, 3, 3, 3, 1]
    assert targets([0, 1, 0], outputs=4) == 3
    assert targets([0.5, 0.5, 0], mixed=True) is None
    none = Labels(2, None, mixed=False).stored([None, None, None], 3)
    assert none.shape == (3, 2)
    assert np.isnan(none).all()


def test_what_cannot_be_cached_is_refused_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with pytest.raises(TypeError, match=r"make it Views of a Subset"):
        decant.cache_logits(linear(), Subset(views(), [1, 2]), path)
    with pytest.raises(TypeError, match=r"a ConcatDataset of Views; make it Views of a ConcatDataset"):
        decant.cache_logits(linear(), ConcatDataset([DATA, Subset(views(), [1])]), path)
    for nested in (views(), ConcatDataset([views(), views()])):
        with pytest.raises(TypeError, match="has Views in it, of which view 0 alone would be read"):
            decant.Views(nested, noisy)
    one = decant.Views(DATA, count=1)
    decant.Views(
        ConcatDataset([decant.Views(one, noisy, count=1), one]), noisy
    )  # an index asks for all of these
    with pytest.raises(TypeError, match="expected a map-style dataset"):
        decant.Views(iter([1]), noisy)
    with pytest.raises(DataError, match=r"transform .*upper: failed on Tensor"):
        decant.cache_logits(linear(), decant.Views(DATA, str.upper), path)
    with pytest.raises(DataError, match="cannot be made a batch"):
        decant.cache_logits(linear(), decant.Views(DATA, lambda x: x[: int(torch.randint(1, 4, ()))]), path)
    with pytest.raises(ModelError, match=r"Linear: failed on uint8 .*these are uint8: end the transform"):
        decant.cache_logits(linear(), decant.Views(DATA, torch.Tensor.byte, count=1), path)
    for dtype in ("float16", "bfloat16"):
        with pytest.raises(ModelError, match=rf'its weights are {dtype}: precision="{dtype}" runs it'):
            decant.cache_logits(linear().to(getattr(torch, dtype)), views(), path)
    with pytest.raises(ModelError, match=r"give teacher.float\(\)"):
        decant.cache_logits(linear().double(), views(), path)
    with pytest.raises(ValueError, match="precision: expected float32, bfloat16, float16, found 'bf16'"):
        decant.cache_logits(linear(), views(), path, precision="bf16")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match=r"encoding: expected one of decant.encodings"):
        decant.cache_logits(linear(), views(), path, encoding="float16")  # type: ignore[call-overload]
    with pytest.raises(TypeError, match="'float' object"):
        decant.cache_logits(linear(), views(), path, batch_size=8.0)  # type: ignore[call-overload]
    rows = [{"x": x, "id": torch.tensor(0), "label": 0} for x in DATA.tensors[0]]
    with pytest.raises(
        ModelError, match=r"where one of these is the input, say which: decant.Views\(…, keys="
    ):
        decant.cache_logits(linear(), rows, path)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/a.h5: making its folder: File exists"):
        decant.cache_logits(linear(), views(), tmp_path / "file" / "a.h5")
    with pytest.raises(TypeError, match=r"its values are lists: make tensors of them, as with_format"):
        decant.cache_logits(linear(), [{"input_ids": [1, 2], "label": 0}] * 3, path)
    with pytest.raises(DataError, match=r"found str: .*; make token ids of texts in the transform"):
        decant.cache_logits(linear(), [("a text", 0)] * 3, path)
    with pytest.raises(TypeError, match=r"found a SimpleNamespace; let the dataset give a tuple of the two"):
        decant.cache_logits(linear(), [SimpleNamespace(x=0, y=1)] * 3, path)
    with pytest.raises(TypeError, match=r"give decant.Views or SoftLabelDataset keys=\(0, 1\)"):
        decant.cache_logits(linear(), TensorDataset(*DATA.tensors, torch.arange(N)), path)
    assert not path.exists()


def test_a_stream_that_has_a_length_is_no_dataset_of_views() -> None:
    class Stream(IterableDataset[Any]):
        def __len__(self) -> int:
            return 3

        def __iter__(self) -> Iterator[Any]:
            return iter([])

    with pytest.raises(TypeError, match=r"expected a map-style dataset, .* found Stream"):
        decant.Views(Stream(), noisy)


def test_the_name_of_a_transform_of_several_lines_is_its_first_word() -> None:
    class Several:
        def __repr__(self) -> str:
            return "Compose(\n    ToTensor()\n)"

    assert name_of(Several()) == "Compose"
    assert name_of(noisy) == "noisy"


def test_a_callable_whose_logits_depend_on_the_batch_is_said(tmp_path: Path) -> None:
    network = nn.Sequential(nn.BatchNorm1d(C), linear())
    network.train()
    with pytest.warns(CacheWarning, match=r"the logits of sample 0 change by .* with the other samples"):
        decant.cache_logits(lambda x: network(x), views(), tmp_path / "a.h5", name="mine")
    network.eval()
    with warnings.catch_warnings():
        warnings.filterwarnings("error", category=CacheWarning, message=".*change by")
        decant.cache_logits(lambda x: network(x), views(), tmp_path / "b.h5", name="mine")
        decant.cache_logits(network.train(), views(), tmp_path / "c.h5")


def test_a_teacher_may_change_its_inputs_in_place(tmp_path: Path) -> None:
    class InPlace(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x.mul_(0.5))

    teacher = InPlace(C, C)
    cache = decant.cache_logits(teacher, views(), tmp_path / "a.h5")
    live = teacher(views()[5, 1][0]).detach()
    assert float((live - torch.from_numpy(cache.logits([5], 1)[0]).float()).abs().max()) < 0.02


def test_a_teacher_with_objects_in_its_state_is_found_again(tmp_path: Path) -> None:
    kept: list[object] = []

    class WithState(nn.Linear):
        def get_extra_state(self) -> Any:
            kept.append(object())
            return {"recipe": kept[-1]}

        def set_extra_state(self, state: Any) -> None: ...

    teacher, path = WithState(C, C), tmp_path / "teacher.h5"
    first, again = (decant.cache_logits(teacher, views(), path) for _ in range(2))
    assert first.manifest.identity == again.manifest.identity


def test_a_teacher_that_fails_everywhere_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueRefusedError, match=r"sample 0, view 0: logit nan is not finite"):
        decant.cache_logits(lambda x: x * torch.nan, views(), tmp_path / "a.h5", name="nan")


def test_a_callable_with_dropout_left_on_is_refused(tmp_path: Path) -> None:
    network = nn.Sequential(linear(), nn.Dropout(0.5))
    with pytest.raises(ModelError, match="gives other logits when it is called again with the same batch"):
        decant.cache_logits(lambda x: network(x), views(), tmp_path / "a.h5", name="mine")
    assert decant.cache_logits(network, views(), tmp_path / "b.h5").num_outputs == C
    assert network.training


def test_a_half_written_file_of_one_s_own_is_no_obstacle(tmp_path: Path) -> None:
    path = tmp_path / "teacher.h5"
    with LogitCacheWriter(path, decant.Manifest.build(num_samples=N, num_outputs=C)) as writer:
        writer.write([1], [[1.0, 2.0, 3.0]])
    with pytest.raises(MismatchError, match="was begun with another identity"):
        decant.cache_logits(linear(), views(), path)
    assert not path.exists()


def test_equal_views_are_said() -> None:
    from decant.pipeline.own_loop.probe import probe

    with pytest.warns(CacheWarning, match="nothing in the transform is random, and count=1 is enough"):
        probe(decant.Views(DATA, torch.Tensor.float, count=4))


def test_attributes_of_the_dataset_shine_through_and_its_methods_do_not() -> None:
    class Data(TensorDataset):
        classes = ("a", "b", "c")

        def batch(self, keys: Any) -> Any:
            return keys

    through = decant.Views(Data(*DATA.tensors), noisy)
    assert through.classes == ("a", "b", "c")
    assert through.tensors is not None
    with pytest.raises(
        AttributeError, match=r"a method of Data, which knows nothing of views; use views.dataset.batch"
    ):
        _ = through.batch
    assert not hasattr(through, "batch")
    assert isinstance(LogitCache, type)
