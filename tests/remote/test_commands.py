"""The commands with stores elsewhere: found there first, published there, trained from a verified copy; and no secret
in anything that is written or said.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from decant.cache import Store
from tests.helpers.caches import build, manifest
from tests.helpers.commands import TINY, decant, refused, succeed
from tests.helpers.extras import needs
from tests.helpers.object_stores import KEY, SECRET
from tests.helpers.web import Web

LABELS = ("--set", "student.baseline=false", "--set", "student.seeds=1")
with_s3 = pytest.mark.usefixtures("bucket")


def machine(folder: Path, name: str) -> dict[str, Any]:
    """The environment of a machine of its own: its working folder and its mirror."""
    (folder / name).mkdir(exist_ok=True)
    return {"cwd": folder / name, "DECANT_CACHE_HOME": str(folder / name / "mirror")}


class TestS3:
    pytestmark = needs("s3fs", "moto")

    def test_one_builds_and_publishes_and_another_trains_without_a_teacher(
        self, tmp_path: Path, bucket: str
    ) -> None:
        store = f"s3://{bucket}/caches"
        one, other = machine(tmp_path, "one"), machine(tmp_path, "other")
        succeed(decant("teacher", *TINY, "--store", store, **one))
        said = succeed(decant("cache-logits", *TINY, "--store", store, **one))
        name = re.findall(r"digits-train-conv-[0-9a-f]{16}\.h5", said)[0]
        assert [row["name"] for row in listed(store, **other)] == [name]
        assert not listed(store, **other)[0]["copy"]

        said = succeed(decant("cache", "info", name, "--store", store, **other))
        assert "of which no copy is here" in said
        for remote in ("lazy", "whole"):
            words = ("student", *TINY, *LABELS, "--set", f"cache.from={store}/{name}")
            said = succeed(decant(*words, "--set", f"cache.remote={remote}", **machine(tmp_path, remote)))
            assert "made runs/digits" in said

        (other["cwd"] / "runs").symlink_to(one["cwd"] / "runs")
        for _ in range(2):
            said = succeed(decant("cache-logits", *TINY, DECANT_STORE=store, **other))
            assert "nothing to do, no teacher was loaded" in said
        assert listed(store, **other)[0]["copy"]
        assert "sound" in succeed(decant("cache", "verify", name[-19:-3], "--store", store, **other))
        assert "0 bytes" in succeed(decant("cache", "gc", "--store", store, **other))
        searched(tmp_path, SECRET)

    def test_a_pushed_cache_is_pulled_with_the_same_bytes(self, tmp_path: Path, bucket: str) -> None:
        store, here = f"s3://{bucket}/caches", machine(tmp_path, "here")
        cache = build(Store(here["cwd"] / "caches").path(manifest()))
        said = succeed(decant("cache", "push", manifest().key[:8], store, **here))
        assert f"made {store}/{cache.name}" in said
        assert "the same bytes" in succeed(decant("cache", "push", cache, store, **here))
        for name in (f"{store}/{cache.name}", cache.name, manifest().key[:6]):
            said = succeed(decant("cache", "pull", name, "--store", store, **machine(tmp_path, "there")))
            assert "sound" in said
        said = succeed(decant("cache", "diff", f"{store}/{cache.name}", cache, **here))
        assert "no field differs" in said

    def test_one_clear_line_for_each_mistake(self, tmp_path: Path, bucket: str) -> None:
        here = machine(tmp_path, "here")
        cache = build(tmp_path / "x.h5")
        for words, says, environment in (
            (("push", cache, "s3://no-such-bucket/a"), "there is no bucket no-such-bucket; make it", {}),
            (("ls", "--store", "s3://no-such-bucket"), "there is no bucket no-such-bucket; make it", {}),
            (("ls", "--store", "s3://"), "no address of a store: it names no bucket", {}),
            (("ls", "--store", "ftp://host/a"), "stores are folders, or begin with s3://", {}),
            (("pull", f"s3://{bucket}/none.h5"), f"s3://{bucket}/none.h5: no such cache", {}),
            (("ls", "--store", f"s3://me:{SECRET}@{bucket}"), "credentials in an address", {}),
            (
                ("ls", "--store", f"s3://{bucket}"),
                f"s3://{bucket}: cannot be reached",
                {"AWS_ENDPOINT_URL": "http://127.0.0.1:1"},
            ),
            (
                ("ls", "--store", f"s3://{bucket}"),
                "no credentials, or none that can be used",
                {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": "", "HOME": str(tmp_path)},
            ),
        ):
            said = refused(decant("cache", *words, **here, **environment))
            assert says in said, said
            assert "\n" not in said
            assert SECRET not in said

    def test_a_build_that_could_not_publish_does_so_the_next_time(
        self, bucket: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        store = Store(f"s3://{bucket}/caches")
        monkeypatch.setattr(store.remote, "push", lambda path: None)  # as if it were killed before
        with store.building(manifest()) as path:
            build(path)
        assert store.remote is not None
        assert store.remote.names() == {}
        anew = Store(f"s3://{bucket}/caches")
        assert anew.find(manifest()) == path
        assert list(store.remote.names()) == [path.name]
        assert not list(path.parent.glob("*.unpushed"))


class TestWeb:
    pytestmark = needs("aiohttp")

    def test_no_secret_of_an_address_is_written_or_said(self, tmp_path: Path, web: Web) -> None:
        here, made = machine(tmp_path, "here"), machine(tmp_path, "made")
        succeed(decant("teacher", *TINY, **made))
        succeed(decant("cache-logits", *TINY, **made))
        (cache,) = made["cwd"].glob("caches/*.h5")
        (web.folder / "x.h5").write_bytes(cache.read_bytes())
        url = f"http://me:s3cr3tpassw0rd@127.0.0.1:{web.server_port}/x.h5?X-Amz-Signature=5ca1ab1e5ca1ab1e"
        given = ("--set", f"cache.from={url}")
        said = [succeed(decant("student", *TINY, *LABELS, *given, **here))]
        said.append(succeed(decant("status", *TINY, *LABELS, *given, **here)))
        said.append(succeed(decant("report", *TINY, *LABELS, *given, **here)))
        said.append(succeed(decant("cache", "verify", url, **here)))
        said.append(succeed(decant("cache", "info", url, **here)))
        web.trick = lambda handler: handler.refuse(503)
        said.append(refused(decant("cache", "pull", url.replace("x.h5", "y.h5"), **here)))
        web.trick = lambda handler: handler.refuse(403)
        said.append(refused(decant("cache", "pull", url, **here)))
        searched(here["cwd"], "s3cr3tpassw0rd", "5ca1ab1e5ca1ab1e")
        for text in said:
            text = re.sub(r"(?m)^next: .*", "", text)  # which repeats what was typed, to be copied
            assert "s3cr3t" not in text, text
            assert "5ca1ab1e" not in text, text


def listed(store: str, **where: Any) -> list[dict[str, Any]]:
    result = decant("cache", "ls", "--json", "--store", store, **where)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def searched(folder: Path, *secrets: str) -> None:
    """No file below the folder has a secret in its content or name."""
    for path in folder.rglob("*"):
        content = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        for secret in (*secrets, KEY):
            assert secret.encode() not in content, path
