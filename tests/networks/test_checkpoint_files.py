"""Files of weights are told by their content; what is none is called by its name, and nothing in it runs."""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from decant.pipeline.errors import WeightsError
from decant.pipeline.networks.foreign_weights import load_foreign_weights
from tests.networks.test_checkpoint_layouts import OTHER, RIGHT, STATE, differing, loaded, ours, put, saved
from tests.networks.test_foreign_weights import Trap, refusal

# Forms


def as_torchscript(path: Path, network: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is old
        torch.jit.save(torch.jit.trace(network.eval(), torch.zeros(1, 3, 9, 9)), path)


def as_script(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(RIGHT.eval()), path)


FORMS: dict[str, Callable[[Path], Any]] = {
    "torch": lambda path: torch.save(STATE, path),
    "legacy torch": lambda path: torch.save(STATE, path, _use_new_zipfile_serialization=False),
    "safetensors": lambda path: safetensors.torch.save_file(STATE, path),
    "traced": lambda path: as_torchscript(path, RIGHT),
    "scripted": as_script,
}


@pytest.mark.parametrize(
    "name", ["student_best", "net.t7", "net.pkl", "a.pth", "a.pt", "a.safetensors", "a.onnx"]
)
@pytest.mark.parametrize("form", FORMS)
def test_a_file_is_read_whatever_its_name(form: str, name: str, tmp_path: Path) -> None:
    FORMS[form](tmp_path / name)
    assert loaded(tmp_path / name).notes == ()


def test_the_code_of_a_torchscript_archive_is_never_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_torchscript(tmp_path / "a.pt", RIGHT)

    def compiled(*args: object, **kwargs: object) -> None:
        raise AssertionError("torch.jit.load was called")

    monkeypatch.setattr(torch.jit, "load", compiled)
    loaded(tmp_path / "a.pt")


def test_a_frozen_torchscript_archive_has_no_weights(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.freeze(torch.jit.script(RIGHT.eval())), tmp_path / "a.pt")
    assert "a TorchScript archive without weights of its own, as torch.jit.freeze makes" in refusal(
        ours(), tmp_path / "a.pt"
    )


def tar(path: Path) -> None:
    torch.save(STATE, path.with_name("inner.pth"))
    with tarfile.open(path, "w") as archive:
        archive.add(path.with_name("inner.pth"), "inner.pth")


def keras(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["layer"] = np.ones(3)


def array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, np.ones(3))


def arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.ones(3))


def zipped(path: Path) -> None:
    torch.save(STATE, path.with_name("inner.pth"))
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(path.with_name("inner.pth"), "inner.pth")


def cut(path: Path) -> None:
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:-100])


def cut_safetensors(path: Path) -> None:
    safetensors.torch.save_file(STATE, path)
    path.write_bytes(path.read_bytes()[:300])


def exported(path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.export.export(RIGHT.eval(), (torch.zeros(1, 3, 9, 9),))
        buffer = io.BytesIO()
        torch.export.save(program, buffer)
    path.write_bytes(buffer.getvalue())


def onnx(path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1]) for name in "xy"]
    onnx.save(
        onnx.helper.make_model(
            onnx.helper.make_graph([node], "g", ends[:1], ends[1:]), producer_name="torch"
        ),
        path,
    )


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 46830571\n"
NOT_WEIGHTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "it is empty"),
    "a web page": (lambda path: path.write_bytes(b"\n<!DOCTYPE html><html>404"), "an HTML page, as a failed"),
    "an error of a store": (lambda path: path.write_bytes(b"<?xml version='1.0'?><Error>"), "an HTML page"),
    "a Git LFS pointer": (lambda path: path.write_bytes(POINTER), "a Git LFS pointer to a file of 46,830,571 bytes"),
    "a Lua Torch file": (lambda path: path.write_bytes(b"\x04\0\0\0\x01\0\0\0\x03\0\0\0V 1"), "a file of Lua Torch"),
    "a Lua Torch table": (lambda path: path.write_bytes(b"\x03\0\0\0\x01\0\0\0\x02\0\0\0"), "a file of Lua Torch"),
    "a Lua Torch text": (lambda path: path.write_bytes(b"4\n1\n3\nV 1\n"), "a file of Lua Torch"),
    "a plain pickle": (lambda path: path.write_bytes(__import__("pickle").dumps({"a": 1})), "a plain pickle"),
    "Keras": (keras, "an HDF5 file, as Keras and TensorFlow keep weights in"),
    "ONNX": (onnx, "an ONNX or TensorFlow graph"),
    "GGUF": (lambda path: path.write_bytes(b"GGUF\x03\0\0\0"), "a GGUF file of quantised weights"),
    "NumPy": (array, "a NumPy array"),
    "NumPy arrays": (arrays, "an archive of NumPy arrays"),
    "gzip": (lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(40)), "compressed with gzip; unpack it first"),
    "a tar archive": (tar, "a tar archive of inner.pth; unpack it first"),
    "a zip archive": (zipped, "a zip archive without torch's data.pkl; found inner.pth"),
    "an exported program": (exported, "a program of torch.export"),
    "a cut file": (cut, "cut short or damaged: it has"),
    "cut safetensors": (cut_safetensors, "cut short: it has 300 bytes"),
    "JSON": (lambda path: path.write_text(json.dumps({"a": 1})), "JSON text, and no index of shards"),
    "noise": (lambda path: path.write_bytes(b"\xfe\xdc\xba" * 20), "of no known form, or damaged (60 bytes"),
}  # fmt: skip


@pytest.mark.parametrize("what", NOT_WEIGHTS)
def test_what_is_no_file_of_weights_is_called_by_its_name(what: str, tmp_path: Path) -> None:
    make, said = NOT_WEIGHTS[what]
    make(tmp_path / "a.pth")
    assert said in refusal(ours(), tmp_path / "a.pth")


# Folders and shards


def sharded(folder: Path) -> Path:
    """Two shards and their index."""
    folder.mkdir()
    names = list(STATE)
    weight_map = {name: f"model-0000{1 + place % 2}-of-00002.safetensors" for place, name in enumerate(names)}
    for file in set(weight_map.values()):
        safetensors.torch.save_file({n: STATE[n] for n in names if weight_map[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    folder = sharded(tmp_path / "model")
    loaded(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        WeightsError, match=r"1 of its 2 shards are missing: model-00002-of-00002\.safetensors"
    ):
        load_foreign_weights(ours(), folder)


@pytest.mark.parametrize("name", ["../secret.safetensors", "/etc/passwd", "..", "", "a\nb", 3])
def test_an_index_names_files_of_its_own_folder_alone(name: object, tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(WeightsError, match="must name files of its own folder"):
        load_foreign_weights(ours(), index)


def test_a_folder_has_one_file_of_weights_or_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="a folder without a file of weights; found nothing"):
        load_foreign_weights(ours(), tmp_path)
    saved(tmp_path / "best.pth", STATE)
    (tmp_path / "log.txt").write_text("")
    loaded(tmp_path)
    saved(tmp_path / "last.pth", STATE)
    with pytest.raises(
        WeightsError, match=r"several files of weights, best\.pth, last\.pth; give one of them"
    ):
        load_foreign_weights(ours(), tmp_path)


@pytest.mark.parametrize(
    ("name", "said"), [("zero_to_fp32.py", "zero_to_fp32.py"), (".metadata", "dcp_to_torch")]
)
def test_a_folder_of_parts_is_refused_with_what_joins_them(name: str, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("")
    with pytest.raises(WeightsError, match=said):
        load_foreign_weights(ours(), tmp_path)


# Code, and what the tensors are


@pytest.mark.parametrize("legacy", [False, True])
def test_code_beside_harmless_types_is_refused_and_not_run(legacy: bool, tmp_path: Path) -> None:
    content = {"model": STATE, "best": np.float64(3), "hook": Trap(tmp_path / "sprung")}
    torch.save(content, tmp_path / "a.pth", _use_new_zipfile_serialization=not legacy)
    said = refusal(ours(), tmp_path / "a.pth")
    assert "mkdir, and unpickling that could run code" in said
    assert "save its state dict alone: torch.save(network.state_dict(), FILE)" in said
    assert not (tmp_path / "sprung").exists()


def test_what_a_process_allowed_elsewhere_is_refused_here(tmp_path: Path) -> None:
    saved(tmp_path / "a.pth", {"model": STATE, "layer": nn.ReLU()})
    before = set(torch.serialization.get_safe_globals())
    with torch.serialization.safe_globals([nn.ReLU]):
        assert "torch.nn.modules.activation.ReLU, and unpickling" in refusal(ours(), tmp_path / "a.pth")
        assert set(torch.serialization.get_safe_globals()) == before | {nn.ReLU}
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.parametrize("legacy", [False, True])
def test_another_protocol_of_pickle_is_named(legacy: bool, tmp_path: Path) -> None:
    torch.save(
        {"model": STATE}, tmp_path / "a.pth", pickle_protocol=4, _use_new_zipfile_serialization=not legacy
    )
    assert "it was saved with pickle_protocol = 4" in refusal(ours(), tmp_path / "a.pth")


def test_tensors_of_a_distributed_run_are_named(tmp_path: Path) -> None:
    from torch.distributed.tensor import DTensor

    class Parts:
        def __reduce__(self) -> tuple[Any, ...]:
            return DTensor, ()

    saved(tmp_path / "a.pth", {"model": STATE, "parts": Parts()})
    assert "it holds DTensors, the parts of a distributed run" in refusal(ours(), tmp_path / "a.pth")


def test_arrays_of_numpy_are_no_state_dict(tmp_path: Path) -> None:
    saved(tmp_path / "a.pth", {name: tensor.numpy() for name, tensor in STATE.items()})
    assert "its arrays are NumPy's: save torch tensors" in refusal(ours(), tmp_path / "a.pth")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_taken_without_a_word(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in STATE.items()
    }
    assert loaded(saved(tmp_path / "a.pth", state), state).notes == ()


def test_double_precision_is_said_where_it_is_lost(tmp_path: Path) -> None:
    exact = {
        name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in STATE.items()
    }
    assert loaded(saved(tmp_path / "a.pth", exact)).notes == ()
    exact["fc.bias"] = exact["fc.bias"] + 1e-12
    (note,) = loaded(saved(tmp_path / "b.pth", exact)).notes
    assert "1 tensor is float64, and rounded to the network's dtype: fc.bias" in note


SPOILT: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {
    "NaN": (lambda t: t.index_fill(0, torch.tensor([1]), float("nan")), "fc.weight has NaN (6 of 18 values)"),
    "infinity": (lambda t: t.index_fill(0, torch.tensor([0]), float("inf")), "fc.weight has infinity (6 of 18 values)"),
    "too large": (lambda t: t.double() + 1e300, "fc.weight does not fit into float32: it becomes infinity"),
    "int8": (lambda t: t.to(torch.int8), "fc.weight is int8, expected float32: quantised"),
    "quantised": (lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8), "fc.weight is quantised (qint8)"),
    "float8": (lambda t: t.to(torch.float8_e4m3fn), "fc.weight is quantised (float8_e4m3fn)"),
    "complex": (lambda t: t.to(torch.complex64), "fc.weight is complex (complex64), expected float32"),
    "sparse": (lambda t: t.to_sparse(), "fc.weight is sparse or nested"),
    "meta": (lambda t: t.to("meta"), "fc.weight has no values (it is a meta tensor)"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", SPOILT)
def test_tensors_that_are_no_weights_are_refused_by_name(kind: str, tmp_path: Path) -> None:
    spoil, said = SPOILT[kind]
    saved(tmp_path / "a.pth", {"model": {**STATE, "fc.weight": spoil(STATE["fc.weight"])}})
    found = refusal(ours(), tmp_path / "a.pth")
    assert said.replace("fc.weight", "model.fc.weight") in found, found


def test_a_mask_of_infinities_that_the_network_has_is_none_of_them(tmp_path: Path) -> None:
    def masked() -> nn.Module:
        network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        network.register_buffer("mask", torch.tensor([0.0, -torch.inf]))
        return network

    load_foreign_weights(masked(), saved(tmp_path / "a.pth", masked().state_dict()))


# Any layout, any damage

KEYS = st.sampled_from(
    ["state_dict", "model", "net", "weights", "params", "checkpoint", "module", "student", "0"]
)
PREFIXES = st.lists(
    st.sampled_from(
        ["module", "model", "_orig_mod", "net", "student", "teacher", "backbone", "encoder", "mine"]
    ),
    max_size=3,
)
EXTRAS = st.dictionaries(
    st.sampled_from(["epoch", "optimizer", "args", "lr", "arch", "history"]),
    st.sampled_from(
        [
            3,
            None,
            "tiny",
            np.float64(1.0),
            {"state": {0: {"exp_avg": torch.ones(4)}}},
            [torch.ones(2)],
            (1, 2),
        ]
    ),
)


@given(st.lists(KEYS, max_size=3), PREFIXES, EXTRAS, st.sampled_from(["torch", "legacy", "safetensors"]))
@settings(max_examples=60)
def test_any_nesting_prefix_extras_and_form_give_the_same_weights(
    tmp_path_factory: pytest.TempPathFactory,
    keys: list[str],
    prefixes: list[str],
    extras: dict[str, Any],
    form: str,
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.pth"
    content: Any = put(STATE, "".join(f"{part}." for part in prefixes))
    if form == "safetensors":
        safetensors.torch.save_file(content, path)
    else:
        for key in reversed(keys):
            content = {key: content, **extras}
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch")
    assert loaded(path).notes == ()


@given(st.sampled_from(list(FORMS)), st.data())
@settings(max_examples=150)
def test_any_damage_is_one_line_or_changes_values_alone(
    tmp_path_factory: pytest.TempPathFactory, form: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("damage") / "a.pth"
    content = bytearray(whole(form))
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content[: data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))])
    said = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            load_foreign_weights(ours(), path)
    except WeightsError as error:
        said = str(error)
    assert said.isprintable(), "one line, with nothing that a terminal would act on"


@cache
def whole(form: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        FORMS[form](Path(folder) / "a")
        return (Path(folder) / "a").read_bytes()


def test_a_container_that_holds_itself_is_read_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"model": STATE}
    content["self"] = content
    loaded(saved(tmp_path / "a.pth", content))


def test_containers_that_multiply_take_no_time(tmp_path: Path) -> None:
    nested: list[Any] = []
    for _ in range(60):
        nested = [nested, nested]
    network = ours()
    load_foreign_weights(network, saved(tmp_path / "a.pth", {"model": STATE, "more": nested}))
    assert differing(network.body, STATE) == []
    assert differing(network.body, dict(OTHER.state_dict()))
