"""An error is one line that names the file or the option, and says what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import click
import pytest

from decant.pipeline.cli.error_words import of_error, of_usage
from decant.pipeline.cli.main import decant


def test_a_file_in_the_place_of_a_folder_is_named_first_and_another_folder_asked_for(tmp_path: Path) -> None:
    taken = tmp_path / "runs"
    taken.touch()
    with pytest.raises(NotADirectoryError) as caught:
        (taken / "digits").mkdir()
    assert of_error(caught.value) == (
        f"{taken}/digits: Not a directory; a file has the name of a folder that is needed: name a folder that can be "
        "written, with --runs or --store"
    )


def test_where_this_user_may_not_write_another_folder_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs the tests as root may write everywhere, so the answer of the system is given here."""
    error = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(tmp_path / "runs"))
    assert of_error(error).endswith(": Permission denied")
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert of_error(error).endswith(
        ": Permission denied; name a folder that can be written, with --runs or --store"
    )


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("can't start new thread"),
        BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)),  # of a process
    ],
)
def test_where_no_thread_can_be_started_the_limit_is_named(error: Exception) -> None:
    said = of_error(error)
    assert said.startswith("no more threads or processes can be started (")
    assert "ulimit -u" in said or os.name == "nt"
    assert said.endswith(
        "end other programs or raise it, and run the same command again: what is finished is kept"
    )
    assert "unexpected" not in said


def test_where_no_file_can_be_opened_the_limit_is_named() -> None:
    assert "ulimit -n: raise it" in of_error(OSError(errno.EMFILE, os.strerror(errno.EMFILE), "a.jpg"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["student", "--epochs", "3"], "it is a setting: --set teacher.epochs=… or --set student.epochs=…"),
        (["student", "--batch-size=3"], "--set student.batch_size=…"),
        (["student", "--lr=3"], "No such option '--lr'; it is a setting"),
        (["student", "--jbos=3"], "No such option '--jbos'. (Did you mean"),
        (["predict", "--epochs", "3"], "No such option '--epochs'."),
    ],
)
def test_a_setting_that_is_given_as_an_option_is_told_how(words: list[str], says: str) -> None:
    with pytest.raises(click.NoSuchOption) as caught:
        decant.main(words, standalone_mode=False)
    assert says in of_usage(caught.value)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["student", "mine.toml"], "(mine.toml); a recipe is given as --recipe mine.toml"),
        (["teacher", "teacher.lr=0.1"], "(teacher.lr=0.1); a setting is given as --set teacher.lr=0.1"),
        (["student", "kd"], "Got unexpected extra argument (kd)"),
    ],
)
def test_a_recipe_or_setting_without_its_option_is_told_how(words: list[str], says: str) -> None:
    with pytest.raises(click.UsageError) as caught:
        decant.main(words, standalone_mode=False)
    assert of_usage(caught.value).endswith(says)
