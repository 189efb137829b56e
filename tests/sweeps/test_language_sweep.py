"""A sweep of a language model: chosen by perplexity or by the distance from the teacher; the less, the better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("optuna", reason="optuna is not installed; run: pip install 'decant-kd[sweep]'")

from decant.pipeline.errors import NotMadeError, RecipeError
from decant.pipeline.runs.result import load_result
from tests.helpers import language
from tests.helpers.extras import needs

pytestmark = needs("transformers")
CPU = torch.device("cpu")
RECIPE = """
[data]
name = "tokens"
root = "{root}/texts.jsonl"
tokenizer = "bpe:300"
max_length = 32
test_share = 0.2
validation = 0.2
[teacher]
epochs = 2
optimizer = "adamw"
lr = 1e-2
tokens_per_batch = 512
[teacher.network]
name = "llama"
hidden_size = 16
intermediate_size = 32
num_hidden_layers = 2
num_attention_heads = 2
[cache.encoding]
kind = "sparse"
head = 8
[student]
network = {{ name = "cut", layers = [0, 1] }}
epochs = 1
optimizer = "adamw"
lr = 2e-3
tokens_per_batch = 512
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("language-sweeps")
    (root / "texts.jsonl").write_text(
        "".join(json.dumps({"text": text}) + "\n" for text in language.sentences(60))
    )
    (root / "r.toml").write_text(RECIPE.format(root=root))
    return root


def sweep_of(folder: Path, *over: str, **sweep: object) -> Any:
    from decant.cache import Store
    from decant.pipeline.config.recipe import load_recipe
    from decant.pipeline.phases.language.plan import LanguagePlan
    from decant.pipeline.sweeps.definition import Sweep

    given = {"sampler": json.dumps("grid"), "seeds": 1, **sweep}
    words = [f"sweep.over={list(over)}", *(f"sweep.{key}={value}" for key, value in given.items())]
    recipe = load_recipe(str(folder / "r.toml"), words)
    return Sweep.of(LanguagePlan.of(recipe, folder / "runs", Store(folder / "caches")))


def run(sweep: Any) -> Any:
    from decant.pipeline.sweeps.conclusion import conclude
    from decant.pipeline.sweeps.kinds import students_of
    from decant.pipeline.sweeps.readiness import check
    from decant.pipeline.sweeps.stages import Stages

    students = students_of(sweep, CPU)
    check(sweep, students)
    return conclude(sweep, Stages(sweep, students))


@pytest.fixture(scope="module")
def made(folder: Path) -> Path:
    """The same with the teacher, and the caches of all encodings that are tried."""
    from decant.pipeline.phases.cache_logits import cache_logits
    from decant.pipeline.phases.language.teacher import make_teacher

    sweep = sweep_of(folder, "cache.encoding.head=4,16")
    make_teacher(sweep.plan, CPU)
    kept = [cache_logits(plan, CPU, lambda holder: None).cache.manifest for plan in sweep.caches]
    assert [manifest.encoding.head for manifest in kept] == [8, 8, 4, 16], (
        "no cache is made that nothing reads"
    )
    for plan in sweep_of(folder, "student.lr=0.001,0.01").caches:
        cache_logits(plan, CPU, lambda holder: None)
    return folder


def trials(record: Any, name: str) -> list[Any]:
    return next(stage.trials for stage in record.stages if stage.name == name)


def test_encodings_are_chosen_by_perplexity_and_the_test_part_is_not_read(made: Path) -> None:
    from decant.pipeline.report.sweep_sections.frontier import frontier
    from decant.pipeline.report.sweep_subject import SweepSubject
    from decant.pipeline.sweeps.wording import in_words

    sweep = sweep_of(made, "cache.encoding.head=4,16")
    record = run(sweep)
    assert record.metric == "perplexity"
    results = [load_result(sweep.plan.base / str(trial.folder)) for trial in trials(record, "students")]
    values = [
        result.validation["perplexity"] for result in results if result is not None and result.validation
    ]
    assert not any(result.is_tested for result in results if result is not None)
    assert len({result.cache for result in results if result is not None}) == 2
    best = record.best_of(record.stages[0])
    assert best is not None
    assert best.value == min(values) < max(values)
    assert all(trial.value is not None for stage in record.stages for trial in stage.trials)
    distilled, labels = record.conclusion.distilled["1"], record.conclusion.labels["1"]
    assert record.gain == (pytest.approx(labels - distilled), None)
    said = "\n".join(in_words(record))
    assert f"perplexity {'lower' if distilled < labels else 'higher'}" in said
    pytest.importorskip("altair")
    (points,) = (
        frontier(SweepSubject(sweep.folder, record)).charts["bytes"].to_dict()["layer"][0]["data"].values()
    )
    assert {one["trial"] for one in points if one["frontier"]} >= {best.number}


def test_trials_are_measured_on_the_test_part_where_a_report_asks_for_all(made: Path) -> None:
    from decant.pipeline.report.subject import of_runs

    sweep = sweep_of(made, "cache.encoding.head=4,16")
    run(sweep)
    for _ in range(2):  # and found the second time
        found = of_runs([sweep.plan.base], sweep.plan.store, CPU).results
        trained = [result for result in found if result.kind != "teacher"]
        assert len(trained) >= 4
        assert all(result.is_tested and result.metrics["perplexity"] > 1 for result in trained)


def test_the_distance_from_the_teacher_decides_where_it_is_named(made: Path) -> None:
    """Of students on the tokens alone too."""
    record = run(sweep_of(made, "student.network.layers=[0],[0,1]", metric=json.dumps("kl")))
    best = record.best_of(record.stages[0])
    assert best is not None
    assert best.value == min(trial.value for trial in trials(record, "students"))
    assert len(trials(record, "baseline")) == 2
    assert record.conclusion.labels["1"] > 0
    assert record.gain is not None


@pytest.mark.parametrize(
    ("over", "metric", "said"),
    [
        (
            "student.lr=0.1,0.2",
            "top1",
            "sweep.metric: 'top1' is none of these networks; known: perplexity, loss, kl",
        ),
        ("cache.encoding.head=4,16", "kl", 'another cache.encoding has others; choose by "perplexity"'),
        ('cache.precision="bfloat16","float32"', "kl", "settings of \\[cache\\] ask for another cache"),
    ],
)
def test_what_cannot_be_chosen_by_is_refused(folder: Path, over: str, metric: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        sweep_of(folder, over, metric=json.dumps(metric))


def test_an_encoding_without_a_cache_is_named(made: Path) -> None:
    with pytest.raises(NotMadeError, match=r"not built yet; run: decant cache-logits .*head=2"):
        run(sweep_of(made, "cache.encoding.head=2,4"))


def test_encodings_of_images_are_not_varied() -> None:
    from decant.pipeline.config.recipe import load_recipe
    from decant.pipeline.sweeps.space import parse_space

    with pytest.raises(RecipeError, match="ask for another cache"):
        parse_space(["cache.encoding.head=1,2"], load_recipe("digits"))


def test_students_of_another_teacher_are_not_compared_with_the_recipe_s_own(made: Path) -> None:
    from decant.cache import Store
    from decant.pipeline.config.recipe import load_recipe
    from decant.pipeline.phases.cache_logits import cache_logits
    from decant.pipeline.phases.language.plan import LanguagePlan
    from decant.pipeline.phases.language.teacher import make_teacher

    store, paths = Store(made / "caches"), []
    for seed in (0, 5):
        recipe = load_recipe(str(made / "r.toml"), [f"teacher.seed={seed}"])
        plan = LanguagePlan.of(recipe, made / "runs", store)
        make_teacher(plan, CPU)
        paths.append(json.dumps(str(cache_logits(plan, CPU, lambda holder: None).cache.path)))
    over = f"cache.from={','.join(paths)}"
    with pytest.raises(RecipeError, match=r"no cache of that part of the teacher of .*choose by"):
        run(sweep_of(made, over, metric=json.dumps("kl")))
    sweep = sweep_of(made, over)
    record = run(sweep)
    results = [load_result(sweep.plan.base / str(trial.folder)) for trial in trials(record, "students")]
    compared = {result.teacher: "kl" in (result.validation or {}) for result in results if result is not None}
    assert sorted(compared.values()) == [False, True]
    assert compared[sweep.plan.teacher.weights_sha256]


def test_a_range_of_encodings_is_refused(folder: Path) -> None:
    """Each would need a cache of its own."""
    with pytest.raises(RecipeError, match=r"cache\.encoding\.head=4\.\.16: .* give the values"):
        sweep_of(folder, "cache.encoding.head=4..16", sampler=json.dumps("tpe"))
