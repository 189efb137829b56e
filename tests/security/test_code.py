"""What is data runs no code: what a run folder, a recipe and the working folder may have executed, and what not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
from PIL import Image

from tests.helpers.commands import decant, only, refused, succeed
from tests.helpers.processes import PATIENCE

CODE = """
import pathlib
import pickle
from os import system
from torch import nn
from torch.hub import load as fetch
import numpy as np

class Few:
    classes = ["dark", "light"]
    def __init__(self, split):
        self.images = np.random.default_rng(len(split)).integers(0, 256, (16, 1, 4, 4)).astype("u1")
    def __len__(self):
        return 16
    def __getitem__(self, index):
        return self.images[index], index % 2

def parts(root, split):
    from beside import touched
    return Few(touched(split))

def network(num_classes, input_shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))

def darken(image):
    return image // 2

def wipes(root, split):
    pathlib.Path("ran").touch()

loads = pickle.loads
"""
BESIDE = """
def touched(split):
    return split
"""
RECIPE: dict[str, Any] = {
    "data": {"name": "mine:parts"},
    "views": {"augment": [{"op": "transform", "name": "mine:darken"}]},
    "teacher": {"network": "mine:network", "epochs": 1},
    "student": {"network": "mine:network", "epochs": 1},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with code of a user's and a finished run that names it."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "mine.py").write_text(CODE)
    (folder / "beside.py").write_text(BESIDE)
    (folder / "recipe.toml").write_text(tomli_w.dumps(RECIPE))
    Image.fromarray(np.zeros((4, 4), "u1")).save(folder / "one.png")
    done = decant("teacher", "-r", "recipe.toml", cwd=folder)
    succeed(done)
    for name in ("mine:parts", "mine:darken", "mine:network"):
        assert done.stderr.count(f"runs {name} from mine.py\n") == 1
    only(folder, "runs/*/teacher-*").rename(folder / "run")
    shutil.rmtree(folder / "runs")
    return folder


@pytest.fixture
def here(made: Path, tmp_path: Path) -> Path:
    """The same in a folder that a test may change."""
    return Path(shutil.copytree(made, tmp_path / "here"))


def forge(run: Path, *, network: str | None = None, code: dict[str, str] | None = None, **data: str) -> None:
    """Writes other names, and digests of them, into a run, as somebody who makes one may."""
    result = json.loads((run / "result.json").read_text())
    if network is not None:
        result["network"]["name"] = network
        result.pop("network_code", None)
    if code is not None:
        result["code"] = code
        result.pop("network_code", None)
    (run / "result.json").write_text(json.dumps(result))
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    recipe["data"] |= data
    (run / "recipe.toml").write_text(tomli_w.dumps(recipe))


def recorded(run: Path) -> dict[str, str]:
    return dict(json.loads((run / "result.json").read_text())["code"])


EXPORT = ("export", "run", "--formats", "pt2", "--samples", "4")
PREDICT = ("predict", "run", "one.png")
READERS: dict[str, tuple[str, ...]] = {
    "predict": PREDICT,
    "export": EXPORT,
    "report": ("report", "run"),
    "status": ("status", "-r", "run/recipe.toml"),
    "evaluate": ("evaluate", "-r", "run/recipe.toml"),
}


def test_a_run_runs_the_code_that_it_recorded_and_says_which(here: Path) -> None:
    assert sorted(recorded(here / "run")) == ["mine:darken", "mine:network", "mine:parts"]
    for words in (PREDICT, EXPORT, ("report", "run")):
        done = decant(*words, cwd=here)
        succeed(done)
        assert "runs mine:network from mine.py\n" in done.stderr


def test_the_recipe_of_a_run_is_data_whatever_its_name(here: Path) -> None:
    """Also where it does not end in .toml, which a path to a recipe need not."""
    forge(here / "run", name="mine:wipes", code=recorded(here / "run"))
    (here / "run/recipe.toml").rename(here / "run/settings.txt")
    for words in (("status",), ("evaluate",), ("teacher",)):
        said = refused(decant(*words, "-r", "run/settings.txt", cwd=here))
        assert "mine:wipes" in said
        assert "--trust" in said
    assert not (here / "ran").exists()


# Functions that a run names


def of_python(run: Path) -> str:
    forge(run, name="os:system", network="os:system", code={"os:system": "0" * 64})
    return "os:system"


def of_a_module_that_is_no_package(run: Path) -> str:
    forge(run, name="os.path:exists", network="os.path:exists", code={"os.path:exists": "0" * 64})
    return "os.path:exists"


def of_a_library(run: Path) -> str:
    forge(run, name="torch.hub:load", network="torch.hub:load", code={"torch.hub:load": "0" * 64})
    return "torch.hub:load"


def of_a_library_with_its_true_digest(run: Path) -> str:
    import hashlib
    import inspect

    import torch.hub

    digest = hashlib.sha256(Path(inspect.getfile(torch.hub)).read_bytes()).hexdigest()
    forge(run, name="torch.hub:load", network="torch.hub:load", code={"torch.hub:load": digest})
    return "torch.hub:load"


def of_decant_itself(run: Path) -> str:
    name = "decant.cache.io.files:write_atomically"
    forge(run, name=name, network=name, code={name: "0" * 64})
    return name


def that_a_module_imports(run: Path) -> str:
    name = "mine:system"
    forge(run, name=name, network=name, code={name: digest_of(name, run.parent)})
    return name


def that_a_module_gives_another_name(run: Path) -> str:
    forge(
        run, name="mine:loads", network="mine:loads", code={"mine:loads": digest_of("mine:loads", run.parent)}
    )
    return "mine:loads"


def of_another_module_of_the_user(run: Path) -> str:
    (run.parent / "other.py").write_text("from mine import wipes\n")
    forge(
        run,
        name="other:wipes",
        network="other:wipes",
        code={"other:wipes": digest_of("other:wipes", run.parent)},
    )
    return "other:wipes"


def without_a_digest(run: Path) -> str:
    forge(run, name="mine:wipes", network="mine:wipes", code={})
    return "mine:wipes"


def with_a_wrong_digest(run: Path) -> str:
    forge(run, name="mine:wipes", network="mine:wipes", code={"mine:wipes": "0" * 64})
    return "mine:wipes"


def whose_package_runs_code(run: Path) -> str:
    package = run.parent / "package"
    package.mkdir()
    (package / "__init__.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    (package / "inner.py").write_text("def parts(root, split): pass\n")
    forge(
        run, name="package.inner:parts", network="package.inner:parts", code={"package.inner:parts": "0" * 64}
    )
    return "package.inner:parts"


def that_has_changed(run: Path) -> str:
    (run.parent / "mine.py").write_text("import pathlib\npathlib.Path('ran').touch()\n" + CODE)
    return "mine:"


def that_came_with_the_run(run: Path) -> str:
    (run / "sent.py").write_text(
        "import pathlib\npathlib.Path('ran').touch()\ndef parts(root, split): pass\n"
    )
    (run.parent / "sent.py").symlink_to("run/sent.py")
    code = {"sent:parts": digest_of("sent:parts", run.parent)}
    forge(run, name="sent:parts", network="sent:parts", code=code)
    return "sent:parts"


def digest_of(name: str, folder: Path) -> str:
    """What the command in that folder takes for the digest of a function."""
    script = (
        "import sys\nfrom decant.pipeline.support import modules\n"
        "from decant.pipeline.support.source_code import code_sha256\n"
        "modules.search('.')\nprint(code_sha256(sys.argv[1]))"
    )
    words = [sys.executable, "-P", "-c", script, name]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


FORGERIES = (
    of_python,
    of_a_module_that_is_no_package,
    of_a_library,
    of_a_library_with_its_true_digest,
    of_decant_itself,
    that_a_module_imports,
    that_a_module_gives_another_name,
    of_another_module_of_the_user,
    without_a_digest,
    with_a_wrong_digest,
    whose_package_runs_code,
    that_has_changed,
    that_came_with_the_run,
)


@pytest.mark.parametrize("forgery", FORGERIES)
def test_a_run_cannot_have_a_function_run(here: Path, forgery: Callable[[Path], str]) -> None:
    name = forgery(here / "run")
    for words in (PREDICT, EXPORT):
        said = refused(decant(*words, cwd=here)).splitlines()[-1]
        assert name in said, words
        assert "--trust" in said, words
    assert not (here / "ran").exists()


@pytest.mark.parametrize("reader", ["report", "status", "evaluate"])
def test_no_command_runs_what_a_run_names(here: Path, reader: str) -> None:
    name = with_a_wrong_digest(here / "run")
    done = decant(*READERS[reader], cwd=here)
    said = done.stderr + done.stdout
    assert name in said
    assert "--trust" in said
    assert not (here / "ran").exists()


def test_code_that_has_changed_runs_where_it_is_trusted(here: Path) -> None:
    that_has_changed(here / "run")
    succeed(decant(*PREDICT, "--trust", cwd=here))
    assert (here / "ran").exists()


def test_a_recipe_of_the_users_own_may_name_what_an_older_run_did_not_record(here: Path) -> None:
    forge(here / "run", code={})
    (here / "runs/recipe").mkdir(parents=True)
    (here / "run").rename(here / "runs/recipe/teacher-old")
    assert "mine:network" in succeed(decant("evaluate", "-r", "recipe.toml", cwd=here))


# Functions that a recipe names


@pytest.mark.parametrize(
    "name", ["os:system", "subprocess:run", "torch:load", "numpy:load", "os.path:exists", "builtins:exec"]
)
def test_a_recipe_is_refused_functions_of_libraries(here: Path, name: str) -> None:
    said = refused(decant("teacher", "-r", "recipe.toml", "--set", f"data.name={name}", cwd=here))
    assert name in said
    assert "--trust" in said


@pytest.mark.parametrize("name", ["mine:system", "mine:fetch", "mine:loads"])
def test_nor_does_it_get_them_by_a_module_that_imports_them(here: Path, name: str) -> None:
    said = refused(decant("teacher", "-r", "recipe.toml", "--set", f"data.name={name}", cwd=here))
    assert name in said
    assert "--trust" in said


def test_it_may_name_what_a_package_of_the_users_takes_from_its_modules(here: Path) -> None:
    (here / "package").mkdir()
    (here / "package/__init__.py").write_text("from package.inner import parts\n")
    (here / "package/inner.py").write_text(
        "from mine import Few\ndef parts(root, split): return Few(split)\n"
    )
    done = decant("teacher", "-r", "recipe.toml", "--set", "data.name=package:parts", cwd=here)
    succeed(done)
    assert "runs package:parts from package/__init__.py\n" in done.stderr


# The working folder

PLANTED = (
    *(
        "numpy",
        "torch",
        "h5py",
        "PIL",
        "rich",
        "yaml",
        "pydantic",
        "sklearn",
        "tensorflow",
        "pandas",
        "joblib",
    ),
    *(
        "sitecustomize",
        "usercustomize",
        "json",
        "typing",
        "__future__",
        "dataclasses",
        "random",
        "struct",
        "ast",
    ),
)
_INSTALLED_SCRIPT = "from decant.pipeline.cli.main import main\nmain()\n"  # what pip writes into bin/decant


@pytest.mark.parametrize("way", ["the command", pytest.param("python -m decant", marks=pytest.mark.slow)])
def test_a_file_in_the_working_folder_is_not_imported_unasked(tmp_path: Path, way: str) -> None:
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(
            "open('ran', 'a').write(__name__)\nraise ImportError('planted')\n"
        )
    script = tmp_path / "bin/decant"
    script.parent.mkdir()
    script.write_text(_INSTALLED_SCRIPT)
    started = [str(script)] if way == "the command" else ["-m", "decant"]
    small = ("--set", "teacher.network=linear", "--set", "teacher.epochs=1")
    done = subprocess.run(
        [sys.executable, *started, "teacher", *small],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    succeed(done)
    assert not (tmp_path / "ran").exists()


def test_it_is_not_on_the_path_when_a_function_in_it_was_imported(here: Path) -> None:
    """A library that a user's module imports looks for what is optional, and finds nothing beside the module."""
    (here / "planted.py").write_text("open('ran', 'w')\n")
    library = here / "site-packages"
    library.mkdir()
    (library / "asks.py").write_text("try:\n    import planted\nexcept ImportError:\n    pass\n")
    found = f"import sys\nsys.path.append({str(library)!r})\nimport asks, beside\n"
    (here / "mine.py").write_text(found + CODE)
    succeed(decant("teacher", "-r", "recipe.toml", cwd=here))
    assert not (here / "ran").exists()


def in_a_new_process(data: Any, results: Any) -> None:
    results.put([int(data[np.array([[0, 0]])][0].sum()), "planted" in sys.modules])


@pytest.mark.slow
def test_a_worker_that_is_started_anew_finds_what_its_parent_may_run(here: Path) -> None:
    script = f"""
import multiprocessing, sys
import numpy as np
from pathlib import Path
from decant.pipeline.config.recipe import load_recipe
from decant.pipeline.phases.datasets import RecipeData
from decant.pipeline.support import modules
from decant.pipeline.training.loading import loader
from decant.pipeline.views import ViewedData
import decant.pipeline.data.external as external
from tests.security.test_code import in_a_new_process

if __name__ == "__main__":
    external.MAX_ARRAY_BYTES = 0  # samples are read by workers
    modules.search({str(here)!r})
    viewed = RecipeData(load_recipe({str(here / "recipe.toml")!r}).settings).student_train
    print(int(viewed.batch(np.array([[0, 0]]))[0].sum()))
    spawn = multiprocessing.get_context("spawn")
    results = spawn.Queue()
    child = spawn.Process(target=in_a_new_process, args=(loader(viewed, [], 1).dataset, results))
    child.start()
    print(results.get(timeout={PATIENCE})[0])
    child.join()
"""
    file = here / "script" / "spawns.py"
    file.parent.mkdir()
    file.write_text(script)
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, str(file)],
        cwd=file.parent,
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    ours, theirs = succeed(done).split()
    assert ours == theirs


def test_pictures_are_opened_in_the_listed_formats_alone() -> None:
    """PostScript would be run by an interpreter; a file is what its content says, not its ending."""
    from decant.pipeline.data.found_images import readable_formats

    assert not {"EPS", "PDF", "WMF", "FITS", "HDF5", "GRIB", "BUFR"} & set(readable_formats())


def test_a_configuration_of_texts_has_no_code_fetched() -> None:
    """A run folder keeps it, and the library reads kernels and classes of a hub where it says so."""
    transformers = pytest.importorskip("transformers")
    from decant.pipeline.networks import bert

    small = transformers.BertConfig(
        vocab_size=8, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8
    )
    config = {**small.to_dict(), "model_type": "bert", "num_labels": 2, "attn_implementation": "evil/kernel"}
    config["auto_map"] = {"AutoModelForSequenceClassification": "evil/code--module.Class"}
    network, _ = bert.from_elsewhere("evil/code", config, fetch=False)
    assert type(network).__module__.startswith("transformers.")
    assert network.config._attn_implementation in ("eager", "sdpa")


def test_weights_of_timm_come_from_no_place_that_a_run_names(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    from decant.pipeline.errors import ModelError
    from decant.pipeline.networks import external
    from decant.pipeline.networks.registry import build_by_name

    library = SimpleNamespace(
        is_model=lambda name: True, create_model=lambda name, **args: pytest.fail("called")
    )
    monkeypatch.setattr(external, "optional", lambda *_: library)
    for name in ("checkpoint_path", "pretrained_cfg", "pretrained_cfg_overlay"):
        with pytest.raises(ModelError, match=f"{name}: .*--trust"):
            build_by_name(
                "timm:resnet18",
                2,
                input_shape=(3, 8, 8),
                mean=(0.5,) * 3,
                std=(0.5,) * 3,
                **{name: {"file": "x"}},
            )
