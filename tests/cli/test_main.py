"""The command in a process of its own: help, what it says, and every mistake that a person can make."""

from __future__ import annotations

import json
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
import torch
from PIL import Image

from decant.pipeline.cli import main
from decant.pipeline.cli.main import decant as command_line
from tests.helpers.commands import TINY, decant, only, refused, start_anew, succeed, tiny
from tests.helpers.processes import PATIENCE, wait_until

COMMANDS = ["teacher", "cache-logits", "student", "evaluate", "report"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the tiny recipe's teacher and cache have been made."""
    folder = tmp_path_factory.mktemp("made")
    succeed(tiny("teacher", cwd=folder))
    succeed(tiny("cache-logits", cwd=folder))
    return folder


def folders(root: Path, classes: int = 2, images: int = 3) -> Path:
    """An image folder with `train` and `val`."""
    for part in ("train", "val"):
        for label in range(classes):
            (root / part / f"class{label}").mkdir(parents=True)
            for place in range(images):
                color = (80 * label, 40 * place, 10 if part == "val" else 90)
                Image.new("RGB", (8, 8), color).save(root / part / f"class{label}" / f"{place}.png")
    return root


def folder_run(phase: str, root: Path, *words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return tiny(phase, "--set", "data.name=imagefolder", "--set", f"data.root={root}", *words, cwd=cwd)


def walk(group: click.Group, path: str) -> Iterator[tuple[str, click.Command]]:
    """Every command and group below a group, by what a user types."""
    for name, command in group.commands.items():
        yield f"{path} {name}", command
        if isinstance(command, click.Group):
            yield from walk(command, f"{path} {name}")


@pytest.mark.parametrize(("path", "command"), list(walk(command_line, "decant")))
def test_every_command_and_every_option_has_help(path: str, command: click.Command) -> None:
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    texts = {path: command.help, **{option.opts[0]: option.help for option in options}}
    for name, text in texts.items():
        assert text, f"{name} has no help"
        assert text[0].isupper(), f"{name}: {text}"
        assert text.partition("  [")[0].rstrip().endswith("."), f"{name}: {text}"
    in_list = command.get_short_help_str(60)  # of a terminal of 80 columns, beside the longest name
    assert in_list, path
    assert not in_list.endswith("..."), f"{path}: the list of commands cuts its first sentence off: {in_list}"


def test_help_lists_the_phases_and_starts_quickly_enough_to_import_no_torch(tmp_path: Path) -> None:
    text = succeed(decant("--help", cwd=tmp_path))
    assert all(command in text for command in COMMANDS)
    heavy = "import sys, decant.pipeline.cli.main; print({'torch', 'numpy', 'h5py', 'pydantic'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def torch_free(*commands: Sequence[str], cwd: Path) -> None:
    """Runs commands in a new process, and asserts after each, whatever it ends with, that no torch is imported."""
    script = (
        "import json, sys; from decant.pipeline.cli.main import decant\n"
        "for words in json.loads(sys.argv[1]):\n"
        "    try: decant.main(words, standalone_mode=False)\n"
        "    except Exception as error: print(error)\n"
        "    assert 'torch' not in sys.modules, words"
    )
    command = [sys.executable, "-c", script, json.dumps(commands)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_needs_no_network_imports_no_torch(tmp_path: Path) -> None:
    language = ["status", "--recipe", "language-model"]
    torch_free(["init"], ["objectives"], ["objectives", "--json"], ["cache", "path"], language, cwd=tmp_path)


def test_how_far_the_phases_are_is_seen_without_torch(made: Path, tmp_path: Path) -> None:
    here = shutil.copytree(made, tmp_path / "made")
    succeed(tiny("student", cwd=here))
    of_run, cache = (str(only(here, name)) for name in ("runs/digits/teacher-*/recipe.toml", "caches/*.h5"))
    others = (
        "student.seeds=1",
        "student.epochs=3",
        "cache.dtype=float32",
        "data.validation=0.1",
        f"cache.from={cache}",
    )
    torch_free(
        ["status"],
        ["status", "--recipe", of_run],
        *(["status", "--json", *TINY, "--set", other] for other in others),
        cwd=here,
    )


def test_what_is_made_is_said_and_then_found(made: Path) -> None:
    assert "found runs/digits/teacher-conv-" in succeed(tiny("teacher", cwd=made))
    text = succeed(tiny("cache-logits", cwd=made))
    assert "no teacher was loaded" in text
    assert "1,437 samples × 10 classes, float16" in text
    assert "next: decant student --set teacher.network.width=4" in text


def test_a_dry_run_says_bytes_time_and_when_it_pays(made: Path) -> None:
    text = succeed(tiny("cache-logits", "--dry-run", "--set", "cache.dtype=float32", cwd=made))
    assert "would make caches/digits-train-conv-" in text
    assert "bytes, about" in text
    assert re.search(r"has paid for itself after \d+ of these, and", text)
    assert "students train for 2" in text
    assert "next: decant cache-logits --set" in text
    assert "next: decant student --set" in succeed(tiny("cache-logits", "--dry-run", cwd=made))


def test_students_report_and_evaluation_follow(made: Path) -> None:
    said = succeed(tiny("student", cwd=made, seeds=2))
    assert said.count("agrees with the teacher") == 2, "the distilled ones"
    report = succeed(tiny("report", cwd=made))
    assert re.search(r"points (over|below) labels only", report)
    assert "kd (alpha 0.9, temperature 4)" in (made / "runs/digits/report.md").read_text()
    assert (made / "runs/digits/curves.png").read_bytes().startswith(b"\x89PNG")
    evaluated = succeed(tiny("evaluate", cwd=made))
    assert evaluated.count("distilled") == 2
    assert evaluated.count("100.00 %") < 20


def test_a_sweep_shares_the_teacher_and_the_cache(made: Path) -> None:
    succeed(tiny("student", "--set", "student.objective.temperature=1", cwd=made))
    assert len(list((made / "runs/digits").glob("teacher-*"))) == 1
    assert len(list((made / "caches").glob("*.h5"))) == 1


def test_the_store_can_be_named_by_option_or_environment(made: Path, tmp_path: Path) -> None:
    where = tmp_path / "a store, ünïcode"
    runs = f"--runs={made / 'runs'}"
    text = succeed(tiny("cache-logits", runs, "--store", str(where), cwd=tmp_path))
    assert f"--store '{where}'" in text  # the next command is one to copy
    assert only(where, "*.h5").exists()
    assert "found" in succeed(tiny("cache-logits", runs, cwd=tmp_path, DECANT_STORE=str(where)))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "digit"], "unknown recipe 'digit'; did you mean digits?"),
        (["--recipe", "no/such/file.toml"], "no/such/file.toml: cannot be read: No such file"),
        (["--set", "data.name=cifar11"], "unknown dataset 'cifar11'; did you mean cifar10"),
        (["--set", "teacher.network=resnet21"], "unknown; did you mean resnet"),
        (["--set", "teacher.network.width=0"], "width must be 1 or more"),
        (["--set", "teacher.epoch=3"], "teacher.epoch: unknown key; did you mean epochs"),
        (["--set", "teacher.lr=-1"], "teacher.lr"),
        (["--set", "nonsense"], "expected section.key=value"),
        (["--recipe="], "--recipe: is empty, as a variable that is not set leaves it"),
        (["--runs="], "--runs: is empty, as"),  # its runs went to the current folder
        (["--store="], "--store: is empty, as"),
        (["--set", "teacher.weights=gone.pth"], "gone.pth: no such weights file"),
        (["--set", "data.name=imagefolder", "--set", "data.root=gone"], "data.root: no such folder: gone"),
    ],
)
def test_a_mistake_in_the_recipe_is_one_clear_line(words: list[str], message: str, tmp_path: Path) -> None:
    said = refused(decant("teacher", *words, cwd=tmp_path))
    assert said.startswith("decant: ")
    assert message in said
    assert len(said.splitlines()) == 1, said


@pytest.mark.parametrize("words", [["teachers"], ["teacher", "--nonsense"], ["student", "--verify=often"]])
def test_wrong_usage_exits_with_2(words: list[str], tmp_path: Path) -> None:
    assert "Usage: decant" in refused(decant(*words, cwd=tmp_path), code=2)


def test_a_phase_whose_forerunner_is_missing_names_the_command(tmp_path: Path) -> None:
    for phase in ("cache-logits", "student"):
        assert "run: decant teacher" in refused(tiny(phase, cwd=tmp_path))
    assert "run: decant teacher" in refused(tiny("report", cwd=tmp_path))
    assert not (tmp_path / "runs").exists()


def test_an_image_folder_without_images_is_named(tmp_path: Path) -> None:
    (tmp_path / "images/train/cat").mkdir(parents=True)
    (tmp_path / "images/val/cat").mkdir(parents=True)
    assert "images/train: no images" in refused(folder_run("teacher", tmp_path / "images", cwd=tmp_path))


def test_an_unreadable_image_is_named(tmp_path: Path) -> None:
    root = folders(tmp_path / "images")
    broken = root / "train/class1/1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    assert f"{broken}: not a readable image" in refused(folder_run("teacher", root, cwd=tmp_path))


def test_parts_with_different_classes_are_refused(tmp_path: Path) -> None:
    root = folders(tmp_path / "images")
    (root / "val/class1").rename(root / "val/klass1")
    said = refused(folder_run("teacher", root, cwd=tmp_path))
    assert f"different classes: {root / 'val'} has no folder for class1, which {root / 'train'} has; " in said


def test_weights_of_another_class_count_are_refused_in_words(made: Path, tmp_path: Path) -> None:
    weights = only(made, "runs/digits/teacher-*/weights.safetensors")
    root = folders(tmp_path / "images")
    said = refused(folder_run("teacher", root, "--set", f"teacher.weights={weights}", cwd=tmp_path))
    assert "does not fit this network" in said


def test_somebodys_pth_is_taken_as_the_teacher(made: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    state = load_file(only(made, "runs/digits/teacher-*/weights.safetensors"))
    torch.save(
        {
            "state_dict": {
                name.removeprefix("body."): state[name] for name in state if name.startswith("body.")
            }
        },
        tmp_path / "t.pth",
    )
    given = ("--set", "teacher.weights=t.pth", "--set", "teacher.epochs=0")
    said = succeed(tiny("teacher", *given, cwd=tmp_path))
    theirs = succeed(tiny("teacher", cwd=made))
    assert said.split("top-1 ")[1].split("\n")[0] == theirs.split("top-1 ")[1].split("\n")[0]


def test_a_cache_of_other_data_is_refused(made: Path, tmp_path: Path) -> None:
    path = only(made, "caches/*.h5")
    root = folders(tmp_path / "images")
    said = refused(folder_run("student", root, "--set", f"cache.from={path}", cwd=tmp_path))
    for field in ("data.name: expected 'imagefolder', found 'digits'", "data.length: expected 6, found 1437"):
        assert field in said
    assert "Build the right one with: decant cache-logits" in said


def test_a_truncated_and_a_foreign_file_are_refused(made: Path, tmp_path: Path) -> None:
    whole = only(made, "caches/*.h5").read_bytes()
    for name, content, message in [
        ("short.h5", whole[: len(whole) // 2], "cut short"),
        ("text.h5", b"hello\n" * 1000, "not an HDF5 file"),
        ("empty.h5", b"", "not an HDF5 file"),
    ]:
        (tmp_path / name).write_bytes(content)
        said = refused(tiny("student", "--set", f"cache.from={name}", cwd=tmp_path))
        assert message in said, name
    assert "no such cache" in refused(tiny("student", "--set", "cache.from=gone.h5", cwd=tmp_path))


def test_no_space_left_is_said_before_the_teacher_runs(made: Path, tmp_path: Path) -> None:
    words = [
        "cache-logits",
        *TINY,
        "--set",
        "student.seeds=1",
        "--runs",
        str(made / "runs"),
        "--store",
        "store",
    ]
    done = subprocess.run(
        [sys.executable, "-m", "decant", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)),
        check=False,
    )
    said = refused(done)
    assert "File too large; that is the limit of ulimit -f" in said
    assert not list((tmp_path / "store").glob("*.h5"))
    assert "made" in succeed(decant(*words, cwd=tmp_path))


def test_ctrl_c_keeps_what_was_made_and_prints_the_line_to_go_on(tmp_path: Path) -> None:
    words = ["teacher", *TINY, "--set", "teacher.epochs=5000"]
    running = start_anew(*words, cwd=tmp_path)
    wait_until(lambda: list(tmp_path.glob("runs/digits/*/checkpoint.pt")), running)
    running.send_signal(signal.SIGINT)
    _, said = running.communicate(timeout=PATIENCE)
    assert running.returncode == 1
    assert "Traceback" not in said
    assert "everything made so far is kept" in said
    assert "Go on with: decant teacher" in said
    assert only(tmp_path, "runs/digits/*/checkpoint.pt").exists()


SWALLOWED = """
import os, signal, threading, time
from decant.pipeline.cli.signals import Ended, end_on_signals, received

class Swallowing:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)

def start_slowly(thread, start=threading.Thread.start):
    start(thread)
    time.sleep(0.2)  # as on a busy machine: what is sent now is swallowed too

def too_early(process, number, kill=os.kill, sent=[]):
    sent.append(number)
    if len(sent) != 2:  # what is sent again at first comes just before a call begins to wait, which it does not end
        kill(process, number)

threading.Thread.start, os.kill = start_slowly, too_early
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in the foreground, whoever started the tests
end_on_signals()
try:
    Swallowing()
    time.sleep(30)
except Ended:
    print(received().name)
"""


def test_ctrl_c_in_a_destructor_which_swallows_it_ends_the_command_all_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SWALLOWED], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert (done.stdout, done.stderr) == ("SIGINT\n", "")


OF_ANOTHER = """
import sys
sys.unraisablehook = lambda swallowed: print("seen:", swallowed.exc_value)
from decant.pipeline.cli.signals import end_on_signals

class Failing:
    def __del__(self):
        raise ValueError("in a destructor")

end_on_signals()
end_on_signals()
Failing()
"""


def test_other_errors_in_a_destructor_go_to_the_hook_of_the_program_that_calls_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-c", OF_ANOTHER], capture_output=True, text=True, timeout=PATIENCE, check=True
    )
    assert (done.stdout, done.stderr) == ("seen: in a destructor\n", "")


def test_a_module_beside_the_recipe_is_found_from_anywhere(tmp_path: Path) -> None:
    beside = tmp_path / "my recipes"
    beside.mkdir()
    (beside / "own_data.py").write_text(
        "def digits(root, split):\n"
        "    return Rows()\n"
        "class Rows:\n"
        "    def __len__(self): return 30\n"
        "    def __getitem__(self, i):\n"
        "        import numpy\n"
        "        return numpy.array([i % 3, 1], 'f4'), i % 3\n"
    )
    network = '{ name = "mlp", hidden = 4, layers = 1 }'
    (beside / "own.toml").write_text(
        f'[data]\nname = "own_data:digits"\n[teacher]\nnetwork = {network}\nepochs = 1\n'
        f"[student]\nnetwork = {network}\nepochs = 1\n"
    )
    where = tmp_path / "elsewhere"
    where.mkdir()
    assert "made runs/own/teacher-mlp" in succeed(decant("teacher", "-r", beside / "own.toml", cwd=where))


def test_the_line_to_go_on_can_be_pasted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["decant", "student", "--runs", "my runs"])
    monkeypatch.setattr("decant.pipeline.ranks.leaving.leave", sys.exit)  # which ends this process otherwise
    with pytest.raises(SystemExit):
        main._interrupted()
    assert capsys.readouterr().err.endswith("Go on with: decant student --runs 'my runs'\n")


def test_a_recipe_that_names_its_cache_needs_no_teacher(made: Path, tmp_path: Path) -> None:
    given = ("--set", f"cache.from={only(made, 'caches/*.h5')}")
    for phase in ("teacher", "cache-logits"):
        assert "no teacher and no cache of this recipe's own are needed" in succeed(
            tiny(phase, *given, cwd=tmp_path)
        )
    assert not (tmp_path / "runs").exists()
