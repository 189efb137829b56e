"""Recipes: what ships is valid, what is overridden holds, and what is wrong is named with its path and its range."""

from __future__ import annotations

import shlex
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from decant.pipeline.config.recipe import DEFAULT, load_recipe, overridden, shipped
from decant.pipeline.errors import RecipeError

SMALL = """
[data]
name = "digits"
[teacher]
network = "conv"
epochs = 3
[student]
network = "linear"
epochs = 40
objective = "kd"
"""
FULL = (
    "views.count=2",
    'views.augment=[{op="flip"}, {op="pad-crop", padding=2}]',
    "views.size=16",
    "student.objective=mse",
    "student.network.width=8",
    "student.clip_norm=1",
    "cache.from=/tmp/it's mine.h5",
    "student.lr=1e-10",
    "views.resize=20",
    "student.schedule=cosine",
    "student.milestones=[]",
)


def write(folder: Path, content: str | bytes, name: str = "mine.toml") -> str:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def refusal(name_or_file: str = DEFAULT, overrides: Sequence[str] = ()) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(name_or_file, overrides)
    assert "\n" not in str(caught.value), "an error is one line"
    return str(caught.value)


# What ships


def test_the_promised_recipes_ship() -> None:
    assert {"digits", "cifar10", "cifar100", "imagefolder", "imagenet"} <= set(shipped())
    assert load_recipe().name == DEFAULT == "digits"


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_valid(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.settings.student.epochs >= 1


@pytest.mark.parametrize("name", shipped())
def test_the_resolved_form_reads_back_as_the_same_settings(name: str, tmp_path: Path) -> None:
    of_tokens = load_recipe(name).settings.data.of_tokens  # which have no views
    for overrides in ((), [given for given in FULL if not (of_tokens and given.startswith("views."))]):
        recipe = load_recipe(name, overrides)
        again = load_recipe(write(tmp_path, recipe.to_toml(), f"{name}.toml"))
        assert again.settings == recipe.settings
        assert again.name == recipe.name
        assert again.to_toml() == recipe.to_toml()


def test_the_resolved_form_says_every_setting_that_has_a_value(tmp_path: Path) -> None:
    content = tomllib.loads(
        load_recipe(write(tmp_path, SMALL), ["cache.from=a.h5", "student.network.width=8"]).to_toml()
    )
    assert list(content) == ["data", "views", "teacher", "cache", "student"]
    assert content["student"]["momentum"] == 0.9
    assert content["student"]["network"] == {"name": "linear", "width": 8}
    assert content["student"]["objective"] == {"name": "kd", "alpha": 0.9, "temperature": 4.0}
    assert content["cache"]["from"] == "a.h5"
    assert content["cache"]["dtype"] == "float16"


# Files


def test_a_file_is_read_wherever_it_lies_and_names_its_run(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL, "über uns.toml"))
    assert recipe.name == "über uns"
    assert (recipe.settings.teacher.epochs, recipe.settings.student.epochs) == (3, 40)


@pytest.mark.parametrize("content", [SMALL.replace("\n", "\r\n").encode(), b"\xef\xbb\xbf" + SMALL.encode()])
def test_a_file_as_windows_writes_it_is_the_same_recipe(content: bytes, tmp_path: Path) -> None:
    assert load_recipe(write(tmp_path, content)).settings == load_recipe(write(tmp_path, SMALL)).settings


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert refusal("digit") == "unknown recipe 'digit'; did you mean digits? (or a .toml file)"
    for name in shipped():
        assert name in refusal("zzz"), "where none is near, all are named"


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    missing = str(tmp_path / "none.toml")
    assert refusal(missing) == f"{missing}: cannot be read: No such file or directory"
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert refusal(str(folder)) == f"{folder}: is a folder; name the recipe in it, a .toml file"
    latin = write(tmp_path, SMALL.replace("conv", "cönv").encode("latin-1"))
    assert refusal(latin).startswith(
        f"{latin}: cannot be read: not UTF-8 text: a byte of it belongs to another"
    )
    wide = write(tmp_path, SMALL.encode("utf-16"))
    assert "it is UTF-16, as > of older PowerShells writes; save it as UTF-8" in refusal(wide)


def test_what_is_not_toml_is_named_with_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "[data]\nname = digits\n")
    assert (
        refusal(path) == f'{path}: not TOML: Invalid value (at line 2, column 8); for digits write "digits"'
    )
    for windows in (r"C:\Users\me", r"D:\data"):
        path = write(tmp_path, f'[data]\nroot = "{windows}"\n')
        assert "a backslash begins an escape: write a path with / or between single quotes" in refusal(path)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("lr = .05", "for .05 write 0.05"),
        ("lr = .05  # low", "for .05 write 0.05"),
        ("lr = 5.", "for 5. write 5.0"),
        ("lr = +.5", "for +.5 write 0.5"),
        ("epochs = 05", "for 05 write 5"),
        ("milestones = [05, 10]", "for 05 write 5"),
        ("milestones = [5, 010]", "for 010 write 10"),
        ("baseline = True", "for True write true"),
        ("clip_norm = None", "TOML has no None: leave the key out"),
        ("clip_norm = null", "TOML has no null: leave the key out"),
        ("optimizer = adamw", 'for adamw write "adamw"'),
        ("network = { name = linear }", 'for linear write "linear"'),
        (r"weights = C:\old.pth", r'for C:\old.pth write "C:\\old.pth"'),
        ("weights = my old.pth", "text stands in quotes"),
        ("weights = https://me:secret@host/old.pth", None),
        ("lr 0.05", None),
        ("[views", None),
        ("milestones = [5, 10", None),
        ('optimizer = "adamw" or', None),
        (f"optimizer = {'x' * 100}", None),
    ],
)
def test_a_value_that_is_not_toml_is_shown_as_it_is_written(
    line: str, says: str | None, tmp_path: Path
) -> None:
    said = refusal(write(tmp_path, f"[student]\n{line}\n"))
    assert "not TOML: " in said
    assert said.partition(")")[2] == ("" if says is None else f"; {says}")
    assert "secret" not in said


def test_an_empty_file_lacks_its_sections(tmp_path: Path) -> None:
    path = write(tmp_path, "")
    assert refusal(path) == f"{path}: data: missing; teacher: missing; student: missing"


# What is wrong, in words

EMPTY = "is empty, as a variable that is not set leaves it; give a path, or leave it out"
WRONG = [
    ("students.epochs=5", "students: unknown section; did you mean student?"),
    ("student.epoch=5", "student.epoch: unknown key; did you mean epochs or warmup_epochs?"),
    ("cache.from_=a.h5", "cache.from_: unknown key; did you mean from?"),
    ("cache.from=", f"cache.from: {EMPTY}"),
    ("cache.from=[]", "cache.from: expected text or a list, found []"),
    ("views.zzz=5", "views.zzz: unknown key; known: augment, channels, count, resize, seed, size"),
    ("student.epochs=five", 'student.epochs: expected a whole number at least 1, found "five"'),
    ("student.epochs=05", 'student.epochs: expected a whole number at least 1, found "05"; write 5'),
    ("student.epochs=.5", 'student.epochs: expected a whole number at least 1, found ".5"'),
    ('student.epochs="5"', 'student.epochs: expected a whole number at least 1, found "5"; write 5'),
    ("student.lr=.05", 'student.lr: expected a number above 0, found ".05"; write 0.05'),
    ("student.baseline=True", 'student.baseline: expected true or false, found "True"; write true'),
    ("student.baseline=05", 'student.baseline: expected true or false, found "05"'),
    ("views.count=02", 'views.count: expected a whole number at least 1 or "all", found "02"; write 2'),
    ("student.epochs=5.5", "student.epochs: expected a whole number at least 1, found 5.5"),
    ("student.epochs=true", "student.epochs: expected a whole number at least 1, found true"),
    (
        "student.epochs=3000000000",
        "student.epochs: expected a whole number below 2,147,483,648, found 3000000000",
    ),
    ("student.epochs=0", "student.epochs: expected a whole number at least 1, found 0"),
    ("student.momentum=1", "student.momentum: expected a number at least 0 and below 1, found 1"),
    ("student.lr=nan", "student.lr: expected a number above 0, found NaN"),
    ("student.clip_norm=0", "student.clip_norm: expected a number above 0, found 0"),
    ("student.seed=-1", "student.seed: expected a whole number at least 0 and below 4,294,967,296, found -1"),
    ("student.optimizer=sdg", 'student.optimizer: expected one of sgd, adam, adamw, found "sdg"'),
    ("student.baseline=1", "student.baseline: expected true or false, found 1"),
    ("student.network=5", "student.network: expected a name, or a table with `name`, found 5"),
    ("student.network={width=5}", "student.network.name: missing"),
    ("student.milestones=5", "student.milestones: expected a list, found 5"),
    ("student.milestones=[5, 0]", "student.milestones[1]: expected a whole number at least 1, found 0"),
    ("data.name=5", """data.name: expected text, found 5; in quotes it is text: '"5"'"""),
    ("data.name=true", """data.name: expected text, found true; in quotes it is text: '"true"'"""),
    ("data.root=[5]", "data.root: expected text, found [5]"),
    (
        "student.objective=kdd",
        "student.objective.name: unknown objective 'kdd'; did you mean kd or nkd or dkd? (or package.module:function)",
    ),
    (
        "student.objective={alpha=1}",
        "student.objective.name: missing; known: ce+kl, dist, dkd, general, js, kd, ls, mse, nkd, regression, rkl, "
        "soft-ce, soft-transfer-data, soft-transfer-knowledge, soft-transfer-model",
    ),
    ("student.objective=5", "student.objective: expected a table with `name`, found 5"),
    (
        "student.objective.alpha=2",
        "student.objective.alpha: expected a number at least 0 and at most 1, found 2",
    ),
    ("student.objective.alfa=1", "student.objective.alfa: unknown key; did you mean alpha?"),
    ("views.augment=flip", 'views.augment: expected a list, found "flip"'),
    ('views.augment=["flip"]', 'views.augment[0]: expected a table with `op`, found "flip"'),
    ('views.augment=[{op="flop"}]', "views.augment[0].op: unknown operation 'flop'; did you mean flip?"),
    (
        'views.augment=[{op="flip"}, {op="pad-crop", padding=0}]',
        "views.augment[1].padding: expected a whole number at least 1 and at most 128, found 0",
    ),
    ('views.augment=[{op="flip", q=1}]', "views.augment[0].q: unknown key; known: op, p"),
    ("views.count=al", 'views.count: expected a whole number at least 1 or "all", found "al"'),
    ("views.count=0", 'views.count: expected a whole number at least 1 or "all", found 0'),
    ("cache.from=5", "cache.from: expected text or a list, found 5"),
    ("views.count=3", "views.count: views without augmentation are all the same; set augment, or count = 1"),
    (
        "student.warmup_epochs=40",
        "student.warmup_epochs: must lie below epochs = 40, found 40.0",
    ),
    ('views.size="big"', 'views.size: expected a whole number at least 1 or a list of 2, found "big"'),
    ("views.size=[16]", "views.size: expected a whole number at least 1 or a list of 2, found [16]"),
    ("views.size=[16, -1]", "views.size: expected a whole number at least 1 or a list of 2, found [16, -1]"),
    ("teacher.weights=", f"teacher.weights: {EMPTY}"),
    ("views.channels=2", "views.channels: expected one of 1, 3, found 2"),
    ("data.root=2024-01-31", "data.root: dates and times have no place in a recipe"),
    ("student.milestones=[1, 07:32:00]", "student.milestones[1]: dates and times have no place in a recipe"),
]


@pytest.mark.parametrize(("override", "says"), WRONG)
def test_a_mistake_is_named_with_its_path_what_is_allowed_and_what_was_found(
    override: str, says: str, tmp_path: Path
) -> None:
    path = write(tmp_path, SMALL)
    assert refusal(path, [override]) == f"{path}: {says}"


def test_all_mistakes_are_named_at_once() -> None:
    said = refusal(overrides=["student.lr=0", "teacher.epochs=-1"])
    assert "student.lr: " in said
    assert "teacher.epochs: " in said


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(refusal(overrides=[f"student.milestones={'x ' * 1000}"])) < 200


# --set


@pytest.mark.parametrize(
    ("override", "path", "value"),
    [
        ("student.epochs=5", "student.epochs", 5),
        ("student.epochs = 5", "student.epochs", 5),
        ("student.lr=1e-3", "student.lr", 0.001),
        ("student.lr=1", "student.lr", 1.0),
        ("student.baseline=false", "student.baseline", False),
        ("student.optimizer=adam", "student.optimizer", "adam"),
        ('student.optimizer="adam"', "student.optimizer", "adam"),
        ("data.root=/data/my images=old", "data.root", "/data/my images=old"),
        ("student.network=linear", "student.network.name", "linear"),
        ("student.network.width=8", "student.network.width", 8),
        ("student.objective.alpha=0.5", "student.objective.alpha", 0.5),
        ("student.objective=mse", "student.objective.name", "mse"),
        ("cache.from=a.h5", "cache.from_", "a.h5"),
        ("views.size=16", "views.size", 16),
        ("views.size=[16, 9]", "views.size", (16, 9)),
        ("views.channels=1", "views.channels", 1),
    ],
)
def test_a_setting_is_overridden_with_a_value_of_toml_or_a_bare_word(
    override: str, path: str, value: Any, tmp_path: Path
) -> None:
    found: Any = load_recipe(write(tmp_path, SMALL), [override]).settings
    for name in path.split("."):
        found = getattr(found, name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (
            "views.augment=[{op=flip}]",
            'Invalid value; for flip write "flip", and all of it between single quotes, as a shell takes " away',
        ),
        ("student.milestones=[05, 10]", "Unclosed array; for 05 write 5"),
        ('student.objective={name="kd", alpha=.5}', "Invalid value; for .5 write 0.5"),
    ],
)
def test_an_override_with_a_list_or_table_that_is_not_toml_is_no_text(override: str, says: str) -> None:
    assert refusal(overrides=[override]) == f"--set {override.partition('=')[0]}: not TOML: {says}"


def test_a_name_alone_takes_arguments(tmp_path: Path) -> None:
    path = write(tmp_path, SMALL)
    settings = load_recipe(
        path, ["student.network.width=8", "teacher.network=mlp", "teacher.network.width=9"]
    ).settings
    assert str(settings.student.network) == "linear width=8"
    assert str(settings.teacher.network) == "mlp width=9"


def test_overrides_are_taken_in_their_order() -> None:
    assert load_recipe(overrides=["student.epochs=5", "student.epochs=6"]).settings.student.epochs == 6


@pytest.mark.parametrize(
    "override", ["", "student", "student.epochs", "epoch=5", "=5", ".epochs=5", "student.=5"]
)
def test_a_malformed_override_is_shown_how_it_is_written(override: str) -> None:
    assert (
        refusal(overrides=[override])
        == f"--set {override}: expected section.key=value, as in student.epochs=5"
    )


@pytest.mark.parametrize(
    ("override", "as_in"),
    [
        ("epochs=5", "teacher.epochs=5 or student.epochs=5"),
        ("alpha=0.5", "student.objective.alpha=0.5"),
        ("from=a.h5", "cache.from=a.h5"),
    ],
)
def test_an_override_of_a_key_alone_is_shown_with_its_sections(override: str, as_in: str) -> None:
    assert refusal(overrides=[override]).endswith(f": expected section.key=value, as in {as_in}")


def test_a_folder_is_no_recipe_and_the_file_in_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    assert refusal("mine") == "mine: is a folder; name the recipe in it, as mine/recipe.toml"
    assert refusal("./mine") == "./mine: is a folder; name the recipe in it, a .toml file"


def test_an_override_into_what_is_no_table_is_refused() -> None:
    assert refusal(overrides=["student.epochs.x=5"]) == "--set student.epochs.x=5: epochs is not a table"


# The command that a message names


def test_the_command_repeats_the_recipe_and_its_overrides_as_a_shell_reads_them() -> None:
    overrides = ["data.root=/my data/it's", 'views.augment=[{op="flip"}]', "student.epochs=5"]
    words = shlex.split(load_recipe("cifar10", overrides).command("cache-logits"))
    assert words[:4] == ["decant", "cache-logits", "--recipe", "cifar10"]
    assert words[4:] == [word for override in overrides for word in ("--set", override)]
    assert load_recipe().command("teacher") == "decant teacher"


def test_the_command_leads_to_the_same_settings(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, SMALL, "a b.toml"), FULL)
    words = shlex.split(recipe.command("student"))
    assert load_recipe(words[3], words[5::2]).settings == recipe.settings


def test_the_command_of_a_variation_leads_to_it_and_names_no_setting_twice(tmp_path: Path) -> None:
    """Defaults too are those of what was given in the end: each objective has its own."""
    recipe = load_recipe(
        write(tmp_path, SMALL), ["teacher.at_chance=accept", "student.objective.alpha=0.5", "student.lr=0.5"]
    )
    for again in (["student.lr=0.25"], ["student.objective=dkd", "student.lr=0.125"]):
        recipe = overridden(recipe, again)
    words = shlex.split(recipe.command("student"))
    assert words[5::2] == ["teacher.at_chance=accept", "student.objective=dkd", "student.lr=0.125"]
    assert recipe.settings == load_recipe(words[3], words[5::2]).settings
    assert recipe.settings.teacher.at_chance == "accept"


def test_a_recipe_in_toml_of_another_writer_is_the_same(tmp_path: Path) -> None:
    content = tomllib.loads(SMALL)
    assert (
        load_recipe(write(tmp_path, tomli_w.dumps(content))).settings
        == load_recipe(write(tmp_path, SMALL)).settings
    )


def test_a_command_can_be_named_without_one_of_its_settings() -> None:
    recipe = load_recipe("digits", ["cache.from=a.h5", "student.epochs=3"])
    assert (
        recipe.command("cache-logits", without="cache.from") == "decant cache-logits --set student.epochs=3"
    )


@pytest.mark.parametrize("name", ["{a={}}", "3", "[]", "true"])
def test_a_name_of_an_objective_that_is_no_text_is_named(name: str) -> None:
    with pytest.raises(RecipeError, match=r"student\.objective"):
        load_recipe("digits", [f"student.objective={{name={name}}}"])
