"""Names of networks in charts, tables and gains: equal ones are told apart by the settings that differ."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from decant.pipeline.report.rows import gains, markdown_table
from decant.pipeline.report.subject import Subject
from decant.pipeline.runs.result import find_results
from decant.pipeline.runs.saved_recipe import what_differs

OTHER = "student-conv-kd-01234567"


@pytest.fixture
def line(subject: Subject) -> str:
    """The student's learning rate in its recipe."""
    text = (subject.focus.folder / "recipe.toml").read_text("utf-8").partition("[student]")[2]
    return next(line for line in text.splitlines() if line.startswith("lr = "))


def beside(subject: Subject, folder: Path, old: str, new: str) -> Subject:
    """The subject with one more distilled student, of which a line of the recipe is another."""
    shutil.copytree(subject.base, folder, dirs_exist_ok=True)
    (own,) = {result.seeds_folder.name for result in find_results(folder) if result.kind == "distilled"}
    shutil.copytree(folder / own, folder / OTHER)
    for recipe in (folder / OTHER).glob("*/recipe.toml"):
        before, section, after = recipe.read_text("utf-8").partition("[student]")
        recipe.write_text(before + section + after.replace(old, new), "utf-8")
    return replace(subject, results=tuple(find_results(folder)))


def distilled(subject: Subject) -> list[str]:
    """The names of the distilled students."""
    assert len(set(subject.names)) == len(subject.names)
    return [name for name in subject.names if "kd" in name]


def test_networks_of_one_name_are_told_apart_by_their_settings(
    subject: Subject, tmp_path: Path, line: str
) -> None:
    both = beside(subject, tmp_path, line, "lr = 0.5")
    first, second = distilled(both)
    assert first.endswith(", lr 0.5")
    assert second.endswith(f", lr {line.removeprefix('lr = ')}")
    assert [str(gain).partition(":")[0] for gain in gains(both.rows)] == [first, second]
    table = markdown_table("both", both.rows)
    for name in (first, second):
        assert f"| {name.replace(', ', ' | ', 1)} |" in table
        assert f"\n{name}: " in table, "a gain"


def test_a_kind_is_called_what_it_is_the_kind_of(tmp_path: Path) -> None:
    folders = [tmp_path / kind for kind in ("sparse", "hidden")]
    for folder in folders:
        folder.mkdir()
        (folder / "recipe.toml").write_text(f'[cache.encoding]\nkind = "{folder.name}"\n')
    assert what_differs(folders) == ["encoding sparse", "encoding hidden"]


@pytest.mark.parametrize("new", ["{line}", "lr = 0.5 of what?"], ids=["equal", "unreadable"])
def test_those_whose_settings_do_not_tell_are_named_by_their_folder(
    subject: Subject, tmp_path: Path, line: str, new: str
) -> None:
    first, second = distilled(beside(subject, tmp_path, line, new.format(line=line)))
    assert first.endswith(", 01234567")
    assert second.startswith(first.removesuffix("01234567"))
