"""What a shell offers, through the protocol that click speaks and through a shell itself."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

from decant.pipeline.cli import completion
from decant.pipeline.config.recipe import load_recipe, shipped
from decant.pipeline.errors import RecipeError
from tests.helpers.commands import decant, only, succeed
from tests.helpers.shells import shell
from tests.helpers.small import teach


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, two stores and recipes."""
    folder = tmp_path_factory.mktemp("place")
    teach(folder)
    for name in ("caches/mine.h5", "caches/other.h5", "shared/theirs.h5", "digest.toml", "below/own.toml"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def offered(place: Path, *words: str, kind: str = "bash") -> list[str]:
    """What `decant WORDS`, the last of them unfinished, is completed with: TYPE,WORD."""
    whole = ["decant", *words]
    count = words[-1] if kind == "fish" else str(len(words))
    line = subprocess.list2cmdline(whole)
    asked = {"COMP_WORDS": line, "COMP_CWORD": count, "_DECANT_COMPLETE": f"{kind}_complete"}
    output = succeed(decant(cwd=place, **asked)).split()
    if kind == "zsh":  # type, word and description in lines of their own
        return [f"{output[at]},{output[at + 1]}" for at in range(0, len(output), 3)]
    return output


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["stu"], ["plain,student"]),
        (["student", "--che"], ["plain,--check-views"]),
        (["student", "--verify", "l"], ["plain,lazy"]),
        (["student", "--recipe", "dig"], ["plain,digits", "plain,digest.toml"]),
        (["cache", "import", "x.npy", "-r", "below/"], ["plain,below/own.toml"]),
        (["teacher", "-r", "/etc/nothing"], ["file,/etc/nothing"]),
        (["student", "--set", "data.na"], ["plain,data.name=", "plain,data.name=digits"]),
        (["student", "-r", "cifar10", "--set", "views.coun"], ["plain,views.count=", "plain,views.count=all"]),
        (["student", "-r", "cifar10", "--set", "teacher.epo"], ["plain,teacher.epochs=", "plain,teacher.epochs=18"]),
        (["student", "-r", "gone", "--set", "teacher.epo"], ["plain,teacher.epochs="]),
        (["student", "--set", "student.nothing"], []),
        (["cache", "info", "m"], ["plain,mine.h5"]),
        (["cache", "diff", "mine.h5", ""], ["plain,mine.h5", "plain,other.h5"]),
        (["cache", "verify", "--store", "shared", ""], ["plain,theirs.h5"]),
        (["cache", "merge", "/tmp/"], ["file,/tmp/"]),
        (["export", "elsewhere"], ["dir,elsewhere"]),
        (["cache", "ls", "--store", "sha"], ["dir,sha"]),
    ],
)  # fmt: skip
def test_an_unfinished_word_is_completed(words: list[str], expected: list[str], place: Path) -> None:
    assert offered(place, *words) == expected


def test_finished_runs_are_offered(place: Path) -> None:
    run = only(place, "runs/**/result.json").parent.relative_to(place)
    assert offered(place, "predict", "") == offered(place, "export", "runs/te") == [f"plain,{run}"]


@pytest.mark.parametrize("kind", ["zsh", "fish"])
def test_other_shells_are_offered_the_same(kind: str, place: Path) -> None:
    for words in (["student", "--recipe", "dig"], ["cache", "info", "m"], ["export", "elsewhere"]):
        assert offered(place, *words, kind=kind) == offered(place, *words)


def test_values_are_offered_where_a_shell_keeps_the_word_whole(place: Path) -> None:
    words = offered(place, "student", "--set", "cache.dtype=", kind="zsh")
    assert words == ["plain,cache.dtype=", "plain,cache.dtype=float16", "plain,cache.dtype=float32"]
    assert offered(place, "student", "--set", "cache.dtype=float1", kind="zsh") == words[1:2]
    of_two = offered(place, "student", "--set", "student.seed=", kind="zsh")
    assert of_two == ["plain,student.seed=", "plain,student.seed=0"], "and not student.seeds"


@pytest.mark.parametrize("kind", ["bash", "zsh", "fish"])
def test_every_shell_has_its_script(kind: str, place: Path) -> None:
    assert "_decant_completion" in succeed(decant(cwd=place, _DECANT_COMPLETE=f"{kind}_source"))


def test_bash_itself_completes_after_the_line_of_the_readme(place: Path) -> None:
    lines = [
        'eval "$(_DECANT_COMPLETE=bash_source decant)"',
        "complete -p decant",
        "COMP_WORDS=(decant student --set student.epo) COMP_CWORD=3",
        "_decant_completion decant",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    registered, *words = shell("\n".join(lines), place, interpreter="bash").splitlines()
    assert "-F _decant_completion decant" in registered
    assert words == ["student.epochs=", "student.epochs=40"]


def test_every_setting_of_every_shipped_recipe_is_offered() -> None:
    names = {word.value for word in completion.settings(click.Context(click.Command("x")), None, "")}  # type: ignore[arg-type]

    def expected(table: dict[str, object], path: str = "") -> set[str]:
        found: set[str] = set()
        for key, value in table.items():
            inner = f"{path}.{key}" if path else key
            is_table = isinstance(value, dict) and key != "network"
            found |= expected(value, inner) if is_table else {f"{inner}="}  # type: ignore[arg-type]
        return found

    for name in shipped():
        settings = load_recipe(name).settings.model_dump(mode="json", by_alias=True, exclude_none=True)
        assert expected(settings) <= names, expected(settings) - names


def test_no_setting_is_offered_that_a_recipe_does_not_know() -> None:
    def problem(word: str) -> str:
        try:
            load_recipe("general", [f"{word}[[]]"])
        except RecipeError as error:
            return str(error)
        return ""

    words = completion.settings(click.Context(click.Command("x")), None, "")  # type: ignore[arg-type]
    of_any = [word.value for word in words if not word.value.startswith("student.objective.")]
    assert not [word for word in of_any if "unknown" in problem(word)]


@pytest.mark.parametrize("room", ["recipes", "settings", "caches", "runs"])
def test_nothing_imports_torch_to_complete(room: str, place: Path) -> None:
    script = (
        "import click, sys; from decant.pipeline.cli import completion\n"
        f"words = completion.{room}(click.Context(click.Command('x')), None, '')\n"
        "assert words; print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=place, capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_no_name_is_offered_that_a_shell_would_obey(tmp_path: Path) -> None:
    """Neither of a file beside nor of a setting in a recipe that was sent; a terminal neither."""
    (tmp_path / "$(touch ran).toml").touch()
    (tmp_path / "sent.toml").write_text(
        '[data]\nname = "imagefolder"\nroot = "\\u001b]0;title\\u0007;touch ran"\n'
    )
    assert offered(tmp_path, "student", "-r", "") == [f"plain,{name}" for name in (*shipped(), "sent.toml")]
    assert offered(tmp_path, "student", "-r", "sent.toml", "--set", "data.root") == ["plain,data.root="]
