"""Texts: read from files, tokenised once, padded by the batch; and the whole way from them to a distilled student."""

from __future__ import annotations

import json
import shutil
from itertools import count
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from decant.cache import LogitCache, MismatchError, SoftLabelDataset, Store, input_crc32
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.data import identity
from decant.pipeline.data.samples import LabelledData, vocabulary
from decant.pipeline.errors import DataError, ModelError, PipelineError, WeightsError
from decant.pipeline.networks.build import build_network, specify_network
from decant.pipeline.phases import teacher_pass
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.datasets import Splits
from decant.pipeline.phases.evaluate import evaluate_runs
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import Result, load_result
from decant.pipeline.runs.saved_network import load_network
from decant.pipeline.training.epoch_log import METRICS
from tests.helpers import texts
from tests.helpers.small import CPU

LENGTH = 16
NEEDED = "texts need an extra: pip install 'decant-kd[text]'"


# With the library


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sentences and a tokenizer that was trained on them."""
    pytest.importorskip("transformers", reason=NEEDED)
    made = texts.write(tmp_path_factory.mktemp("texts"), train=300, test=60)
    (made / "tokenizer").mkdir()
    texts.train_tokenizer(made / "tokenizer")
    return made


TEACHER = 'teacher.network={name="bert", hidden=32, layers=2, heads=2, intermediate=64}'
STUDENT = 'student.network={name="bert", hidden=16, layers=1, heads=2, intermediate=32}'
SMALL = (TEACHER, STUDENT, "teacher.epochs=5", "teacher.lr=0.005", "student.epochs=2", "student.seeds=1")


def recipe(folder: Path, *overrides: str) -> Recipe:
    data = (f"data.root={folder}", f"data.tokenizer={folder / 'tokenizer'}", f"data.max_length={LENGTH}")
    return load_recipe("text", [*data, *SMALL, "student.warmup_epochs=0", *overrides])


def teach(folder: Path, *overrides: str, runs: Path | None = None) -> Result:
    return make_teacher(Plan.of(recipe(folder, *overrides), runs or folder / "runs"), CPU)[0]


def build_cache(folder: Path, *overrides: str) -> LogitCache:
    teach(folder, *overrides)
    made = cache_logits(
        Plan.of(recipe(folder, *overrides), folder / "runs", Store(folder / "caches")), CPU, print
    )
    return made.cache


def train_part(folder: Path) -> Any:
    return Splits.load(recipe(folder).settings).student_train


def test_tokens_are_those_of_the_tokenizer(folder: Path) -> None:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder / "tokenizer"))
    data: LabelledData = train_part(folder).data
    for index, (text, label) in enumerate(texts.sentences(300, 0)[:50]):
        found = data.raw(np.array([index]))
        expected = tokenizer(text, truncation=True, max_length=LENGTH)
        assert found["input_ids"].tolist() == [expected["input_ids"]]
        assert found["attention_mask"].tolist() == [expected["attention_mask"]]
        assert data.classes[data.labels[index]] == label
    assert vocabulary(data) == len(tokenizer)
    assert identity(data) == identity(train_part(folder).data)


def test_a_teacher_learns_and_its_students_learn_from_its_cache(folder: Path) -> None:
    cache = build_cache(folder)
    assert (cache.num_samples, cache.num_classes, cache.num_views) == (300, 2, 1)
    assert teach(folder).metrics["top1"] > 0.9
    made = list(
        train_students(
            Plan.of(recipe(folder), folder / "runs", Store(folder / "caches")), CPU, check_inputs="all"
        )
    )
    assert [result.kind for result, _ in made] == ["labels", "distilled"]
    again = {
        result.folder: result.metrics
        for result in evaluate_runs(Plan.of(recipe(folder), folder / "runs"), CPU)
    }
    for result, _ in made:
        assert again[result.folder] == result.metrics
        assert (result.latency_ms or 0) > 0
    assert made[0][0].parameters < teach(folder).parameters / 3


def test_the_loss_of_an_epoch_is_the_mean_over_its_texts(folder: Path, tmp_path: Path) -> None:
    """With a rate that changes nothing, over batches of 128, 128 and 44."""
    still = (
        TEACHER.replace("}", ", dropout=0.0}"),
        "teacher.epochs=1",
        "teacher.warmup_epochs=0",
        "teacher.lr=1e-12",
    )
    teacher = teach(folder, *still, "teacher.batch_size=128", runs=tmp_path)
    inputs, labels = train_part(folder).batch(np.stack([np.arange(300), np.zeros(300, int)], axis=1))
    with torch.inference_mode():
        expected = nn.functional.cross_entropy(load_network(teacher).eval()(inputs), labels)
    line = json.loads((teacher.folder / METRICS).read_text("utf-8"))
    assert line["loss"] == pytest.approx(float(expected), rel=1e-6)


def test_cached_logits_are_the_teachers_whatever_the_batch_was_padded_to(folder: Path) -> None:
    cache = build_cache(folder, 'cache.dtype="float32"')
    network, viewed = load_network(teach(folder)).eval(), train_part(folder)
    for index in range(0, 300, 29):
        inputs, _ = viewed.batch([index])
        with torch.inference_mode():
            alone = network(inputs)[0]
        torch.testing.assert_close(torch.from_numpy(cache.logits(index)), alone, rtol=1e-4, atol=1e-5)


def test_checksums_are_the_same_for_any_batches_and_order(folder: Path, tmp_path: Path) -> None:
    cache = build_cache(folder)
    store = Store(tmp_path)
    other = cache_logits(
        Plan.of(recipe(folder, "cache.batch_size=7"), folder / "runs", store), CPU, print
    ).cache
    assert np.array_equal(other.input_crc32, cache.input_crc32)
    viewed = train_part(folder)
    assert [input_crc32(viewed[index][0]) for index in range(300)] == cache.input_crc32[0].tolist()
    dataset = SoftLabelDataset(viewed, cache, check_inputs="all")
    order = np.random.default_rng(0).permutation(300)
    for keys in np.array_split(np.stack([order, np.zeros_like(order)], axis=1), 17):
        inputs, labels, logits = dataset.batch(keys)
        assert inputs["input_ids"].shape == inputs["attention_mask"].shape
        assert np.array_equal(labels, cache.labels[keys[:, 0]])
        assert np.array_equal(logits, cache.logits(keys[:, 0]).astype(np.float32))
    assert dataset[5][0]["input_ids"].tolist() == viewed.batch([5])[0]["input_ids"][0].tolist()


def test_a_token_that_has_changed_is_found(folder: Path) -> None:
    cache, viewed = build_cache(folder), train_part(folder)
    viewed.data.ids[viewed.data.starts[7] + 1] += 1
    dataset = SoftLabelDataset(viewed, cache, check_inputs="all")
    dataset.batch([5, 6])
    with pytest.raises(MismatchError, match="sample 7, view 0: the input is not what the teacher saw"):
        dataset.batch([5, 6, 7])


def stop_at_third_call(monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
    """As Ctrl-C does, when a function of a module is called for the third time."""
    function, calls = getattr(module, name), count(1)

    def stopping(*given: Any) -> Any:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return function(*given)

    monkeypatch.setattr(module, name, stopping)


def test_a_pass_that_was_stopped_ends_in_the_same_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = build_cache(folder).path
    stop_at_third_call(monkeypatch, teacher_pass, "forward")
    with pytest.raises(KeyboardInterrupt):
        cache_logits(Plan.of(recipe(folder), folder / "runs", Store(tmp_path)), CPU, print)
    monkeypatch.undo()
    resumed = cache_logits(Plan.of(recipe(folder), folder / "runs", Store(tmp_path)), CPU, print)
    assert resumed.rows <= 300
    assert resumed.cache.path.read_bytes() == whole.read_bytes()


def test_a_training_that_was_stopped_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dropout and all: what is random in an epoch is a function of the seed and the epoch."""
    from decant.pipeline.phases import job

    stop_at_third_call(monkeypatch, job, "evaluate")
    with pytest.raises(KeyboardInterrupt):
        teach(folder, runs=tmp_path)
    monkeypatch.undo()
    assert teach(folder, runs=tmp_path).weights_sha256 == teach(folder).weights_sha256


def test_a_transfer_set_of_texts_is_texts(folder: Path) -> None:
    splits = Splits.load(recipe(folder, "data.transfer.share=0.4").settings)
    assert (len(splits.teacher_train), len(splits.student_train)) == (180, 120)
    assert vocabulary(splits.student_train.data) == vocabulary(splits.test.data)
    assert set(splits.student_train.batch([0, 1])[0]) == {"input_ids", "attention_mask"}


def pretrained(folder: Path, classes: tuple[str, ...] = ("a", "b", "c"), **sizes: Any) -> Path:
    """A classifier in a folder, as the library saves it, in half precision."""
    import transformers

    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=None,
        id2label=dict(enumerate(classes)),
        **{"vocab_size": 200, "max_position_embeddings": 32, **sizes},
    )
    torch.manual_seed(1)
    transformers.BertForSequenceClassification(config).half().save_pretrained(folder)
    return folder


def test_a_classifier_from_a_folder_is_read_once_and_needed_no_more(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import safetensors.torch

    at = pretrained(tmp_path / "bert", classes=("x", "y"))
    given = safetensors.torch.load_file(at / "model.safetensors")
    options = (f"teacher.network=transformers:{at}", "teacher.epochs=0", "teacher.warmup_epochs=0")
    capfd.readouterr()
    teacher = teach(folder, *options, runs=tmp_path / "runs")
    assert str(teacher.network) == f"transformers:{at}"
    shutil.rmtree(at)
    found = load_result(teacher.folder)
    assert found == teacher
    state = load_network(teacher).state_dict()
    assert {name for name in given if name.startswith("bert.")} <= {
        name.removeprefix("body.") for name in state
    }
    for name, tensor in given.items():
        own = state[f"body.{name}"]
        assert own.dtype == torch.float32
        assert torch.equal(own, tensor.float()), name
    runs, store = tmp_path / "runs", Store(tmp_path / "caches")
    assert cache_logits(Plan.of(recipe(folder, *options), runs, store), CPU, print).rows == 300
    said = capfd.readouterr()
    said_by_us = [
        line for line in said.err.splitlines() if line.startswith("warning: the teacher's top-1 is")
    ]
    assert said.err.splitlines() == said_by_us, "the library says nothing"


def test_a_fresh_last_layer_is_refused_where_it_would_not_be_trained(folder: Path, tmp_path: Path) -> None:
    at = pretrained(tmp_path / "bert")
    options = (f"teacher.network=transformers:{at}", "teacher.warmup_epochs=0")
    with pytest.raises(WeightsError, match=r"of 3 classes, and the data have 2; set teacher\.epochs"):
        teach(folder, *options, "teacher.epochs=0", runs=tmp_path / "runs")
    teacher = teach(folder, *options, "teacher.epochs=1", runs=tmp_path / "runs")
    state = load_network(teacher).state_dict()
    assert state["body.classifier.weight"].shape == (2, 16), "a fresh last layer, for the classes of the data"


def test_a_fresh_last_layer_is_a_function_of_the_seed(folder: Path, tmp_path: Path) -> None:
    at = pretrained(tmp_path / "bert")
    viewed = train_part(folder)
    spec = specify_network(
        recipe(folder, f"teacher.network=transformers:{at}").settings.teacher.network, viewed
    )
    same, again, other = (build_network(spec, seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(same[name], again[name]) for name in same)
    different = {name for name in same if not torch.equal(same[name], other[name])}
    assert different == {"body.classifier.weight"}


class Bag(nn.Module):
    """Somebody's own: the mean of the embeddings that are not padding."""

    def __init__(self, num_classes: int, vocabulary: int) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(vocabulary, 8), nn.Linear(8, num_classes)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        kept = attention_mask[:, :, None].float()
        found: torch.Tensor = self.head((self.table(input_ids) * kept).sum(1) / kept.sum(1))
        return found


def bag(num_classes: int, input_shape: tuple[int, ...], vocabulary: int) -> nn.Module:
    return Bag(num_classes, vocabulary)


def too_many(num_classes: int, input_shape: tuple[int, ...], vocabulary: int) -> nn.Module:
    return Bag(num_classes + 1, vocabulary)


def test_somebodys_own_network_is_told_the_vocabulary(folder: Path, tmp_path: Path) -> None:
    own = (f"teacher.network={__name__}:bag", "teacher.epochs=2", "teacher.warmup_epochs=0")
    teacher = teach(folder, *own, runs=tmp_path)
    assert load_network(teacher).state_dict()["body.table.weight"].shape == (200, 8)


@pytest.mark.parametrize(
    ("network", "error", "says"),
    [
        (
            "resnet20",
            ModelError,
            "network 'resnet20': takes images or features, and the data are texts; write bert, ",
        ),
        ("timm:vit", ModelError, "network 'timm:vit': takes images or features, and the data are texts"),
        (
            "{name='bert', width=3}",
            ModelError,
            "network 'bert': unknown argument 'width'; it takes hidden (int, ",
        ),
        (
            "{name='bert', hidden=30, heads=4}",
            ModelError,
            "network 'bert': The hidden size (30) is not a multiple",
        ),
        (
            f"{__name__}:too_many",
            ModelError,
            f"network '{__name__}:too_many': must give logits of shape (2, 2)",
        ),
        ("transformers:/nowhere/at/all", ModelError, "its configuration cannot be read: "),
    ],
)
def test_a_network_that_cannot_take_the_texts_is_refused(
    folder: Path, network: str, error: type[PipelineError], says: str
) -> None:
    settings, viewed = recipe(folder, f"teacher.network={network}").settings, train_part(folder)
    with pytest.raises(error) as caught:
        build_network(specify_network(settings.teacher.network, viewed))
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_classifier_that_is_not_made_for_the_texts_is_refused(folder: Path, tmp_path: Path) -> None:
    for sizes, says in (
        (
            {"classes": ("GOOD", "BAD")},
            "has the classes GOOD, BAD, and the data bad, good; write labels as",
        ),
        ({"vocab_size": 199}, "knows 199 tokens, the tokenizer has 200; give data.tokenizer its own"),
        ({"max_position_embeddings": 8}, "takes 8 tokens at most; set data.max_length, which is 16"),
    ):
        at = pretrained(tmp_path / next(iter(sizes)), **sizes)
        with pytest.raises(ModelError, match=says):
            teach(folder, f"teacher.network=transformers:{at}", runs=tmp_path)


def test_a_classifier_of_the_same_classes_keeps_its_last_layer(folder: Path, tmp_path: Path) -> None:
    import safetensors.torch

    at = pretrained(tmp_path / "bert", classes=("BAD", "GOOD"))
    options = (f"teacher.network=transformers:{at}", "teacher.epochs=0", "teacher.warmup_epochs=0")
    state = load_network(teach(folder, *options, runs=tmp_path / "runs")).state_dict()
    given = safetensors.torch.load_file(at / "model.safetensors")["classifier.weight"]
    assert torch.equal(state["body.classifier.weight"], given.float())


def test_weights_that_could_run_code_are_not_read(folder: Path, tmp_path: Path) -> None:
    at = pretrained(tmp_path / "bert")
    torch.save({}, at / "pytorch_model.bin")
    (at / "model.safetensors").unlink()
    with pytest.raises(WeightsError, match="cannot fetch its weights: "):
        teach(folder, f"teacher.network=transformers:{at}", runs=tmp_path)


def test_a_network_for_texts_is_not_for_images() -> None:
    digits = load_recipe("digits", ["teacher.network=bert"])
    with pytest.raises(ModelError, match="network 'bert': takes texts, and digits has none"):
        specify_network(digits.settings.teacher.network, Splits.load(digits.settings).student_train)


def test_a_tokenizer_that_is_not_there_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"data\.tokenizer '/nowhere/at/all': cannot be loaded"):
        Splits.load(recipe(folder, "data.tokenizer=/nowhere/at/all").settings)


def test_a_classifier_of_more_classes_keeps_those_of_the_texts(folder: Path, tmp_path: Path) -> None:
    at = pretrained(tmp_path / "bert", classes=("joy", "bad", "anger", "good"))
    options = (f"teacher.network=transformers:{at}", "teacher.epochs=0", "teacher.warmup_epochs=0")
    teacher = teach(folder, *options, 'teacher.classes=["bad", "good"]', runs=tmp_path / "runs")
    assert teacher.network.args["kept_classes"] == {"columns": [1, 3], "of": 4}
    shutil.rmtree(at)
    network = load_network(teacher).eval()
    inputs = train_part(folder).batch([0, 1])[0]
    with torch.no_grad():
        assert torch.equal(network(inputs), network.body(**inputs).logits[:, [1, 3]])
