"""`decant teacher`, `cache-logits`, `status` and `cache verify` with a language model's recipe."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from decant.cache import LogitCache, Store
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.phases.cache_logits import RowsWritten, cache_logits, cache_part
from decant.pipeline.phases.kinds import plan_of
from decant.pipeline.phases.language.plan import LanguagePlan
from decant.pipeline.phases.passes import pass_of
from decant.pipeline.support.notices import forget_what_was_said
from tests.helpers.commands import decant, succeed

CPU = torch.device("cpu")
WORDS = ("--recipe", "lm.toml")


@pytest.fixture(scope="module")
def taught(folder: Path) -> Path:
    """With the teacher taken as it is, and the caches of one process in `caches`."""
    succeed(decant("teacher", *WORDS, cwd=folder))
    succeed(decant("cache-logits", *WORDS, cwd=folder))
    return folder


def plan(folder: Path, monkeypatch: pytest.MonkeyPatch, store: str = "caches", *more: str) -> LanguagePlan:
    monkeypatch.chdir(folder)
    made = plan_of(load_recipe("lm.toml", more), Path("runs/lm"), Store(store))
    assert isinstance(made, LanguagePlan)
    return made


def caches(folder: Path, store: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / store).glob("*.h5")}


def test_a_teacher_that_is_taken_stays_where_it_is(taught: Path) -> None:
    (made,) = (taught / "runs/lm").glob("teacher-*")
    result = json.loads((made / "result.json").read_text())
    assert not list(made.glob("*.safetensors")), "its weights are not copied"
    assert result["metrics"]["perplexity"] > 1
    assert result["network"]["num_classes"] == 340, "rows of the head that pad the vocabulary are no tokens"


def test_each_part_has_a_cache_and_no_document_is_in_two(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = plan(taught, monkeypatch)
    assert here.data.parts == ("train", "validation", "test")
    documents = [set(here.data.samples(part).documents.tolist()) for part in here.data.parts]
    assert sum(map(len, documents)) == len(set.union(*documents)) == 120
    for part in here.data.parts:
        assert here.open_cache(part).num_samples == len(here.data.samples(part))
    again = succeed(decant("cache-logits", *WORDS, cwd=taught))
    assert again.count("nothing to do, no teacher was loaded") == 3


def test_parts_and_a_pass_that_goes_on_make_the_very_files_of_one_pass(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 0):
        for each in plan(taught, monkeypatch, "parts").by_cache:
            made = cache_part(each, CPU, (number, 2))
            if number == 1:
                assert isinstance(made, RowsWritten)
    assert caches(taught, "parts") == caches(taught, "caches")


def test_a_pass_that_was_killed_goes_on_and_ends_in_the_same_file(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = plan(taught, monkeypatch, "killed")
    half = cache_part(here, CPU, (0, 2))
    assert isinstance(half, RowsWritten)
    rest = cache_logits(here, CPU, print)
    assert half.rows > 0
    assert half.rows + rest.rows == here.samples.num_positions.sum()
    assert rest.cache.path.read_bytes() == (taught / "caches" / rest.cache.path.name).read_bytes()


def test_ranks_of_torchrun_make_the_very_files(taught: Path) -> None:
    from tests.helpers.forked_ranks import run_forked

    done = run_forked(2, lambda rank: ["cache-logits", *WORDS, "--store", "ranks", "--json"], taught)
    assert [rank.returncode for rank in done] == [0, 0], done
    made = json.loads(done[0].stdout)
    assert [each["split"] for each in made] == ["train", "validation", "test"]
    assert caches(taught, "ranks") == caches(taught, "caches")


def test_a_dry_run_makes_nothing(taught: Path) -> None:
    out = succeed(decant("cache-logits", *WORDS, "--dry-run", "--ranks", "2", "--store", "none", cwd=taught))
    assert all(words in out for words in ("outputs a row", "would make", "2 ranks")), out
    assert not list((taught / "none").glob("*.h5"))


def test_that_the_students_of_a_recipe_cannot_learn_from_its_cache_is_said_before_the_pass(
    taught: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    useless = "the recipe's own students cannot learn from this cache: student.objective"
    for objective, said in (
        ("{name='kd', temperature=1.0}", None),
        ("{name='dkd'}", f"{useless} 'dkd': the cache has some logits of each position"),
        ("{name='kd', temperature=4.0}", f"{useless}.temperature 4: the cache has the mass"),
        ("{name='kd', temperature=4.0, interpolate=true}", None),
    ):
        forget_what_was_said()
        here = plan(
            taught,
            monkeypatch,
            "useless",
            f"student.objective={objective}",
            "cache.encoding={kind='sparse', draws=8}",
        )
        pass_of(here)
        pass_of(here.of_part("test"))
        err = capsys.readouterr().err
        assert err.count(useless) == (said is not None), err
        assert said is None or said in err


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ("{name='llamma'}", "llamma"),
        ("{name='llama', hidden_sise=8}", "hidden_sise"),
        ("{name='llama', hidden_size=30, num_attention_heads=4}", "heads"),
        ("{name='cut', layers=[99]}", "99"),
        ("{name='cut', layers=[0]}", None),
    ],
)
def test_that_the_network_of_students_cannot_be_built_is_said_before_the_pass(
    taught: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    network: str,
    said: str | None,
) -> None:
    forget_what_was_said()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)  # GPUs that are left alone
    pass_of(plan(taught, monkeypatch, "untrainable", f"student.network={network}"))
    untrainable, err = "the recipe's own students cannot be trained: ", capsys.readouterr().err
    assert err.count(untrainable) == (said is not None), err
    assert said is None or said in err.partition(untrainable)[2]


@pytest.mark.parametrize(
    "encoding",
    ["'hidden'", "'dense'", "{ kind = 'sparse', draws = 8, views = 2 }"],
)
def test_every_encoding_holds_what_the_teacher_says(
    taught: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    from decant.pipeline.phases.any_recipe import compare_with_teacher

    here = plan(taught, monkeypatch, "encodings", f"cache.encoding={encoding}")
    made = cache_logits(here, CPU, print)
    assert made.rows == here.num_views * here.samples.num_positions.sum()
    assert compare_with_teacher(here, 100, CPU).agrees
    found = cache_logits(plan(taught, monkeypatch, "encodings", f"cache.encoding={encoding}"), CPU, print)
    assert (found.seconds, found.rows) == (None, 0)
    held_out = cache_logits(here.of_part("test"), CPU, print).cache
    assert held_out.num_views == 1
    assert getattr(held_out.manifest.encoding, "draws", 0) == 0, "students are measured with no draws"


def test_draws_differ_from_view_to_view(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(taught, monkeypatch, "draws", "cache.encoding={ kind = 'sparse', draws = 8, views = 2 }")
    cache = cache_logits(here, CPU, print).cache
    first, second = (cache.rows([0], view).ids for view in range(2))
    assert not np.array_equal(first, second)


def test_status_shows_every_cache_and_what_differs(taught: Path) -> None:
    out = succeed(decant("status", *WORDS, cwd=taught))
    assert out.count("done") == 4
    assert all(words in out for words in ("cache of validation", "next: decant student")), out
    stale = succeed(decant("status", *WORDS, "--set", "cache.encoding.head=17", cwd=taught))
    assert "cache.encoding.head: expected 17, found 16" in stale
    elsewhere = succeed(decant("status", *WORDS, "--runs", "other", cwd=taught))
    assert "done" not in elsewhere
    assert not (taught / "other").exists(), "status writes no tokens"


def test_a_teacher_in_another_folder_finds_the_cache(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(taught, monkeypatch)
    if not (taught / "moved").exists():
        (taught / "moved").symlink_to(taught / "teacher")
    there = plan(taught, monkeypatch, "caches", "teacher.network=transformers:moved")
    succeed(decant("teacher", *WORDS, "--set", "teacher.network=transformers:moved", cwd=taught))
    assert there.manifest.key == here.manifest.key, "what a teacher is, not where it lies, is its identity"


def test_weights_that_have_changed_since_they_were_taken_are_refused(taught: Path, tmp_path: Path) -> None:
    import shutil

    from tests.helpers import language

    for name in ("lm.toml", "texts.jsonl"):
        shutil.copy(taught / name, tmp_path / name)
    shutil.copytree(taught / "teacher", tmp_path / "teacher")
    succeed(decant("teacher", *WORDS, cwd=tmp_path))
    language.llama(352, seed=1).save_pretrained(tmp_path / "teacher")
    refused = decant("cache-logits", *WORDS, cwd=tmp_path)
    assert refused.returncode == 1
    assert one_line(refused) == ("teacher: has other weights than when it was taken for runs/lm/")


def one_line(run: subprocess.CompletedProcess[str]) -> str:
    """What is said, up to the digest of a folder."""
    (line,) = [line for line in run.stderr.splitlines() if line.startswith("decant: ")]
    return line.removeprefix("decant: ").partition("teacher-transformers")[0]


def test_chats_are_learnt_from_where_the_assistant_speaks(
    taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats = ("data.root=chats.jsonl", "data.targets=assistant", "data.max_length=128")
    every = plan(taught, monkeypatch, "chats", *chats, "data.targets=all")
    own = plan(taught, monkeypatch, "chats", *chats)
    assert 0 < own.samples.num_positions.sum() < every.samples.num_positions.sum()


def test_a_cache_is_opened_as_what_it_is(taught: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = plan(taught, monkeypatch)
    path = here.find_cache()
    assert path is not None
    assert isinstance(here.open_cache(), LogitCache)
    given = plan(taught, monkeypatch, "nowhere", f"cache.from={path}")
    assert given.open_cache().manifest.key == here.manifest.key
