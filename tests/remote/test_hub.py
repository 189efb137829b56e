"""Datasets on the Hub: huggingface_hub itself, against a small fake of its API over loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.caches import build, manifest
from tests.helpers.commands import decant_anew, refused, succeed
from tests.helpers.extras import needs
from tests.helpers.hub import TOKEN, Hub, serving_hub

pytestmark = needs("huggingface_hub", "aiohttp")
STORE = "hf://datasets/me/labels"


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serving_hub() as server:
        yield server


@pytest.fixture
def here(hub: Hub, tmp_path: Path) -> dict[str, Any]:
    return {
        "cwd": tmp_path,
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HOME": str(tmp_path / "hf"),
        "DECANT_CACHE_HOME": str(tmp_path / "mirror"),
    }


def test_a_cache_is_pushed_with_a_card_and_pulled(hub: Hub, here: dict[str, Any], tmp_path: Path) -> None:
    cache = build(tmp_path / "x.h5", manifest(num_samples=300))
    assert f"made {STORE}/x.h5" in succeed(decant_anew("cache", "push", cache, STORE, **here))
    assert hub.files["x.h5"] == cache.read_bytes()
    card = hub.files["README.md"].decode()
    assert manifest(num_samples=300).key in card
    assert f"decant student --set cache.from={STORE}/x.h5" in card
    assert "the same bytes" in succeed(decant_anew("cache", "push", cache, STORE, **here))
    assert hub.files["README.md"].decode() == card
    assert len(hub.commits) == 3  # the first, the cache, the card

    said = succeed(decant_anew("cache", "pull", f"{STORE}/x.h5", **here))
    assert "sound" in said
    (copy,) = (tmp_path / "mirror").glob("stores/*/x.h5")
    assert copy.read_bytes() == cache.read_bytes()
    for path in (tmp_path / "mirror").rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes()
    assert {token for path, token in hub.seen if path.startswith("/cdn/")} == {None}, "a token went elsewhere"


def test_another_file_that_comes_first_stays(hub: Hub, here: dict[str, Any], tmp_path: Path) -> None:
    cache = build(tmp_path / "x.h5")
    other = build(tmp_path / "other.h5", manifest(info={"device": "another"})).read_bytes()
    hub.files["README.md"] = b"# My own words\n"
    hub.between = [("x.h5", other)]
    said = decant_anew("cache", "push", cache, STORE, **here)
    assert "with other logits; it stays as it is" in succeed(said)
    assert "its README.md is not one that decant made" in said.stderr
    assert hub.files == {"x.h5": other, "README.md": b"# My own words\n"}


def test_what_is_missing_or_not_permitted_is_said(hub: Hub, here: dict[str, Any], tmp_path: Path) -> None:
    cache = build(tmp_path / "x.h5")
    none = "hf://datasets/me/none"
    assert "there is no such dataset" in refused(decant_anew("cache", "ls", "--store", none, **here))
    said = refused(
        decant_anew("cache", "push", cache, STORE, **{**here, "HF_TOKEN": "hf_otherotherotherother"})
    )
    assert "no permission" in said
    assert "hf_other" not in said
    assert "expected hf://datasets/OWNER/NAME" in refused(
        decant_anew("cache", "ls", "--store", "hf://me/a", **here)
    )
