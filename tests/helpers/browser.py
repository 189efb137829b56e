"""A real headless Chromium. `make browser` installs one; where there is none, the tests that need it are skipped."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextlib.contextmanager
def started() -> Iterator[Browser]:
    """The browser; skips the test, and says how to get one, where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; run: make browser")
    with api.sync_playwright() as driver:
        found = next(filter(None, map(shutil.which, _NAMES)), None) or driver.chromium.executable_path
        if not os.path.exists(found):
            pytest.skip("no Chromium; run: make browser")
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@contextlib.contextmanager
def opened(browser: Browser, path: Path, size: dict[str, int], **options: Any) -> Iterator[Page]:
    """A page from disk with its charts drawn, offline. Whatever the console says, and whatever is fetched, fails."""
    context = browser.new_context(viewport=size, offline=True, accept_downloads=True, **options)
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.on("request", lambda request: _note(said, request.url, path))
    page.goto(path.absolute().as_uri())
    page.wait_for_selector("html[data-drawn]")
    yield page
    context.close()
    assert not said, said


def _note(said: list[str], url: str, path: Path) -> None:
    if url.split("#")[0] != path.absolute().as_uri() and not url.startswith(("data:", "blob:")):
        said.append(f"fetched: {url}")
