"""The phases of a recipe: what is made, what is being made, and what other settings have made."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from decant.cache import Store
from decant.cache.exchange.logits import import_logits
from decant.pipeline.config.recipe import Recipe, load_recipe
from decant.pipeline.phases.cache_logits import cache_logits
from decant.pipeline.phases.datasets import RecipeData
from decant.pipeline.phases.plan import Plan
from decant.pipeline.phases.student import train_students
from decant.pipeline.phases.teacher import make_teacher
from decant.pipeline.runs.result import RESULT
from decant.pipeline.status import Overview, next_command
from decant.pipeline.status.phase_state import Phase
from tests.helpers.commands import only, start
from tests.helpers.forked_commands import ForkedCommand
from tests.helpers.processes import wait_until
from tests.helpers.small import CPU, recipe

SEEDS = "student.seeds=2"
MANY_VIEWS = ("views.count=2000", 'views.augment=[{op="flip"}]')
TWO = ('knowledge.network={name="mlp", hidden=8, layers=1}', "knowledge.epochs=1")


def overview(folder: Path, one: Recipe) -> Overview:
    return Overview(Plan.of(one, folder / "runs/digits", Store(folder / "caches"), decode="none"))


def look(folder: Path, *overrides: str) -> dict[str, Phase]:
    """The phases of the small recipe by name."""
    return {phase.name: phase for phase in overview(folder, recipe(*overrides)).phases()}


def states(folder: Path, *overrides: str) -> list[str]:
    return [phase.state for phase in look(folder, *overrides).values()]


def make(folder: Path, one: Recipe, *phases: str) -> None:
    """Carries phases out, all of them unless they are named."""
    plan = Plan.of(one, folder / "runs/digits", Store(folder / "caches"))
    for each in plan.by_teacher:
        if "teacher" in phases or not phases:
            make_teacher(each, CPU)
        if "cache-logits" in phases or not phases:
            cache_logits(each, CPU, print)
    if "student" in phases or not phases:
        list(train_students(plan, CPU))


def everything_in(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Every file and folder with its inode, size and time of change."""
    found = {}
    for path in [folder, *folder.rglob("*")]:
        of = path.stat()
        found[path] = of.st_ino, of.st_size, of.st_mtime_ns
    return found


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[tuple[list[str], str]]]:
    """A folder in which everything was made, and the states and next command before and after each phase."""
    folder, one, found = tmp_path_factory.mktemp("status"), recipe(SEEDS), []
    for phase in ("", "teacher", "cache-logits", "student"):
        if phase:
            make(folder, one, phase)
        seen = overview(folder, one).phases()
        found.append(([each.state for each in seen], next_command(one, seen)[0].split()[1]))
    return folder, found


@pytest.fixture
def made(steps: tuple[Path, Any], tmp_path: Path) -> Path:
    """A copy of that folder, to be spoilt."""
    return shutil.copytree(steps[0], tmp_path / "made")


def test_one_phase_after_the_other_is_done_and_the_next_command_follows(steps: tuple[Path, Any]) -> None:
    assert steps[1] == [
        (["missing", "missing", "missing", "missing"], "teacher"),
        (["done", "missing", "missing", "missing"], "cache-logits"),
        (["done", "done", "missing", "missing"], "student"),
        (["done", "done", "done", "done"], "report"),
    ]


def test_what_is_done_says_where_it_lies_and_how_good_it_is(made: Path) -> None:
    found = look(made, SEEDS)
    result = json.loads(only(made, f"runs/digits/teacher-*/{RESULT}").read_text())
    assert found["teacher"].path == only(made, "runs/digits/teacher-*")
    assert found["teacher"].figure == f"top-1 {100 * result['metrics']['top1']:.2f} %"
    assert found["cache"].path == only(made, "caches/*.h5")
    assert found["distilled students"].path == only(made, "runs/digits/student-*-kd-*")
    assert len(found["distilled students"].results) == found["distilled students"].seeds == 2
    assert " ± " in found["labels-only students"].figure


def test_a_seed_more_is_missing(made: Path) -> None:
    found = look(made, "student.seeds=3")
    assert [phase.state for phase in found.values()] == ["done", "done", "missing", "missing"]
    assert [len(phase.results) for phase in found.values()] == [1, 0, 2, 2]
    assert states(made, "student.baseline=false") == ["done", "done", "done"]


@pytest.mark.parametrize(
    ("setting", "expected", "field"),
    [
        ("teacher.lr=0.07", ["stale", "stale", "done", "stale"], "teacher.lr: expected 0.07, found 0.003"),
        (
            "cache.dtype=float32",
            ["done", "stale", "done", "stale"],
            "cache.dtype: expected 'float32', found 'float16'",
        ),
        ("student.lr=0.07", ["done", "done", "stale", "stale"], "student.lr: expected 0.07, found 0.03"),
        (
            "student.objective.temperature=2.0",
            ["done", "done", "done", "stale"],
            "student.objective.temperature: expected 2.0, found 4.0",
        ),
    ],
)
def test_a_changed_setting_makes_stale_what_it_decides_and_is_named(
    setting: str, expected: list[str], field: str, made: Path
) -> None:
    found = look(made, SEEDS, setting)
    assert [phase.state for phase in found.values()] == expected
    for phase in found.values():
        assert [str(one) for one in phase.changed] == ([field] if phase.state == "stale" else [])


def test_nothing_is_written_whatever_the_state(made: Path) -> None:
    (only(made, "runs/digits/student-*-kd-*") / "seed-0" / RESULT).unlink()
    (only(made, "runs/digits/student-*-labels-*") / "seed-0" / RESULT).write_text("{")
    before = everything_in(made)
    expected = {"damaged", "interrupted", "stale"}
    assert expected <= {state for one in ((), ("teacher.lr=0.07",)) for state in states(made, SEEDS, *one)}
    assert everything_in(made) == before
    assert not [path for path in made.rglob("*") if path not in before]


def test_without_its_cache_a_student_is_as_done_as_before(made: Path) -> None:
    only(made, "caches/*.h5").unlink()
    assert states(made, SEEDS) == ["done", "missing", "done", "done"]


def test_without_its_teacher_everything_behind_it_is_of_one_that_is_missing(made: Path) -> None:
    shutil.rmtree(only(made, "runs/digits/teacher-*"))
    found = look(made, SEEDS)
    assert [phase.state for phase in found.values()] == ["missing", "missing", "done", "stale"]
    assert found["distilled students"].detail.endswith("the teacher that it came from is missing")


def test_damaged_files_are_said(made: Path) -> None:
    only(made, "caches/*.h5").unlink()
    (made / "caches" / "cut.h5").write_bytes(b"")
    (only(made, "runs/digits/teacher-*") / RESULT).write_text("nothing")
    found = look(made, SEEDS)
    assert [phase.state for phase in found.values()] == ["damaged", "missing", "done", "stale"]
    assert f"{RESULT}: damaged" in found["teacher"].detail


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module whose `digits` are data of one's own, and which counts how often they are read."""

    class Rows:
        classes = ("zero", "one", "two")

        def __init__(self, root: str, split: str) -> None:
            module.reads += 1  # type: ignore[attr-defined]

        def __len__(self) -> int:
            return 40

        def __getitem__(self, index: int) -> tuple[Any, int | None]:
            label = index % 3 if module.labelled else None  # type: ignore[attr-defined]
            return np.array([index % 3, module.value], "f4"), label  # type: ignore[attr-defined]

    module = ModuleType("own_rows")
    vars(module).update(digits=Rows, reads=0, value=1, labelled=True)
    monkeypatch.setitem(sys.modules, "own_rows", module)
    return module


def own_recipe(folder: Path) -> Recipe:
    """Of such data."""
    network = '{ name = "mlp", hidden = 4, layers = 1 }'
    (folder / "digits.toml").write_text(
        f'[data]\nname = "own_rows:digits"\n[teacher]\nnetwork = {network}\nepochs = 1\n'
        f"[student]\nnetwork = {network}\nepochs = 1\n"
    )
    return load_recipe(str(folder / "digits.toml"))


def test_data_of_other_content_make_everything_stale_though_no_setting_differs(
    rows: ModuleType, tmp_path: Path
) -> None:
    one = own_recipe(tmp_path)
    make(tmp_path, one)
    rows.value = 2  # type: ignore[attr-defined]
    found = overview(tmp_path, one).phases()
    assert [phase.state for phase in found] == ["stale"] * 4
    assert [phase.changed for phase in found] == [()] * 4
    assert found[0].detail == found[2].detail
    assert "the data, or a file that the recipe names, changed" in found[0].detail
    assert "the teacher that it came from is stale" in found[1].detail


def test_networks_that_were_measured_on_another_test_part_are_to_be_measured_on_this_one(
    tmp_path: Path,
) -> None:
    """`status` said that all was done, and the report that it named that nothing was finished."""
    for part, count in (("train", 8), ("val", 4), ("other", 4)):
        for kind in ("a", "b"):
            (tmp_path / "images" / part / kind).mkdir(parents=True)
            for index in range(count):
                pixels = np.random.default_rng([index, *part.encode()]).integers(0, 256, (8, 8, 3), np.uint8)
                Image.fromarray(pixels).save(tmp_path / "images" / part / kind / f"{index}.png")
    of_folder = ("data.name=imagefolder", f"data.root={tmp_path}/images", "views.size=8", "views.resize=8")
    make(tmp_path, recipe(*of_folder))
    assert set(states(tmp_path, *of_folder)) == {"done"}
    other = (*of_folder, "data.test=other")
    phases = look(tmp_path, *other)
    assert {
        name: (phase.state, phase.detail) for name, phase in phases.items() if phase.results
    } == dict.fromkeys(
        ("teacher", "labels-only students", "distilled students"), ("stale", "measured on another test part")
    )
    assert phases["cache"].state == "done"
    for command in ("teacher", "student", "report"):
        asked = recipe(*other)
        assert next_command(asked, list(look(tmp_path, *other).values()))[0] == asked.command(command)
        if command != "report":
            make(tmp_path, asked, command)


def test_the_data_are_read_once_however_often_one_looks(rows: ModuleType, tmp_path: Path) -> None:
    seen = overview(tmp_path, own_recipe(tmp_path))
    seen.phases()
    reads = rows.reads  # type: ignore[attr-defined]
    assert reads > 0
    seen.phases()
    assert rows.reads == reads  # type: ignore[attr-defined]


def test_data_that_would_be_downloaded_are_not_read_before_there_is_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = Overview(
        Plan.of(load_recipe("cifar10"), Path("runs/cifar10"), Store("caches"), decode="none")
    ).phases()
    assert [phase.name for phase in found] == [*look(tmp_path)]
    assert {phase.state for phase in found} == {"missing"}
    assert list(tmp_path.iterdir()) == []


def test_without_labels_nobody_learns_from_them_alone(rows: ModuleType, tmp_path: Path) -> None:
    rows.labelled = False  # type: ignore[attr-defined]
    names = [phase.name for phase in overview(tmp_path, own_recipe(tmp_path)).phases()]
    assert names == ["teacher", "cache", "distilled students"]


def test_of_an_image_folder_no_pack_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DECANT_STORE", str(tmp_path / "caches"))
    for name in ("train/cat", "train/dog", "test/cat", "test/dog"):
        (tmp_path / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / name / "0.png")
    before = everything_in(tmp_path)
    folder = ('data.name="imagefolder"', f"data.root={json.dumps(str(tmp_path))}", 'data.pack="always"')
    assert states(tmp_path, *folder) == ["missing"] * 4
    assert everything_in(tmp_path) == before


def test_a_given_cache_stands_for_teacher_and_cache(made: Path) -> None:
    path = only(made, "caches/*.h5")
    given = f"cache.from={json.dumps(str(path))}"
    found = look(made, SEEDS, given)
    assert [(each.name, each.state) for each in found.values()] == [
        ("cache", "done"),
        ("labels-only students", "done"),
        ("distilled students", "done"),
    ]
    assert found["cache"].path == path
    assert "1,437 samples × 10 classes" in found["cache"].detail


def test_a_given_cache_that_is_gone_or_damaged_or_of_other_views_is_said(made: Path) -> None:
    whole = only(made, "caches/*.h5")
    cut = made / "cut.h5"
    cut.write_bytes(whole.read_bytes()[:-50])
    names = json.dumps([str(made / "gone.h5"), str(cut), str(whole)])
    several = overview(
        made, recipe(SEEDS, "views.count=2", 'views.augment=[{op="flip"}]', f"cache.from={names}")
    )
    gone, damaged, other, *_, distilled = several.phases()
    assert [gone.state, damaged.state, other.state] == ["missing", "damaged", "stale"]
    assert "gone.h5: no such cache" in gone.detail
    assert "cut short" in damaged.detail
    assert "views.count: expected 2, found 1" in map(str, other.changed)
    assert distilled.state == "stale"
    assert next_command(several.plan.recipe, several.phases())[0].startswith("decant student")


def test_given_caches_that_do_not_go_together_are_said(made: Path, tmp_path: Path) -> None:
    data = RecipeData(recipe().settings)
    labels = data.student_data.labels
    other = import_logits(
        Store(tmp_path),
        np.zeros((len(labels), 10), np.float32),
        labels[::-1],
        teacher={"name": "x"},
        **data.student_fingerprints,
    )
    names = json.dumps([str(only(made, "caches/*.h5")), str(other)])
    first, second, _, distilled = overview(made, recipe(f"cache.from={names}")).phases()
    assert (first.state, second.state) == ("done", "done")
    assert distilled.state == "stale"
    assert "other classes or labels" in distilled.detail


def test_each_of_two_teachers_has_its_phases(tmp_path: Path) -> None:
    one = recipe(*TWO)
    names = [
        "teacher",
        "knowledge",
        "cache",
        "cache of knowledge",
        "labels-only students",
        "distilled students",
    ]
    assert [phase.name for phase in overview(tmp_path, one).phases()] == names
    make_teacher(Plan.of(one, tmp_path / "runs/digits"), CPU)
    assert states(tmp_path, *TWO) == ["done", *["missing"] * 5], "the first is not an older second"
    make(tmp_path, one)
    assert states(tmp_path, *TWO) == ["done"] * 6
    found = look(tmp_path, *TWO, "knowledge.lr=0.5")
    assert [phase.state for phase in found.values()] == ["done", "stale", "done", "stale", "done", "stale"]
    stale = [found[name] for name in ("knowledge", "cache of knowledge", "distilled students")]
    assert [[str(one) for one in phase.changed] for phase in stale] == [
        ["knowledge.lr: expected 0.5, found 0.1"]
    ] * 3


def test_what_is_running_is_awaited_and_not_begun_again() -> None:
    def following(*found: str) -> tuple[str, bool]:
        commands = ("teacher", "cache-logits", "student", "student")
        named = (Phase(each, each, state=state) for each, state in zip(commands, found, strict=True))  # type: ignore[arg-type]
        command, waiting = next_command(replace(recipe(), options=()), list(named))
        return command, waiting

    assert following("running", "stale", "missing", "stale") == ("decant cache-logits", True)
    assert following("interrupted", "missing", "missing", "missing") == ("decant teacher", False)
    assert following("done", "damaged", "done", "stale") == ("decant cache-logits", False)
    assert following("done", "running", "missing", "missing") == ("decant student", True)
    assert following("done", "done", "missing", "running") == ("decant report", True)
    assert following("done", "done", "done", "done") == ("decant report", False)


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Phase, Phase]]:
    """A teacher and a cache while a real `decant` makes them, and after that was killed."""
    folder = tmp_path_factory.mktemp("killed")
    teacher, cache = recipe("teacher.epochs=9000"), recipe(*MANY_VIEWS)
    make(folder / "cache", cache, "teacher")
    (folder / "teacher").mkdir()
    running = {
        "teacher": (start("teacher", *teacher.options, cwd=folder / "teacher"), teacher),
        "cache": (start("cache-logits", *cache.options, cwd=folder / "cache"), cache),
    }
    try:
        during = {
            name: far_enough(process, folder / name, one, name) for name, (process, one) in running.items()
        }
    finally:
        for process, _ in running.values():
            process.kill()
            process.communicate()
    return {name: (during[name], look_at(folder / name, one, name)) for name, (_, one) in running.items()}


def look_at(folder: Path, one: Recipe, name: str) -> Phase:
    return next(phase for phase in overview(folder, one).phases() if phase.name == name)


def far_enough(process: ForkedCommand, folder: Path, one: Recipe, name: str) -> Phase:
    """A phase once it is well under way."""
    seen: list[Phase] = []

    def under_way() -> bool:
        seen.append(look_at(folder, one, name))
        progress = seen[-1].progress
        return progress is not None and progress.done >= 2

    wait_until(under_way, process, every=0.2)
    return seen[-1]


def test_a_teacher_is_running_until_it_is_killed_and_then_interrupted(
    killed: dict[str, tuple[Phase, Phase]],
) -> None:
    during, after = killed["teacher"]
    assert (during.state, after.state) == ("running", "interrupted")
    assert during.progress is not None
    assert (during.progress.total, during.progress.unit) == (9000, "epochs")
    assert during.progress.seconds_left is not None
    assert during.progress.seconds_left > 0
    assert (during.holder or "").startswith("process ")
    assert after.holder is None
    assert after.progress is not None
    assert during.progress.done <= after.progress.done < 9000


def test_a_cache_is_running_until_its_builder_is_killed_and_then_interrupted(
    killed: dict[str, tuple[Phase, Phase]],
) -> None:
    during, after = killed["cache"]
    assert (during.state, after.state) == ("running", "interrupted")
    assert during.progress is not None
    assert (during.progress.total, during.progress.unit) == (2000 * 1437, "rows")
    assert after.progress is not None
    assert during.progress.done <= after.progress.done < after.progress.total
