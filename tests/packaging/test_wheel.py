"""What a wheel and a source archive hold, and the installed wheel beside other modules called cache and pipeline."""

from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from tests.helpers.environments import PROJECT, Environment, copy_sources, run
from tests.helpers.processes import ROOT
from tests.packaging.conftest import build_wheel

THEIRS = "raise SystemExit('the wheel imported a module of the user')\n"

READ_IN_A_LOOP = """
import sys
import torch
from torch.utils.data import DataLoader, TensorDataset
import decant

def main():
    manifest = decant.Manifest.build(num_samples=6, num_outputs=3)
    with decant.LogitCacheWriter("mine.h5", manifest) as writer:
        writer.write(range(6), torch.arange(18.0).reshape(6, 3).numpy(), labels=range(6))
        writer.publish()
    data = TensorDataset(torch.zeros(6, 2), torch.arange(6))
    cache = decant.LogitCache.open("mine.h5")
    train = decant.SoftLabelDataset(data, cache)
    for context in ("fork", "spawn"):
        loader = DataLoader(train, batch_size=3, num_workers=2, multiprocessing_context=context)
        logits = torch.cat([teacher_logits for _, _, teacher_logits in loader])
        assert torch.equal(logits, torch.arange(18.0).reshape(6, 3)), (context, logits)
    import cache as theirs
    assert theirs.OWNER == "the user", theirs
    print(decant.__file__)

if __name__ == "__main__":
    main()
"""


def sources() -> dict[str, bytes]:
    """Every file of the two folders and of the import package, by its path in an installation."""
    files = {
        path: f"decant/{path.relative_to(ROOT)}"
        for folder in ("cache", "pipeline")
        for path in (ROOT / folder).rglob("*")
    }
    for path in (ROOT / "decant").rglob("*"):
        name = path.relative_to(ROOT / "decant")
        if name.parts[0] not in ("cache", "pipeline"):
            files[path] = f"decant/{name}"
    return {
        name: path.read_bytes() for path, name in files.items() if path.is_file() and path.suffix != ".pyc"
    }


def contents(wheel: Path) -> dict[str, bytes]:
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        assert len(names) == len(set(names)), "a file is in it twice"
        return {name: archive.read(name) for name in names}


def test_the_wheel_holds_the_import_package_and_nothing_beside_it(wheel: Path) -> None:
    held = contents(wheel)
    described = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"
    assert {name.partition("/")[0] for name in held} == {"decant", described}
    assert {name: content for name, content in held.items() if name.startswith("decant/")} == sources()
    assert held[f"{described}/top_level.txt"].split() == [b"decant"]
    for needed in ("py.typed", "pipeline/config/recipes/digits.toml", "pipeline/report/templates/page.html"):
        assert f"decant/{needed}" in held


def test_a_source_archive_holds_each_file_once_and_leads_to_the_same_wheel(
    wheel: Path, tmp_path: Path
) -> None:
    tree = copy_sources(tmp_path / "tree")
    build = "from setuptools import build_meta; print(build_meta.build_sdist('..'))"
    run(sys.executable, "-c", build, cwd=tree)
    [archive] = tmp_path.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        names = [member.name.partition("/")[2] for member in opened if not member.isdir()]
        assert not [member.name for member in opened if member.issym() or member.islnk()]
    assert len(names) == len(set(names)), "a file is in it twice"
    assert {name for name in names if name.startswith("decant/")} == set(sources())
    assert not [name for name in names if name.startswith(("cache/", "pipeline/", "tests/", "benchmarks/"))]
    assert contents(build_wheel(archive, tmp_path / "dist")) == contents(wheel)


def test_modules_of_the_user_are_left_alone(installed: Environment, tmp_path: Path) -> None:
    (tmp_path / "cache.py").write_text("OWNER = 'the user'\n")
    (tmp_path / "pipeline.py").write_text(THEIRS)
    (tmp_path / "loop.py").write_text(READ_IN_A_LOOP)
    found = installed.run("loop.py", cwd=tmp_path).stdout
    assert Path(found.strip()).is_relative_to(installed.site)


def test_a_distribution_with_a_package_called_pipeline_is_left_alone(
    installed: Environment, tmp_path: Path
) -> None:
    other = installed.site / "pipeline"
    other.mkdir()
    try:
        (other / "__init__.py").write_text("OWNER = 'another distribution'\n")
        (other / "errors.py").write_text(THEIRS)
        script = (
            "import decant.pipeline.errors, decant.pipeline.config.recipe as recipe, pipeline\n"
            "assert pipeline.OWNER == 'another distribution'\n"
            "assert decant.pipeline.errors.PipelineError\n"
            "print(recipe.load_recipe('digits').name)"
        )
        assert installed.run("-c", script, cwd=tmp_path).stdout == "digits\n"
    finally:
        shutil.rmtree(other)  # with what Python compiled of it, where it writes that


@pytest.mark.parametrize("command", [("-m", "decant"), ("decant",)])
def test_the_command_is_called_decant(
    installed: Environment, command: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "cache.py").write_text(THEIRS)
    (tmp_path / "pipeline.py").write_text(THEIRS)
    scripts = installed.python.parent
    words = (installed.python, *command) if len(command) == 2 else (scripts / "decant",)
    assert run(*words, "--version", cwd=tmp_path).stdout == f"decant, version {PROJECT['version']}\n"
    assert "kd" in run(*words, "objectives", cwd=tmp_path).stdout


def test_importing_it_loads_no_library(installed: Environment, tmp_path: Path) -> None:
    script = "import sys, decant; print(*{'torch', 'h5py', 'numpy', 'click'} & set(sys.modules))"
    assert installed.run("-c", script, cwd=tmp_path).stdout.split() == []
