"""A web server that does what servers do: each is tried again or refused by name, and none is believed."""

from __future__ import annotations

import signal
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from decant.cache import CacheWarning, CorruptError, FormatError, LogitCache, OfflineError, RemoteError, Store
from decant.cache.remote import folder, mirror
from decant.cache.remote.opening import open_folder
from tests.helpers.caches import build, holds_the_answers, manifest
from tests.helpers.commands import start
from tests.helpers.extras import needs
from tests.helpers.processes import PATIENCE
from tests.helpers.web import Handler, Trick, Web, each_nth, first, once

pytestmark = needs("aiohttp")


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "_FIRST_WAIT", 0.01)


@pytest.fixture
def url(web: Web) -> str:
    build(web.folder / "x.h5", manifest(num_samples=3000))
    return f"{web.url}/x.h5"


PASSING: dict[str, Trick] = {
    "500": lambda handler: handler.refuse(500),
    "524": lambda handler: handler.refuse(524),
    "503": lambda handler: handler.refuse(503),
    "429 that says when": lambda handler: handler.refuse(429, Retry_After="0"),
    "cut after the header": lambda handler: handler.answer(cut=0),
    "cut in the content": lambda handler: handler.answer(cut=17),
    "a length that is too long": lambda handler: handler.answer(length=5),
    "a byte that is another": lambda handler: (
        handler.answer(change=True) if _is_of_blocks(handler) else False
    ),
}


def _is_of_blocks(handler: Handler) -> bool:
    part = handler.range(1 << 40)
    ends = part is not None and part[1] == handler.file.stat().st_size  # where the checksums and the seal are
    return part is not None and part[0] >= 32_768 and part[1] - part[0] > 2000 and not ends


@pytest.mark.parametrize("name", PASSING)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_passes_is_tried_again(web: Web, url: str, name: str, lazy: bool) -> None:
    web.trick = once(PASSING[name]) if "byte" in name else first(1, PASSING[name])
    cache = LogitCache.open(url, lazy=lazy)
    assert holds_the_answers(cache)
    assert cache.verify() == []


def test_a_slow_answer_is_waited_for(web: Web, url: str) -> None:
    web.trick = each_nth(3, lambda handler: handler.answer(pause=0.2))
    assert holds_the_answers(LogitCache.open(url))


def test_a_server_that_says_when_is_asked_then_and_not_before(
    web: Web, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(folder.time, "sleep", waits.append)
    for asked, least in (("7", 7), ("999", 60), (format_datetime(datetime.now(UTC) + timedelta(days=1)), 60)):
        waits.clear()
        web.trick = once(lambda handler, asked=asked: handler.refuse(429, Retry_After=asked))  # type: ignore[misc]
        assert open_folder(web.url).stat("x.h5") is not None
        assert waits == [least]


LASTING: dict[str, tuple[Trick, type[Exception], str]] = {
    "403": (lambda handler: handler.refuse(403), RemoteError, r"no permission \(.*403"),
    "401": (lambda handler: handler.refuse(401), RemoteError, r"no permission \(.*401"),
    "404": (lambda handler: handler.refuse(404), FileNotFoundError, "no such cache"),
    "416": (lambda handler: handler.refuse(416) if _later(handler) else False, RemoteError, "has no bytes"),
    "418": (lambda handler: handler.refuse(418), RemoteError, "the server answered 418"),
    "endless redirects": (
        lambda handler: handler.refuse(302, Location=handler.path),
        RemoteError,
        "is redirected again and again, without an end",
    ),
    "503": (
        lambda handler: handler.refuse(503),
        RemoteError,
        "failed 5 times, the last time: the server answered 503",
    ),
    "cut": (lambda handler: handler.answer(cut=0), RemoteError, "failed 5 times"),
    "changed bytes": (
        lambda handler: handler.answer(change=True) if _is_of_blocks(handler) else False,
        CorruptError,
        r"view \d, block \d+ .* is not as it was written, in two answers of the store",
    ),
    "other range": (lambda handler: _other_range(handler), RemoteError, "sends other bytes than"),
    "fewer bytes": (lambda handler: _fewer(handler), RemoteError, "failed 5 times, the last time: sent"),
    "another ETag": (
        lambda handler: handler.answer(tag='"new"') if _later(handler) else False,
        RemoteError,
        "was replaced while it was read",
    ),
    "compressed": (lambda handler: handler.refuse(200, Content_Encoding="gzip"), RemoteError, "compressed"),
    "a file that is none": (lambda handler: _elsewhere(handler, "none.h5"), FormatError, "not an HDF5 file"),
    "a huge length": (lambda handler: _huge(handler), FormatError, "so not a cache"),
}


def _later(handler: Handler) -> bool:
    part = handler.range(1 << 40)
    return part is not None and part[0] > 0


def _other_range(handler: Handler) -> bool:
    handler.headers.replace_header("Range", "bytes=1-9")
    return handler.answer()


def _fewer(handler: Handler) -> bool:
    """Says that it sends what was asked for, and sends less, which it counts well."""
    part = handler.range(1 << 40)
    if part is None or part[1] - part[0] < 2:
        return False
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes {part[0]}-{part[1] - 1}/{handler.file.stat().st_size}")
    handler.send_header("ETag", handler.tag())
    handler.send_header("Content-Length", "1")
    handler.end_headers()
    handler.wfile.write(b"x")
    return True


def _elsewhere(handler: Handler, name: str) -> bool:
    path = handler.server.folder / name
    if not path.exists():
        path.write_bytes(b"no cache at all " * 100)
    handler.path = f"/{name}"
    return handler.answer()


def _huge(handler: Handler) -> bool:
    handler.send_response(206)
    handler.send_header("Content-Range", f"bytes 0-0/{1 << 60}")
    handler.send_header("Content-Length", "1")
    handler.end_headers()
    handler.wfile.write(b"x")
    return True


@pytest.mark.parametrize("scheme", [pytest.param("s3", marks=needs("s3fs"))])
def test_endless_redirects_of_a_store_are_followed_once(
    web: Web, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """botocore hides what came of them in an error that it has for any failure, which often passes."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", web.url)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    web.trick = lambda handler: handler.refuse(302, Location=handler.path)
    with pytest.raises(RemoteError, match=r"bucket/x\.h5: is redirected again and again"):
        open_folder(f"{scheme}://bucket").read("x.h5", 0, 9)
    assert len(web.asked) < 60


@pytest.mark.parametrize("name", LASTING)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_lasts_is_refused_by_name(web: Web, url: str, name: str, lazy: bool) -> None:
    web.trick, kind, says = LASTING[name]
    with pytest.raises(kind, match=says) as caught:
        holds_the_answers(LogitCache.open(url, lazy=lazy))
    assert url in str(caught.value)
    assert not list(mirror.home().glob("stores/*/x.h5"))
    web.trick = None
    assert holds_the_answers(LogitCache.open(url, lazy=lazy))  # and nothing wrong was kept


@pytest.mark.parametrize("lazy", [False, True])
def test_a_file_that_is_replaced_between_two_ranges_is_noticed(web: Web, url: str, lazy: bool) -> None:
    other = build(web.folder / "other.h5", manifest(num_samples=3000, data={"name": "others"}))
    count = [0]

    def replace(handler: Handler) -> bool:
        count[0] += 1
        if count[0] == 4:
            other.replace(web.folder / "x.h5")
        return False

    web.trick = replace
    with pytest.raises((RemoteError, CorruptError), match=r"was replaced|is not as it was written"):
        holds_the_answers(LogitCache.open(url, lazy=lazy))
    web.trick = None
    cache = LogitCache.open(url, lazy=lazy)
    assert cache.manifest.identity["data"]["name"] == "others"
    assert holds_the_answers(cache)


def test_a_replaced_file_is_fetched_anew_and_the_same_is_not(web: Web, url: str) -> None:
    LogitCache.open(url)
    web.asked.clear()
    (web.folder / "x.h5").touch()  # its ETag is another, its content is not
    LogitCache.open(url)
    assert web.sent < 150_000
    build(web.folder / "new.h5", manifest(num_samples=3000, data={"name": "new"})).replace(
        web.folder / "x.h5"
    )
    assert LogitCache.open(url).manifest.identity["data"]["name"] == "new"


def test_a_fetch_makes_few_requests(web: Web, url: str) -> None:
    """Each costs a store some time: whether the file is there, its two ends, what is small of all blocks, the rest."""
    asked: list[str] = []
    web.trick = lambda handler: asked.append(handler.headers["Range"])  # type: ignore[func-returns-value, return-value]
    LogitCache.open(url)
    assert len(asked) == 5, asked
    size = (web.folder / "x.h5").stat().st_size
    assert f"bytes={size - (3 << 14)}-{size - 1}" in asked  # with it come the checksums


def test_without_a_network_the_copy_is_used_which_is_said(web: Web, url: str) -> None:
    with pytest.raises(
        OfflineError, match=r"http://127.0.0.1:1: cannot be reached|127.0.0.1:1/x.h5: cannot be"
    ):
        LogitCache.open("http://127.0.0.1:1/x.h5")
    LogitCache.open(url)
    web.shutdown()
    web.server_close()
    for lazy in (False, True):
        with pytest.warns(CacheWarning, match="cannot be reached .*; the local copy .* is used"):
            assert holds_the_answers(LogitCache.open(url, lazy=lazy))
    (copy,) = mirror.home().glob("stores/*/x.h5")
    copy.chmod(0o644)
    with copy.open("r+b") as file:
        file.seek(50_000)
        file.write(b"damaged")
    with pytest.raises(OfflineError, match=r"the local copy .* is damaged"):
        Store().pull(url)


def test_a_server_without_ranges_sends_the_whole_file(web: Web, url: str) -> None:
    web.ranges = False
    web.trick = first(1, lambda handler: handler.answer(cut=100_000))
    assert holds_the_answers(LogitCache.open(url, lazy=True))


def test_a_redirect_is_followed_and_carries_no_password(web: Web, url: str) -> None:
    seen: list[str | None] = []

    def redirect(handler: Handler) -> bool:
        seen.append(handler.headers.get("Authorization"))
        if handler.path.startswith("/old"):
            where = f"http://localhost:{web.server_port}/x.h5"
            return handler.refuse(302, Location=where)
        return False

    web.trick = redirect
    assert holds_the_answers(LogitCache.open(f"http://me:secret@127.0.0.1:{web.server_port}/old.h5"))
    assert seen[0] is not None
    assert seen[1] is None
    assert not any("secret" in path.name for path in mirror.home().rglob("*"))


def test_a_signed_address_asks_for_the_same_file(web: Web, url: str, mirror_home: Path) -> None:
    signed = [f"{url}?X-Amz-Signature={number}" for number in ("0f" * 32, "1e" * 32)]
    paths = {LogitCache.open(address).path for address in signed}
    assert len(paths) == 1
    for path in mirror_home.rglob("*"):
        assert "0f0f" not in path.name
        assert not path.is_file() or b"0f0f0f0f" not in path.read_bytes()
    web.trick = lambda handler: handler.refuse(403)
    with pytest.raises(RemoteError) as caught:
        LogitCache.open(signed[0])
    assert "0f0f" not in str(caught.value)
    assert "where its signature has expired, sign it anew" in str(caught.value)


def test_a_fetch_from_a_server_that_never_answers_ends_at_a_signal(
    web: Web, url: str, tmp_path: Path
) -> None:
    asked, over = threading.Event(), threading.Event()
    web.trick = lambda handler: _later(handler) and _silent(asked, over)
    fetching = start("cache", "pull", url, cwd=tmp_path)
    try:
        assert asked.wait(PATIENCE)
        fetching.send_signal(signal.SIGTERM)
        _, err = fetching.communicate(timeout=60)  # not the minutes of a server
    finally:
        over.set()
    assert fetching.returncode == 128 + signal.SIGTERM
    assert "ended by SIGTERM; everything made so far is kept. Go on with: decant cache pull" in err


def _silent(asked: threading.Event, over: threading.Event) -> bool:
    asked.set()
    over.wait(PATIENCE)
    return True
