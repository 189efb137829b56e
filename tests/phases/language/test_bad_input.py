"""What is wrong with a language model's recipe, its texts or its teacher is said in one line that names the setting."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from decant.cache import CacheError, Store
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.errors import PipelineError
from decant.pipeline.networks.build import build_network
from decant.pipeline.networks.weights import weights_sha256
from decant.pipeline.phases.any_recipe import make_teacher
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.kinds import plan_of
from decant.pipeline.phases.language.networks import initial_weights, student_spec
from tests.helpers import language
from tests.helpers.commands import decant_here, succeed

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def brought(folder: Path) -> Path:
    """The folder with what users bring."""

    def texts(name: str, *contents: Any) -> None:
        more = [f"document number {number} has a few words to learn from" for number in range(9)]
        rows = [json.dumps({"text": text}).encode() for text in (*contents, *more)]
        (folder / name).write_bytes(b"\n".join(rows))

    texts("nul.jsonl", "a \0 b")
    texts("empty.jsonl", "")
    (folder / "same.jsonl").write_text('{"text": "one and the same"}\n' * 9)
    texts("null.jsonl", None)
    (folder / "broken.jsonl").write_bytes(b'{"text": "\xff"}\n')
    (folder / "latin.jinja").write_bytes(b"\xe9")
    import transformers

    language.llama(300).save_pretrained(folder / "few")
    language.llama(352).save_pretrained(folder / "bare")
    language.llama(352).model.save_pretrained(folder / "headless")
    language.llama(352).save_pretrained(folder / "plain")
    for name in ("cut", "weightless", "pickled", "endless", "hollow"):
        shutil.copytree(folder / "teacher", folder / name)
    weights = folder / "cut/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:2000])
    (folder / "weightless/model.safetensors").unlink()
    (folder / "pickled/model.safetensors").rename(folder / "pickled/pytorch_model.bin")
    tokenizer = language.tokenizer()
    tokenizer.eos_token = None
    tokenizer.save_pretrained(folder / "endless")
    (folder / "hollow/tokenizer.json").write_text("{")
    (folder / "bad.gguf").write_bytes(b"GGUF and then nothing")
    (folder / "words.jsonl").write_text("hello\n")
    (folder / "table.csv").write_text("text\nhello\n")
    (folder / "void.jsonl").write_text('{"text": ""}\n' * 9)
    (folder / "wide.txt").write_bytes("a text".encode("utf-16"))
    (folder / "bert").mkdir()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    masked = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=340, **sizes))
    masked.save_pretrained(folder / "bert")
    language.tokenizer().save_pretrained(folder / "bert")
    overflowing = language.llama(340)
    with torch.no_grad():
        overflowing.model.layers[0].mlp.up_proj.weight[0, 0] = float("nan")
    overflowing.save_pretrained(folder / "nan")
    language.tokenizer().save_pretrained(folder / "nan")
    for name, template in (("few", language.TEMPLATE), ("headless", language.TEMPLATE), ("plain", None)):
        language.tokenizer(template).save_pretrained(folder / name)
    return folder


def says(folder: Path, *overrides: str) -> str:
    """What the first command that minds says, in one line, and nothing else."""
    settings = [word for setting in overrides for word in ("--set", setting)]
    for command in ("teacher", "cache-logits", "student"):
        words = ("--recipe", "lm.toml", "--store", "bad", "--runs", "bad-runs")
        done = decant_here(command, *words, *settings, cwd=folder)
        if done.returncode:
            (line,) = [line for line in done.stderr.splitlines() if line.startswith("decant: ")]
            assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stderr
            assert done.stderr.endswith(f"{line}\n"), done.stderr
            return line
    raise AssertionError("no command minds it")


FRESH = ('teacher.network={ name = "llama", hidden_size = 16 }', "teacher.epochs=1")
BAD = [
    (("data.root=nul.jsonl",), "nul.jsonl: line 1: has a NUL at character 2"),
    (("data.root=broken.jsonl",), "broken.jsonl: line 1: byte 10 (0xff) is not UTF-8"),
    (("data.root=null.jsonl",), "null.jsonl: line 1: text: is null; leave the row out"),
    (
        ("data.root=same.jsonl",),
        "has none of 9 documents, of which 1 are different; give it a larger share (of a recipe data.test_share",
    ),
    (("data.root=missing.jsonl",), "missing.jsonl: no such file or folder"),
    (("data.root=teacher", "data.column=body"), "teacher: has no file that ends in"),
    (("data.max_length=256",), "takes 128 tokens at most; set data.max_length, which is 256, to 128"),
    (("data.chat_template=latin.jinja",), "data.chat_template: latin.jinja: is not UTF-8"),
    (("data.root=chats.jsonl", "teacher.network=transformers:plain"), "(of a recipe data.chat_template)"),
    (
        ("teacher.network=transformers:few",),
        "knows 300 tokens, and the tokenizer has 340; give data.tokenizer its own",
    ),
    (("teacher.network=transformers:headless",), "has no language-model head"),
    (("data.tokenizer=bytes",), "data.tokenizer: 'bytes' has another vocabulary than the teacher's own"),
    (("data.tokenizer=bpe:200",), "data.tokenizer 'bpe:200': expected more than 257 tokens"),
    (
        ("cache.encoding.head=400",),
        "cache.encoding.head: 400 logits of a row are more than the 340 tokens; set it lower",
    ),
    (
        ("student.network.layers=[2]",),
        "layers: expected numbers from 0 to 1 of the teacher's layers, found [2]",
    ),
    (FRESH, "data.tokenizer: missing, and a teacher with fresh weights has none"),
    (
        ("data.tokenizer=bytes", 'teacher.network={ name = "lama" }', "teacher.epochs=1"),
        "network 'lama': unknown kind of language model; did you mean",
    ),
    (
        ("data.tokenizer=bytes", 'teacher.network={ name = "llama", hidden_sise = 16 }', "teacher.epochs=1"),
        "unknown argument 'hidden_sise'; did you mean hidden_size",
    ),
    (("data.across=true",), 'data.across: is of rows = "packed"'),
    (("data.test=test",), "data.test_share: give either that, of the documents, or `test`"),
    (("data.validation=0.9",), "validation.share: leaves no document to train on"),
    (("student.weights=run",), 'a language model with its weights is network = "transformers:FOLDER"'),
    (
        ("student.batch_size=8",),
        "student.batch_size: counts samples, and a batch of a language model is tokens_per_",
    ),
    (("teacher.batch_size=8",), "teacher.batch_size: counts samples"),
    (("cache.batch_size=8",), "cache.batch_size: counts samples"),
    (("student.class_weights=balanced",), "student.class_weights: is not of language models"),
    (
        ('student.network={ name = "cut" }',),
        "student.network.layers: expected numbers of the teacher's layers",
    ),
    (("cache.encoding.views=2",), "views: are other draws; give draws too"),
    (
        ("teacher.network=transformers:teachr",),
        "(did you mean teacher?), and if it is a model of the hub: that cannot",
    ),
    (("teacher.network=transformers:./teachr",), "there is no such file or folder (did you mean teacher?)"),
    (("teacher.network=transformers:texts/teacher/1",), "there is no such file or folder"),
    (("student.network=transformers:some/model",), "that cannot be reached (ConnectError: "),
    (("data.tokenizer=tokens",), "data.tokenizer 'tokens': cannot be loaded (there is no such folder here"),
    (
        ("teacher.network=transformers:cut",),
        "cut: cannot be loaded as a causal language model (SafetensorError",
    ),
    (("teacher.network=transformers:weightless",), "no file named model.safetensors"),
    (("teacher.network=transformers:pickled",), "no file named model.safetensors"),
    (
        ("teacher.network=transformers:hollow",),
        "teacher.network: the tokenizer of 'hollow': cannot be loaded",
    ),
    (
        ("teacher.network=transformers:bad.gguf",),
        "teacher.network: the tokenizer of 'bad.gguf': cannot be loaded",
    ),
    (("teacher.network=transformers:none.gguf",), "there is no such file or folder"),
    (("teacher.network=transformers:bert",), "a masked one, as BERT, cannot say what comes next"),
    (("teacher.network=transformers:nan",), "gives logits that are not finite for the first tokens"),
    (("teacher.network=transformers:endless",), "the tokenizer has no end-of-text token"),
    (("data.root=words.jsonl",), "words.jsonl: line 1: not JSON"),
    (("data.root=table.csv",), "table.csv: expected a file that ends in .txt, .jsonl, .parquet, or a folder"),
    (("data.root=void.jsonl",), "all documents are empty, the first is void.jsonl: line 1"),
    (("data.root=wide.txt",), "wide.txt: is UTF-16; convert it"),
    (("data.column=body",), "texts.jsonl: line 1: has no body; it has text"),
    (("data.targets=assistant",), "is a plain text, in which no assistant speaks"),
    (("data.max_length=1",), "data.max_length: expected 2 or more"),
    (("cache.from=nowhere.h5",), "nowhere.h5: no such cache"),
    (("cache.from=texts.jsonl",), "texts.jsonl: not an HDF5 file, so not a cache"),
    (("student.objective.temperature=2.0",), "student.objective.temperature 2: the cache has the mass"),
    (("student.lr=1e30",), "the training has diverged"),
]


@pytest.mark.parametrize(("overrides", "line"), BAD, ids=[" ".join(given)[:50] for given, _ in BAD])
def test_what_is_wrong_is_said_in_one_line(
    brought: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...], line: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert line in says(brought, *overrides)


def test_a_tokenizer_without_special_tokens_and_a_document_longer_than_all_positions_do(
    brought: Path,
) -> None:
    texts = [" ".join(language.sentences(60)), *language.sentences(60)]
    (brought / "long.jsonl").write_text("\n".join(json.dumps({"text": text}) for text in texts))
    words = ["--recipe", "lm.toml", "--store", "long", "--runs", "long-runs", "--set", "data.root=long.jsonl"]
    words += [word for key in ("network=transformers:endless",) for word in ("--set", f"teacher.{key}")]
    words += ["--set", "data.end_of_text=false"]
    for command in ("teacher", "cache-logits", "student"):
        done = decant_here(command, *words, cwd=brought)
        succeed(done)
        assert done.stderr.count("documents are longer than 64 tokens and cut") == 1, done.stderr


def test_a_file_that_is_stored_otherwise_than_the_recipe_asks_is_said_and_compared_with_its_own_teacher(
    brought: Path,
) -> None:
    words = ("--recipe", "lm.toml", "--store", "given", "--runs", "given-runs")
    succeed(decant_here("teacher", *words, cwd=brought))
    succeed(decant_here("cache-logits", *words, cwd=brought))
    shown = json.loads(succeed(decant_here("cache-logits", *words, "--json", cwd=brought)))
    path = next(one["path"] for one in shown if one["split"] == "train")
    given = ("--set", f"cache.from={path}")
    same = decant_here("student", *words, *given, cwd=brought)
    assert succeed(same)
    assert "cache.encoding asks" not in same.stderr
    other = decant_here("student", *words, *given, "--set", "cache.encoding.head=12", cwd=brought)
    succeed(other)
    assert (
        other.stderr.count(
            f"warning: {path}: cache.encoding asks for head = 12, and this file of cache.from has"
        )
        == 1
    )
    shutil.move(brought / path, brought / "theirs.h5")
    given = ("--set", "cache.from=theirs.h5")
    verify = ("cache", "verify", "--against-teacher", "40", *words, *given)
    assert "theirs.h5: " in succeed(decant_here(*verify, cwd=brought))
    language.llama(340, seed=9).save_pretrained(brought / "teacher9")
    language.tokenizer().save_pretrained(brought / "teacher9")
    another = ("--set", "teacher.network=transformers:teacher9")
    succeed(decant_here("teacher", *words, *another, cwd=brought))
    refused = decant_here(*verify, *another, cwd=brought)
    assert (refused.returncode, "theirs.h5: is not of this recipe's teacher" in refused.stderr) == (1, True)
    assert "teacher.weights_sha256" in refused.stderr


def test_an_empty_document_is_left_out_and_that_is_said(
    brought: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(brought)
    given = ("data.root=empty.jsonl", "data.test_share=0.4", "data.validation=0.3")
    plan = plan_of(load_recipe("lm.toml", given), Path("runs/empty"), Store("bad"))
    make_teacher(plan, CPU)
    assert (
        "1 of 10 documents are empty and left out, the first is empty.jsonl: line 1"
        in capsys.readouterr().err
    )


def test_documents_that_are_in_both_parts_are_said(
    brought: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(brought)
    rows = (brought / "texts.jsonl").read_text().splitlines()
    for name, first, end in (("train", 0, 60), ("validation", 60, 80), ("test", 57, 70)):
        Path("parts").mkdir(exist_ok=True)
        Path("parts", f"{name}.jsonl").write_text("\n".join(rows[first:end]))
    recipe = Path("lm.toml").read_text().replace("test_share", "# test_share").replace("validation =", "# ")
    Path("parts.toml").write_text(recipe)
    given = ("data.root=parts", "data.test=test", "data.validation=validation")
    make_teacher(plan_of(load_recipe("parts.toml", given), Path("runs/parts"), Store("bad")), CPU)
    (said,) = [line for line in capsys.readouterr().err.splitlines() if "training part too" in line]
    assert said.startswith(
        "warning: parts: 3 of 13 documents of the test part are in the training part too, the first"
    )


def test_weights_need_no_tokenizer_beside_them_where_one_is_given(
    brought: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(brought)
    given = (
        "teacher.network=transformers:bare",
        "data.tokenizer=teacher",
        "student.network=transformers:bare",
    )
    plan = plan_of(load_recipe("lm.toml", given), Path("runs/bare"), Store("bad"))
    teacher, _ = make_teacher(plan, CPU)
    assert "warning: bare: has no tokenizer that can be loaded" in capsys.readouterr().err
    spec = student_spec(plan)  # type: ignore[arg-type]
    student, load = build_network(spec, 0), initial_weights(plan, spec)  # type: ignore[arg-type]
    assert load is not None
    load(student)
    assert weights_sha256(student.state_dict()) == teacher.weights_sha256
    assert "another tokenizer" not in capsys.readouterr().err
    language.tokenizer(seed=5).save_pretrained(brought / "bare")
    load(student)
    assert (
        "bare: its weights were trained with another tokenizer than that of the texts"
        in capsys.readouterr().err
    )


def test_a_cache_of_other_texts_or_another_cut_is_refused_by_name(
    brought: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(brought)
    plan = plan_of(load_recipe("lm.toml"), Path("runs/lm"), Store("bad"))
    make_teacher(plan, CPU)
    path = cache_logits(plan, CPU, print).cache.path
    for setting, field in (
        ("data.max_length=32", "data.samples.max_length: expected 32, found 64"),
        ("data.root=chats.jsonl", "data.texts.sha256: expected"),
        ("teacher.network=transformers:plain", "data.tokenizer.chat_template: expected nothing"),
    ):
        other = plan_of(
            load_recipe("lm.toml", (setting, f"cache.from={path}")), Path("runs/lm"), Store("bad")
        )
        with pytest.raises(CacheError, match="is of other tokens") as caught:
            other.open_cache()  # type: ignore[union-attr]
        assert field in str(caught.value), str(caught.value)


@pytest.mark.parametrize("setting", ["data.rows=packed", "cache.encoding=hidden", "cache.tokens_per_batch=9"])
def test_settings_of_language_models_are_refused_elsewhere(setting: str) -> None:
    with pytest.raises(PipelineError, match="of a language model"):
        load_recipe("digits", (setting,))
