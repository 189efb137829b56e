"""A run folder keeps its recipe, and tells in which decisive settings another differs."""

from __future__ import annotations

from pathlib import Path

from decant.pipeline.runs.saved_recipe import changed_settings, save_recipe
from tests.helpers.small import recipe


def test_a_run_folder_says_which_deciding_settings_changed_since(tmp_path: Path) -> None:
    save_recipe(
        tmp_path, recipe("student.seed=3", "student.objective.temperature=2", "teacher.evaluate_every=7")
    )
    found = changed_settings(recipe(), tmp_path, ("data", "views", "teacher", "student"))
    assert [str(one) for one in found or ()] == ["student.objective.temperature: expected 4.0, found 2.0"]
    assert changed_settings(recipe(), tmp_path, ("teacher",)) == []


def test_a_run_folder_without_a_recipe_tells_nothing(tmp_path: Path) -> None:
    assert changed_settings(recipe(), tmp_path, ("teacher",)) is None
    (tmp_path / "recipe.toml").write_text("[teacher", "utf-8")
    assert changed_settings(recipe(), tmp_path, ("teacher",)) is None
