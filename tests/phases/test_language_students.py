"""Students of a language model's recipe: what they learn from, kills within an epoch, accumulation, measures, export
and the page.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from decant.pipeline.training.epoch_log import read_epochs
from tests.helpers import language
from tests.helpers.extras import needs
from tests.ranks.forked import run_forked

pytestmark = needs("transformers")
CPU = torch.device("cpu")
RECIPE = """
[data]
name = "tokens"
root = "{root}/texts.jsonl"
tokenizer = "bpe:300"
max_length = 32
test_share = 0.2
[teacher]
epochs = 2
optimizer = "adamw"
lr = 1e-2
tokens_per_batch = 256
[teacher.network]
name = "llama"
hidden_size = 24
intermediate_size = 48
num_hidden_layers = 3
num_attention_heads = 2
num_key_value_heads = 1
[student]
network = {{ name = "cut", layers = [0, 2] }}
epochs = 2
optimizer = "adamw"
lr = 2e-3
tokens_per_batch = 256
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language")
    texts = (json.dumps({"text": text}) + "\n" for text in language.sentences(80))
    (root / "texts.jsonl").write_text("".join(texts))
    (root / "r.toml").write_text(RECIPE.format(root=root))
    return root


@pytest.fixture(scope="module")
def plan(folder: Path) -> Any:
    """Of a recipe whose teacher and caches are made."""
    from decant.pipeline.phases.cache_logits import cache_logits
    from decant.pipeline.phases.language.teacher import make_teacher

    made = plan_of(folder)
    make_teacher(made, CPU)
    for one in made.by_cache:
        cache_logits(one, CPU, lambda holder: None)
    return made


def plan_of(folder: Path, *overrides: str, base: str = "runs") -> Any:
    from decant.cache import Store
    from decant.pipeline.config.recipe import load_recipe
    from decant.pipeline.phases.language.plan import LanguagePlan

    recipe = load_recipe(str(folder / "r.toml"), overrides)
    return LanguagePlan.of(recipe, folder / base, Store(folder / "caches"))


def students(plan: Any) -> list[Any]:
    from decant.pipeline.phases.language.student import train_students

    return [result for result, _ in train_students(plan, CPU)]


def weights(result: Any) -> dict[str, torch.Tensor]:
    from decant.pipeline.runs.saved_network import load_network

    return load_network(result).state_dict()


@pytest.fixture(scope="module")
def made(plan: Any) -> list[Any]:
    return students(plan)


def test_both_kinds_are_trained_and_measured(plan: Any, made: list[Any]) -> None:
    alone, distilled = made
    assert (alone.kind, distilled.kind) == ("labels", "distilled")
    assert distilled.baseline == alone.folder.parent.name
    assert {"perplexity", "loss", "accuracy", "ece"} == alone.metrics.keys()
    assert distilled.metrics.keys() - alone.metrics.keys() == {"kl", "agreement"}
    assert np.isclose(np.log(alone.metrics["perplexity"]), alone.metrics["loss"])
    lines = [json.loads(line) for line in (distilled.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2]
    assert lines[1]["soft"] < lines[0]["soft"]
    assert lines[1]["test"]["kl"] == pytest.approx(distilled.metrics["kl"], rel=1e-5)
    assert all(again is found for (again, found) in zip(made, made, strict=True))
    assert [found for _, found in train_again(plan)] == [True, True]


def train_again(plan: Any) -> list[Any]:
    from decant.pipeline.phases.language.student import train_students

    return list(train_students(plan, CPU))


def test_a_student_on_labels_sees_the_same_tokens_in_the_same_order(plan: Any) -> None:
    from decant.pipeline.language.training import TokenBatches

    samples, cache = plan.data.samples("train"), plan.open_cache()
    keys = np.array([[5, 0], [2, 0], [9, 0]])
    alone, distilled = TokenBatches(samples).batch(keys), TokenBatches(samples, cache).batch(keys)
    assert all(torch.equal(alone[0][name], distilled[0][name]) for name in alone[0])
    assert torch.equal(alone[1], distilled[1])
    assert len(distilled[2]) == len(alone[1])


def test_updates_of_many_batches_are_those_of_one(folder: Path, plan: Any) -> None:
    """All samples in one update, in batches of other numbers of positions."""
    common = ("student.epochs=1", "student.optimizer=sgd", "student.lr=0.5", "student.schedule=constant")
    one = plan_of(folder, *common, "student.tokens_per_batch=1000000")
    many = plan_of(folder, *common, "student.tokens_per_batch=64", "student.accumulate=1000")
    for single, several in zip(students(one), students(many), strict=True):
        before, after = weights(single), weights(several)
        for name in before:
            torch.testing.assert_close(before[name], after[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["labels", "distilled"])
def test_a_student_that_is_killed_within_an_epoch_ends_with_the_very_weights(
    folder: Path, plan: Any, kind: str, tmp_path: Path
) -> None:
    from decant.pipeline.phases.language.job import train_network
    from decant.pipeline.phases.language.student import jobs_for_seed, student_spec
    from decant.pipeline.training.epoch_log import CHECKPOINT

    settings = ("student.checkpoint_steps=1", "student.epochs=3", "student.tokens_per_batch=64")
    chosen = plan_of(folder, *settings)
    spec = student_spec(chosen)
    jobs = jobs_for_seed(chosen, chosen.open_cache(), {}, spec, 0)
    job = next(job for job in jobs if job.kind == kind)
    whole, _ = train_network(replace(job, folder=tmp_path / "whole"), chosen, CPU)
    killed = replace(job, folder=tmp_path / "killed")
    within = 0
    for seconds in (0.1, 0.25, 0.4):
        child = os.fork()
        if not child:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            train_network(killed, chosen, CPU)
            os._exit(0)
        until = time.monotonic() + 60
        while not (killed.folder / CHECKPOINT).exists() and time.monotonic() < until:
            time.sleep(0.002)
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if (killed.folder / CHECKPOINT).exists():
            saved = torch.load(killed.folder / CHECKPOINT, weights_only=True)
            within += "within" in saved
    assert within, "no kill met the middle of an epoch"
    resumed, _ = train_network(killed, chosen, CPU)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.metrics == whole.metrics


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("dist", "whose positions are compared one by one: take kd"),
        ("dkd", "has some logits of each position, and this loss needs all .*: take kd"),
        ("json:loads", "a function of your own gets whole batches"),
    ],
)
def test_an_objective_that_the_rows_do_not_suffice_for_is_refused(
    folder: Path, plan: Any, name: str, said: str
) -> None:
    from decant.pipeline.errors import RecipeError

    with pytest.raises(RecipeError, match=said):
        students(plan_of(folder, f"student.objective={{name='{name}'}}"))


def test_a_temperature_that_is_not_declared_is_refused(folder: Path, plan: Any) -> None:
    from decant.pipeline.errors import RecipeError

    with pytest.raises(RecipeError, match=r"student\.objective\.temperature 3"):
        students(plan_of(folder, "student.objective={name='kd', temperature=3.0}"))


def test_what_is_measured_again_is_what_was_measured(plan: Any, made: list[Any]) -> None:
    from decant.pipeline.phases.language.evaluate import evaluate_runs

    found = {result.folder: result.metrics for result in evaluate_runs(plan, CPU)}
    assert {"kl", "agreement"} <= found[made[0].folder].keys()  # of the one on labels too
    for name, value in made[1].metrics.items():
        assert found[made[1].folder][name] == pytest.approx(value, rel=1e-5)
    teacher = found[plan.teacher.folder]
    assert teacher["perplexity"] == pytest.approx(plan.teacher.metrics["perplexity"], rel=1e-5)


def test_an_exported_folder_is_loaded_by_transformers(made: list[Any]) -> None:
    import transformers

    from decant.pipeline.deploy.language_model import export_language_model
    from decant.pipeline.errors import ModelError
    from decant.pipeline.runs.open import open_run

    run = open_run(made[1].folder)
    for _ in range(2):  # the second time it takes the place of the first
        killed = run.folder / "export" / ".transformers-a_killed.draft"
        killed.mkdir(parents=True)
        exported = export_language_model(run)
        assert not killed.exists()
    network = transformers.AutoModelForCausalLM.from_pretrained(exported.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported.folder)
    own, ids = weights(made[1]), torch.tensor([tokenizer("a word or two")["input_ids"]])
    assert all(torch.equal(own[name], value) for name, value in network.state_dict().items())
    with torch.no_grad():
        assert network(ids).logits.shape == (1, ids.shape[1], 300)
    assert [path.name for path in exported.folder.parent.iterdir()] == ["transformers"]
    with pytest.raises(ModelError, match="--formats onnx: a language model is exported as a folder"):
        export_language_model(run, ["onnx"])


def test_an_exported_folder_that_is_in_a_given_one_is_not_replaced(
    made: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor one that another process made while the network was loaded."""
    from decant.pipeline.deploy import language_model as module
    from decant.pipeline.errors import ModelError
    from decant.pipeline.runs.open import open_run

    run, site, inner = open_run(made[1].folder), tmp_path / "site", module.load_network
    before = {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")}

    def meanwhile(result: Any) -> Any:
        (site / "transformers").mkdir(parents=True)
        return inner(result)

    with monkeypatch.context() as patched:
        patched.setattr(module, "load_network", meanwhile)
        for _ in range(2):
            with pytest.raises(ModelError, match="is there already; give another --output"):
                module.export_language_model(run, output=site)
    assert [path.name for path in site.glob("[!.]*")] == ["transformers"]
    assert list((site / "transformers").iterdir()) == []
    (site / "transformers").rmdir()
    (site / ".transformers-settings").mkdir()
    assert module.export_language_model(run, output=site).folder == site / "transformers"
    assert (site / ".transformers-settings").is_dir(), "is the user's own"
    assert {path: path.stat().st_mtime_ns for path in run.folder.rglob("*")} == before


def test_an_unfinished_export_stays_where_no_lock_says_that_nobody_writes_it(
    made: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from decant.cache.io import locks
    from decant.pipeline.deploy.language_model import export_language_model
    from decant.pipeline.runs.open import open_run

    unfinished = tmp_path / ".transformers-8letters.draft"
    unfinished.mkdir()
    monkeypatch.setattr(locks, "try_flock", lambda *_: None)  # as a mount without locks answers
    export_language_model(open_run(made[1].folder), output=tmp_path)
    assert unfinished.is_dir()


def test_no_images_are_classified(made: list[Any]) -> None:
    from decant.pipeline.deploy.predict import Predictor
    from decant.pipeline.errors import ModelError
    from decant.pipeline.runs.open import open_run

    with pytest.raises(ModelError, match="a language model, which classifies no images"):
        Predictor.of(open_run(made[1].folder))


def test_the_page_shows_both_side_by_side(plan: Any, made: list[Any], tmp_path: Path) -> None:
    pytest.importorskip("altair")
    from decant.pipeline.report.output import make_report
    from decant.pipeline.report.subject import of_recipe

    report = make_report(of_recipe(plan.recipe, plan.base, plan.store, CPU), tmp_path)
    assert not report.missing
    page = (tmp_path / "report.html").read_text()
    for said in ("Next tokens, side by side", "mass left out", "Test sample 0", "further down is better"):
        assert said.lower() in page.lower()
    stored, cache = "".join(page.split("What the cache saved")[-1].split()), plan.open_cache()
    assert f"{cache.path.stat().st_size:,}bytes" in stored
    assert f"{2 * cache.num_outputs:,}bytesaposition" in stored
    assert re.search(r"one,inplaceofoneforeachofthe\d+epochsof\d+student", stored)
    assert '<span class="token mark">' in page, "the token that follows is in bold"
    assert "ms a sample" in page
    assert "multiply-adds" not in page.split("<script")[0]
    teacher = np.exp(-plan.open_cache("test").next_log_prob(np.arange(len(plan.data.samples("test")))).mean())
    assert f"{teacher:.2f}onall,fromthecache" in "".join(page.split())
    gain = next(gain for gain in report.gains if made[1] in gain.student.results)
    assert gain.mean == pytest.approx(made[0].metrics["perplexity"] - made[1].metrics["perplexity"])
    assert ("below labels only" in str(gain)) == (gain.mean >= 0)


class Stopped(Exception):
    """Ends training in the middle of an epoch."""


TOGETHER = ("student.parallel='batch'", "student.tokens_per_batch=60")
STEPS = ("student.accumulate=3", "student.clip_norm=0.5")
DROPPING = (
    "student.network={name='llama', hidden_size=24, intermediate_size=48, num_hidden_layers=2, "
    "num_attention_heads=2, num_key_value_heads=1, attention_dropout=0.3}",
    "student.baseline=false",
    "student.checkpoint_steps=1",
    "student.tokens_per_batch=256",
)


def train_together(folder: Path) -> None:
    """What each of several ranks does: students and a teacher; and one that is stopped within an epoch and goes on."""
    from decant.pipeline.phases.language.teacher import make_teacher
    from decant.pipeline.training.step import Step

    make_teacher(plan_of(folder, base="own"), CPU)
    students(plan_of(folder, *TOGETHER, *STEPS, base="ranks"))
    dropping = (*TOGETHER, *DROPPING)
    students(plan_of(folder, *dropping, base="dropping"))
    step = Step.__call__

    def stopping(
        self: Step, batch: Any, progress: float, size: int | None = None, last: bool = False, number: int = 0
    ) -> Any:
        if number == 13:
            raise Stopped
        return step(self, batch, progress, size, last, number)

    Step.__call__ = stopping  # type: ignore[method-assign]
    with pytest.raises(Stopped):
        students(plan_of(folder, *dropping, base="stopped"))
    Step.__call__ = step  # type: ignore[method-assign]
    students(plan_of(folder, *dropping, base="stopped"))


@pytest.fixture(scope="module")
def together(folder: Path, plan: Any) -> str:
    """What two ranks say that train students together."""
    for base in ("ranks", "dropping", "stopped"):
        shutil.copytree(plan.teacher.folder, folder / base / plan.teacher.folder.name)
    return run_forked(2, train_together, folder, folder=folder)


def test_ranks_train_a_student_as_one_process_does(folder: Path, plan: Any, together: str) -> None:
    """With fewer samples than ranks in some batches, and other numbers of tokens on each rank."""
    alone = [*students(plan_of(folder, *TOGETHER, *STEPS)), plan.teacher]
    ranks = [*students(plan_of(folder, *TOGETHER, *STEPS, base="ranks")), plan_of(folder, base="own").teacher]
    for one, other in zip(alone, ranks, strict=True):
        ours, theirs = weights(one), weights(other)
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-5
        for line, of_ranks in zip(read_epochs(one.folder), read_epochs(other.folder), strict=True):
            assert of_ranks["loss"] == pytest.approx(line["loss"], rel=1e-5)
        assert other.folder.name == one.folder.name
        assert other.metrics["perplexity"] == pytest.approx(one.metrics["perplexity"], rel=1e-4)


def test_ranks_that_go_on_within_an_epoch_end_with_the_very_weights(folder: Path, together: str) -> None:
    """Also of a network that draws random numbers, which is said."""
    (whole,), (stopped,) = (
        (folder / base).rglob("student-*/*/result.json") for base in ("dropping", "stopped")
    )
    one, other = (json.loads(path.read_text())["weights_sha256"] for path in (whole, stopped))
    assert one == other
    assert together.count("draws random numbers, as for dropout, and others on each number of ranks") == 1
    assert "Warning" not in together
    assert "student.tokens_per_batch: is of all 2 ranks together, and " in together
