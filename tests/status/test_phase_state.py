"""What one phase is said to be: by its run folder, its seeds, or its file in the store."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from decant.cache import LogitCacheWriter, Store
from decant.cache.errors import Difference
from decant.pipeline.runs.locks import alone_with
from decant.pipeline.runs.result import RESULT, Result
from decant.pipeline.runs.saved_recipe import save_recipe
from decant.pipeline.status.outdated import Outdated
from decant.pipeline.status.phase_state import (
    Phase,
    State,
    mark_stale,
    with_cache,
    with_network,
    with_students,
)
from tests.helpers.caches import build, manifest, write
from tests.helpers.small import recipe, teach

HERE = Phase("it", "student", seeds=3)
CHANGED = Outdated(Path("other"), (Difference("teacher.lr", 1, 2),))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return teach(tmp_path_factory.mktemp("standing"), "teacher.epochs=1")


def finish(folder: Path, made: Result, top1: float = 0.5) -> None:
    metrics = {**made.metrics, "top1": top1}
    folder.mkdir(parents=True, exist_ok=True)
    replace(made, folder=folder, metrics=metrics).save()  # type: ignore[arg-type]


def test_a_network_is_missing_then_running_then_interrupted_then_done(made: Result, tmp_path: Path) -> None:
    folder, found = tmp_path / "run", list[Phase]()
    found.append(with_network(HERE, folder, 4))
    with alone_with(folder):
        found.append(with_network(HERE, folder, 4))
        save_recipe(folder, recipe())
    found.append(with_network(HERE, folder, 4))
    finish(folder, made)
    found.append(with_network(HERE, folder, 4))
    assert [one.state for one in found] == ["missing", "running", "interrupted", "done"]
    assert [one.progress and (one.progress.done, one.progress.total) for one in found] == [
        None,
        (0, 4),
        (0, 4),
        None,
    ]
    assert found[1].holder is not None
    assert found[1].holder.startswith("process ")
    assert found[3].finished == (folder / RESULT).stat().st_mtime
    assert found[3].figure == "top-1 50.00 %"


def test_networks_of_which_one_was_not_tested_yet_are_compared_on_the_validation_part(made: Result) -> None:
    """As trials of a sweep are."""
    tested = replace(made, metrics={"top1": 0.9}, validation={"top1": 0.75})  # type: ignore[arg-type]
    trial = replace(made, test_sha256="", metrics={}, validation={"top1": 0.25})  # type: ignore[arg-type]
    assert replace(HERE, results=(tested,)).figure == "top-1 90.00 %"
    assert replace(HERE, results=(trial,)).figure == "validation top-1 25.00 %"
    assert replace(HERE, results=(tested, trial)).figure == "validation top-1 50.00 ± 35.36 %"


def test_a_damaged_result_is_said_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / RESULT).write_text("{")
    found = with_network(HERE, tmp_path, 4)
    assert found.state == "damaged"
    assert f"{tmp_path / RESULT}: damaged" in found.detail
    assert "delete it" in found.detail


@pytest.mark.parametrize(
    ("seeds", "state"),
    [
        (["done", "done", "done"], "done"),
        (["done", "done", "missing"], "missing"),
        (["done", "interrupted", "missing"], "interrupted"),
        (["interrupted", "damaged", "done"], "damaged"),
        (["damaged", "interrupted", "running"], "running"),
    ],
)
def test_of_the_seeds_that_is_said_which_a_person_has_to_know(
    seeds: list[State], state: State, made: Result, tmp_path: Path
) -> None:
    held = tmp_path / "seed-2" if "running" in seeds else tmp_path / "seed-9"
    for seed, one in enumerate(seeds):
        if one == "done":
            finish(tmp_path / f"seed-{seed}", made, 0.5 + seed / 10)
        elif one == "damaged":
            (tmp_path / f"seed-{seed}").mkdir()
            (tmp_path / f"seed-{seed}" / RESULT).write_text("[]")
        elif one == "interrupted":
            save_recipe(tmp_path / f"seed-{seed}", recipe())
    with alone_with(held):
        found = with_students(HERE, tmp_path, range(3), 2)
    assert (found.state, found.path, found.seeds) == (state, tmp_path, 3)
    assert len(found.results) == seeds.count("done")
    if state in ("running", "interrupted"):
        assert found.progress is not None
        assert found.progress.seed == seeds.index(state)


def test_the_figure_of_several_seeds_is_their_mean_and_spread(made: Result, tmp_path: Path) -> None:
    for seed in range(3):
        finish(tmp_path / f"seed-{seed}", made, 0.5 + seed / 10)
    spread = 100 * statistics.stdev([0.5, 0.6, 0.7])
    assert with_students(HERE, tmp_path, range(3), 2).figure == f"top-1 60.00 ± {spread:.2f} %"
    assert HERE.figure == ""


def test_a_cache_is_missing_then_running_then_interrupted_then_done(tmp_path: Path) -> None:
    store, of, found = Store(tmp_path), manifest(), list[Phase]()
    path = store.path(of)
    found.append(with_cache(HERE, store, of))
    with LogitCacheWriter(path, of) as writer:
        write(writer, 0, range(50))
        found.append(with_cache(HERE, store, of))
    found.append(with_cache(HERE, store, of))
    renamed = build(path, of).rename(tmp_path / f"another-name-{of.key[:16]}.h5")
    found.append(with_cache(HERE, store, of))
    assert [one.state for one in found] == ["missing", "running", "interrupted", "done"]
    assert [one.progress and one.progress.done for one in found] == [None, 50, 50, None]
    assert [one.path for one in found] == [path, path, path, renamed]
    assert found[3].detail == "2 views of 50 samples × 1,000 classes, float16"


def test_a_published_file_that_is_cut_short_or_of_something_else_is_damaged(tmp_path: Path) -> None:
    store, of = Store(tmp_path), manifest()
    build(store.path(manifest(dtype="float32")), manifest(dtype="float32")).rename(store.path(of))
    found = with_cache(HERE, store, of)
    assert (found.state, found.path) == ("damaged", store.path(of))
    assert "encoding.dtype: expected 'float16', found 'float32'" in found.detail
    store.path(of).unlink()
    whole = build(store.path(of), of).read_bytes()
    store.path(of).unlink()
    store.path(of).write_bytes(whole[:-50])
    found = with_cache(HERE, store, of)
    assert found.state == "damaged"
    assert "cut short" in found.detail


def test_what_a_killed_builder_left_beside_its_published_file_is_left_alone(tmp_path: Path) -> None:
    store, of = Store(tmp_path), manifest()
    path = build(store.path(of), of)
    second = path.with_name(f"{path.name}.some_machine-0.partial")
    second.hardlink_to(path)
    assert with_cache(HERE, store, of).state == "done"
    assert second.exists()


def test_only_what_is_missing_becomes_stale_and_says_why() -> None:
    assert mark_stale(HERE, CHANGED) == replace(HERE, state="stale", outdated=CHANGED)
    assert mark_stale(HERE, CHANGED).changed == CHANGED.changed
    assert mark_stale(HERE, None) == HERE
    for state in ("done", "running", "interrupted", "damaged"):
        here = replace(HERE, state=state)  # type: ignore[arg-type]
        assert mark_stale(here, CHANGED) == here


def test_a_kind_of_which_some_seeds_are_done_is_not_stale(made: Result) -> None:
    here = replace(HERE, results=(made,))
    assert mark_stale(here, CHANGED) == here


def test_where_no_setting_differs_the_data_or_an_earlier_phase_did() -> None:
    same, before = Outdated(Path("other"), ()), Phase("cache", "cache-logits", state="interrupted")
    assert mark_stale(HERE, same).detail == (
        "no setting differs, but the data, or a file that the recipe names, changed"
    )
    assert mark_stale(HERE, same, before).detail == (
        "no setting differs, but the cache that it came from is interrupted"
    )
