"""Every file of a run with any value of any type at any place: it is read as it was meant, or named in one line."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.config.tasks import headline
from decant.pipeline.deploy.export import read_summary
from decant.pipeline.errors import DamagedError, ModelError, PipelineError, RecipeError, WeightsError
from decant.pipeline.networks.weights import load_weights, save_weights
from decant.pipeline.report.history import curve, quantities
from decant.pipeline.report.rows import markdown_table, rows_of
from decant.pipeline.runs.json_files import write_json
from decant.pipeline.runs.result import RESULT, load_result
from decant.pipeline.runs.saved_logits import TEST_LOGITS, load_test_logits, save_test_logits
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.checkpoint import Kept, resume, save_epoch
from decant.pipeline.training.epoch_log import CHECKPOINT, METRICS
from tests.helpers.memory import peak_mib
from tests.helpers.mutations import changed

ONE_LINE = 400  # characters of a message, without the path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished teacher, with an export that is said to have been made."""
    from decant.pipeline.deploy.check import Checked
    from tests.helpers.small import teach

    folder = teach(tmp_path_factory.mktemp("made")).folder
    row = Checked("network", "PyTorch", 10, 0.0, 1.0, "top-1", 0.9, 0.1, 0.2, 10).__dict__
    write_json(folder / "export" / "export.json", {"student": row, "formats": {"pt2": row}, "metadata": {}})
    return folder


def tabled(folder: Path) -> object:
    """What a report says of a result, which needs every field to be what it is meant to be."""
    result = load_result(folder)
    return None if result is None else markdown_table("run", rows_of([result]))


def drawn(folder: Path) -> object:
    """The curves of a run."""
    run: Any = type("Run", (), {"folder": folder})()
    return [curve([run], quantity) for quantity in quantities(headline({"top1": 1.0}))]


READERS: dict[str, Callable[[Path], object]] = {
    RESULT: tabled,
    METRICS: drawn,
    "export/export.json": lambda folder: read_summary(folder / "export"),
    "recipe.toml": lambda folder: load_recipe(str(folder / "recipe.toml")),
}


@pytest.mark.parametrize("name", READERS)
@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_any_value_at_any_place_is_read_or_named(name: str, seed: int, run: Path, tmp_path: Path) -> None:
    path, chance = tmp_path / name, random.Random(seed)
    path.parent.mkdir(exist_ok=True)
    text = (run / name).read_text("utf-8")
    if path.suffix == ".toml":
        import tomllib

        import tomli_w

        try:
            path.write_text(tomli_w.dumps(changed(tomllib.loads(text), chance)[0]), "utf-8", "replace")
        except (TypeError, AttributeError, ValueError, RecursionError):  # what TOML does not have
            return
    else:
        lines = text.splitlines() if path.suffix == ".jsonl" else [text]
        lines[0] = json.dumps(changed(json.loads(lines[0]), chance)[0])
        path.write_text("\n".join(lines), "utf-8")
    try:
        READERS[name](tmp_path)
    except (DamagedError, RecipeError) as error:
        said = str(error)
        assert str(path) in said
        assert len(said.replace(str(path), "")) < ONE_LINE or path.suffix == ".toml"
        assert "\n" not in said


DEEP = {
    RESULT: "[" * 100_000,
    METRICS: '{"epoch": ' + "[" * 100_000,
    "export/export.json": '{"student":' * 100_000,
    "recipe.toml": "data = " + "[" * 100_000,
}
LARGE = {
    RESULT: '{"seed": ' + "9" * 5000 + "}",
    METRICS: '{"epoch": ' + "9" * 5000 + "}\n",
    "export/export.json": '{"student": 1e300}',
    "recipe.toml": "data = " + "9" * 5000,
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("content", [DEEP, LARGE], ids=["deep", "large"])
def test_what_nests_deeply_or_is_no_number_is_named(
    name: str, content: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(content[name], "utf-8")
    with pytest.raises((DamagedError, RecipeError), match=path.name):
        READERS[name](tmp_path)


def test_a_recipe_of_many_mistakes_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "long.toml"
    path.write_text("[data]\n" + "".join(f"{'x' * 20}{number} = 1\n" for number in range(30_000)))
    with pytest.raises(RecipeError, match=r"and 29,98\d more"):
        load_recipe(str(path))


def test_a_recipe_of_dotted_keys_is_refused_at_once(tmp_path: Path) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(".".join(["a"] * 100_000) + " = 1\n")
    with pytest.raises(RecipeError, match="nests too deeply"):
        load_recipe(str(path))


@pytest.mark.parametrize(
    "override",
    [
        "teacher.epochs",
        "student.seeds",
        "views.count",
        "views.size",
        "student.batch_size",
        "cache.batch_size",
    ],
)
def test_no_count_of_a_recipe_is_without_end(override: str) -> None:
    for value in ("1000000000000", "1e300", "9" * 5000):
        with pytest.raises(RecipeError, match=override.partition(".")[2]):
            load_recipe("digits", [f"{override}={value}"])


TENSORS: dict[str, tuple[Callable[[], object], str]] = {
    "NaN": (lambda: torch.full((3, 4), float("nan")), "has NaN or infinity"),
    "infinity": (lambda: torch.full((3, 4), float("inf")), "has NaN or infinity"),
    "integers": (lambda: torch.ones(3, 4, dtype=torch.int64), "int64|I64"),
    "halves": (lambda: torch.ones(3, 4, dtype=torch.float16), "float16|F16"),
    "complex": (lambda: torch.ones(3, 4, dtype=torch.complex64), "complex64|C64"),
    "another shape": (lambda: torch.ones(4, 3), r"\(4, 3\)"),
    "sparse": (lambda: torch.ones(3, 4).to_sparse(), "no plain tensor"),
    "without values": (lambda: torch.ones(3, 4, device="meta"), "no plain tensor"),
    "quantised": (
        lambda: torch.quantize_per_tensor(torch.ones(3, 4), 0.1, 0, torch.qint8),
        "no plain tensor",
    ),
    "no tensor": (lambda: [1.0], "no plain tensor"),
}


@pytest.mark.parametrize("name", ["NaN", "infinity", "integers", "halves", "complex", "another shape"])
def test_tensors_of_a_run_that_are_not_its_networks_are_named(name: str, tmp_path: Path) -> None:
    make, said = TENSORS[name]
    holder = nn.Module()
    holder.register_buffer("weight", make())  # type: ignore[arg-type]
    holder.register_buffer("bias", torch.zeros(3))
    save_weights(tmp_path / "w.safetensors", holder, {})
    with pytest.raises(WeightsError, match=f"w.safetensors.*weight.*({said})"):
        load_weights(nn.Linear(4, 3), tmp_path / "w.safetensors")


def checkpoint(
    folder: Path, change: Callable[[dict[str, Any]], None]
) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A checkpoint after an epoch, changed; the network and the optimizer that it is for."""
    network = nn.Linear(4, 3)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    save_epoch(folder, Kept(network, optimizer), 1, {"epoch": 1})
    saved = torch.load(folder / CHECKPOINT, weights_only=True)
    change(saved)
    torch.save(saved, folder / CHECKPOINT)
    return network, optimizer


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", ["network", "optimizer"])
@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_a_checkpoint_that_are_not_the_networks_are_named(
    name: str, place: str, tmp_path: Path
) -> None:
    make, said = TENSORS[name]

    def change(saved: dict[str, Any]) -> None:
        if place == "network":
            saved["network"]["weight"] = make()
        else:
            saved["optimizer"]["state"][0]["exp_avg"] = make()

    if (name, place) == ("no tensor", "optimizer"):
        pytest.skip("an optimizer may keep lists")
    network, optimizer = checkpoint(tmp_path, change)
    before = network.state_dict()["weight"].clone()
    with pytest.raises(DamagedError, match=f"{CHECKPOINT}: .*{place}.*({said})"):
        resume(tmp_path, Kept(network, optimizer))
    assert torch.equal(network.state_dict()["weight"], before)


@pytest.mark.parametrize("epoch", [True, -1, 1.0, "1", None, float("nan"), [1]])
def test_an_epoch_that_is_none_is_named(epoch: object, tmp_path: Path) -> None:
    made = checkpoint(tmp_path, lambda saved: saved.update(epoch=epoch))
    with pytest.raises(DamagedError, match="epoch: expected a number of epochs"):
        resume(tmp_path, Kept(*made))


@pytest.mark.parametrize("value", [float("nan"), "fast", None, [0.1], torch.ones(2)])
def test_a_setting_of_the_optimizer_that_is_none_is_named(value: object, tmp_path: Path) -> None:
    made = checkpoint(tmp_path, lambda saved: saved["optimizer"]["param_groups"][0].update(lr=value))
    with pytest.raises(DamagedError, match=r"optimizer\.lr: expected 0\.001"):
        resume(tmp_path, Kept(*made))


@pytest.mark.parametrize("shape", ["(1000000000000, 3)", "(6,)", "(3, 6)", "(-1, 3)", "()"])
def test_logits_of_another_shape_are_named_and_take_no_memory(shape: str, tmp_path: Path) -> None:
    save_test_logits(tmp_path, torch.zeros(6, 3))
    assert load_test_logits(tmp_path, 6, 3).shape == (6, 3)
    path = tmp_path / TEST_LOGITS
    whole, header = path.read_bytes(), f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}"
    path.write_bytes(whole[:10] + header.encode().ljust(117) + b"\n" + whole[128:])

    def read() -> None:
        with pytest.raises(DamagedError, match=f"{TEST_LOGITS}: damaged"):
            load_test_logits(tmp_path, 6, 3)

    assert peak_mib(read) < 50


@pytest.mark.parametrize("kind", ["O", "<f8", "<c8", "S4", "<i4"])
def test_logits_of_another_type_are_named(kind: str, tmp_path: Path) -> None:
    np.save(tmp_path / TEST_LOGITS, np.zeros((6, 3)).astype(kind), allow_pickle=True)
    with pytest.raises(DamagedError, match=f"{TEST_LOGITS}: damaged"):
        load_test_logits(tmp_path, 6, 3)


NETWORKS = {
    "as many classes": {"num_classes": 2**30},
    "as large an input": {
        "name": "linear",
        "args": {},
        "input_shape": [3, 2**30, 2**30],
        "mean": [0.1] * 3,
        "std": [1.0] * 3,
    },
    "as wide": {"args": {"width": 40_000}},
    "as deep": {"name": "mlp", "args": {"hidden": 4, "layers": 10**9}},
    "as wide as cannot be counted": {"args": {"width": 2**40}},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_is_not_built_larger_than_its_weights(name: str, run: Path, tmp_path: Path) -> None:
    for path in run.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    content = json.loads((run / RESULT).read_text("utf-8"))
    content["network"] |= NETWORKS[name]
    write_json(tmp_path / RESULT, content)
    result = load_result(tmp_path)
    assert result is not None

    def load() -> None:
        with pytest.raises(
            PipelineError, match=r"bytes, and the network that|layers must be at most|take more mem"
        ):
            load_network(result)

    assert peak_mib(load) < 100


def test_a_network_of_a_recipe_that_no_memory_holds_is_named() -> None:
    from decant.pipeline.networks.registry import build_by_name

    def build() -> None:
        for width in (200_000, 2**40):
            with pytest.raises(ModelError, match=r"network 'conv': its weights take .* memory"):
                build_by_name("conv", 10, input_shape=(1, 8, 8), mean=[0.1], std=[1.0], width=width)

    assert peak_mib(build) < 100
