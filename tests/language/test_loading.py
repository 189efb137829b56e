"""Causal language models from a folder: their weights and tokenizer, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from decant.language import load_causal, load_tokenizer
from decant.pipeline.errors import DataError, ModelError, WeightsError
from tests.helpers import language


@pytest.fixture
def saved(tmp_path: Path, tokenizer: Any) -> Path:
    language.llama(340).save_pretrained(tmp_path / "net")
    tokenizer.save_pretrained(tmp_path / "net")
    return tmp_path / "net"


def test_network_and_tokenizer_are_those_that_were_saved(saved: Path, tokenizer: Any) -> None:
    network, found = load_causal(str(saved))
    ids = torch.tensor([found("the film was great fun")["input_ids"]])
    assert ids[0].tolist() == tokenizer("the film was great fun")["input_ids"]
    assert not network.training
    with torch.inference_mode():
        assert torch.equal(network(input_ids=ids).logits, language.llama(340)(input_ids=ids).logits)
    assert load_causal(str(saved), dtype="bfloat16").network.dtype == torch.bfloat16


def test_weights_without_a_head_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    language.llama(340).model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"lm_head\.weight is not among its weights, and would be random"):
        load_causal(str(tmp_path))


def test_pickled_and_missing_weights_are_refused_in_one_line(saved: Path) -> None:
    weights = saved / "model.safetensors"
    weights.rename(saved / "kept")
    torch.save(language.llama(340).state_dict(), saved / "pytorch_model.bin")
    for name in (str(saved), str(saved / "nothing")):
        with pytest.raises(WeightsError, match="cannot be loaded as a causal language model") as raised:
            load_causal(name)
        assert "\n" not in str(raised.value)


def test_an_adapter_that_nothing_applies_is_refused(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library would load the network without it, and say nothing."""
    (saved / "adapter_config.json").write_text("{}")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"holds an adapter .* pip install peft, or merge it"):
        load_causal(str(saved))


def test_a_network_of_another_kind_is_called_so(saved: Path) -> None:
    (saved / "config.json").write_text('{"model_type": "t5"}')
    with pytest.raises(WeightsError, match=r"causal language model \(T5 is of another kind of network\)"):
        load_causal(str(saved))


def test_a_folder_without_a_tokenizer_is_refused(saved: Path) -> None:
    for path in saved.glob("token*"):
        path.unlink()
    with pytest.raises(DataError, match=r"tokenizer .* cannot be loaded"):
        load_causal(str(saved))


def test_the_tokenizer_of_a_gguf_file_is_read_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    Path("models/net.gguf").touch()
    asked: dict[str, Any] = {}
    monkeypatch.setattr(
        "transformers.AutoTokenizer.from_pretrained", lambda name, **options: asked.update(options, name=name)
    )
    load_tokenizer("models/net.gguf")
    assert (asked["name"], asked["gguf_file"]) == ("models", "net.gguf")


def test_what_reads_gguf_is_named_where_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ModelError, match="gguf and accelerate not installed; run: pip install gguf accelerate"
    ):
        load_causal(str(tmp_path / "net.gguf"))
