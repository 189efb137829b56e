"""The site builds, fetches nothing, and its reference names everything that the code has."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType

import pytest

import decant
from decant.pipeline.config.catalogue import catalogue
from decant.pipeline.config.recipe import shipped
from decant.pipeline.config.settings import Settings
from decant.pipeline.networks import registry
from tests.helpers import browser
from tests.helpers.processes import ROOT

needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="the extra `docs` is not installed"
)
_LOADED = {"src", "srcset", "data", "poster"}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site that `make docs` builds, with every warning an error."""
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        # -o: the environment that the tests run in is not set up again, whatever its age
        ["make", "-o", f"{sys.prefix}/.ready", "docs", f"VENV={sys.prefix}", f"SITE={folder}"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Loads(HTMLParser):
    """Collects what a page has a browser fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in _LOADED or (tag == "link" and name == "href"):
                self.found.append(value or "")


@needs_mkdocs
def test_the_site_builds_with_every_table_and_fetches_nothing_from_elsewhere(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        content = page.read_text("utf-8")
        loads = Loads()
        loads.feed(content)
        assert loads.found
        assert [found for found in loads.found if re.match(r"(https?:)?//", found)] == [], page
        assert "<!-- generated" not in content, page
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//", style.read_text("utf-8")), style


@needs_mkdocs
def test_a_numbered_list_has_the_items_that_are_numbered_in_its_page(site: Path) -> None:
    """Not the bullets below it, and each item on a line of its own."""
    found = 0
    for page in sorted((ROOT / "docs").rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
        assert re.search(r"^1\. .*(?<=[.?]) 2\. ", text, re.MULTILINE) is None, page
        numbered = len(re.findall(r"^\d+\. ", text, re.MULTILINE))
        html = (site / page.relative_to(ROOT / "docs").with_suffix(".html")).read_text("utf-8")
        body = html[html.index("<article") : html.index("</article")]
        items = sum(one.count("<li>") for one in re.findall(r"<ol>.*?</ol>", body, re.DOTALL))
        assert items == numbered, page
        found += items
    assert found > 20


@needs_mkdocs
def test_the_search_of_the_site_works_from_disk(site: Path) -> None:
    with browser.started() as chromium:
        page = chromium.new_page(viewport=browser.DESKTOP)
        page.goto((site / "guides/images.html").as_uri())
        page.locator(".md-search__input").fill("several teachers", timeout=20_000)
        page.locator(".md-search-result__link[href*='several-teachers.html']").first.wait_for(timeout=20_000)


def test_every_page_is_in_the_navigation() -> None:
    navigation = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE))
    assert navigation == {str(path.relative_to(ROOT / "docs")) for path in (ROOT / "docs").rglob("*.md")}


def test_every_table_is_on_a_page(generate: ModuleType) -> None:
    markers = {
        name
        for path in (ROOT / "docs").rglob("*.md")
        for name in re.findall(r"<!-- generated: (\w+) -->", path.read_text("utf-8"))
    }
    assert markers == set(generate.TABLES)


def test_every_setting_is_named_and_said_what_for(generate: ModuleType) -> None:
    from reference_tables import recipe

    table = generate.TABLES["settings"]()
    for path, model in recipe.sections():
        assert f"## `[{path}]`" in table
        about = recipe.described(model)
        for key, field in model.model_fields.items():
            assert f"| `{field.alias or key}` |" in table, f"{path}.{key}"
            assert about.get(key), f"{path}.{key} has no docstring"
    assert {path.partition(".")[0] for path, _ in recipe.sections()} == set(Settings.model_fields)


def names(table: str) -> list[str]:
    """The first cell of every row."""
    return re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)


def test_every_objective_operation_recipe_and_network_is_named(generate: ModuleType) -> None:
    from reference_tables import recipe

    made = {
        name: names(generate.TABLES[name]()) for name in ("objectives", "operations", "recipes", "networks")
    }
    assert made["objectives"] == [entry.name for entry in catalogue()]
    assert made["operations"] == [recipe.tag(model, "op") for model in recipe.operation_models()]
    assert made["recipes"] == shipped()
    assert made["networks"] == registry.names()
    assert min(map(len, made.values())) >= 11


def test_every_command_and_public_name_has_its_heading(generate: ModuleType) -> None:
    from reference_tables import commands

    table = generate.TABLES["commands"]()
    paths = [path for path, _ in commands.walk(commands.command_line, "decant")]
    assert len(paths) >= 18
    assert [path for path in paths if f"## {path} {{" not in table] == []
    api = generate.TABLES["api"]()
    assert [name for name in decant.__all__ if f"## decant.{name} {{" not in api] == []
    for name in ("MismatchError", "import_logits", "read_distillkit", "push_cache"):  # of decant.cache alone
        assert f"### cache.{name} {{" in api
    assert "### cache.LogitCache {" not in api
    for name in (
        "LogitCache.logits",
        "LogitCache.open",
        "objectives.kd",
        "encodings.Sparse",
        "cache.read_vllm",
    ):
        member = decant
        for part in name.split("."):
            member = getattr(member, part)
        _, _, entry = api.partition(f"### {name} {{")
        entry, _, _ = entry.partition("\n##")
        assert f"```python\n{name}(" in entry
        assert inspect.cleandoc(member.__doc__ or "").split()[:3] == entry.split("```")[2].split()[:3], name
    for library in ("datasets", "lightning", "timm", "transformers", "trl"):
        offered = ast.literal_eval(
            (ROOT / f"decant/integrations/{library}.py").read_text().split("__all__ = ")[1]
        )
        assert [one for one in offered if f"### integrations.{library}.{one} {{" not in api] == []


def test_every_message_and_folder_of_the_code_is_there(generate: ModuleType) -> None:
    messages = generate.TABLES["messages"]()
    assert messages.count(" | `` ") > 150
    for said in ("the header does not agree with its seal", "epochs: 0 leaves the network untrained"):
        assert said in messages
    rows = re.findall(r"^\| `([\w/]+)/` \|(.*)\|$", generate.TABLES["tree"](), re.MULTILINE)
    assert len(rows) > 15
    assert [folder for folder, said in rows if not said.strip()] == []
