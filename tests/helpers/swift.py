"""OpenStack Swift, an object store that speaks S3, on one machine over loopback: its ring, its four servers.

It is not among the extras. `pip install swift` in an environment of its own, whose programs are on PATH, and
`DECANT_TEST_S3=swift` run the tests of S3 against it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.helpers.servers import free_port, server

KEY, SECRET = "test:tester", "testing"
_KINDS = ("account", "container", "object")
_PIPELINE = "catch_errors gatekeeper cache listing_formats s3api tempauth bulk slo dlo versioned_writes"


@contextmanager
def swift_server(folder: Path) -> Iterator[int]:
    """The servers, with one disk that is a folder, until the end; yields the port of S3."""
    bin_folder = Path(shutil.which("swift-proxy-server") or "swift is not on PATH").parent
    settings = folder / "settings"
    (folder / "disks" / "one").mkdir(parents=True)
    settings.mkdir()
    (settings / "swift.conf").write_text(
        "[swift-hash]\nswift_hash_path_suffix = a\n[storage-policy:0]\nname = one\ndefault = yes\n"
    )
    ports = {kind: free_port() for kind in (*_KINDS, "proxy")}
    for kind in _KINDS:
        _make_ring(bin_folder, settings / f"{kind}.builder", ports[kind])
        _write_storage(settings, kind, ports[kind], folder / "disks")
    _write_proxy(settings, ports["proxy"])
    with ExitStack() as running:
        for kind, port in ports.items():
            command = [bin_folder / f"swift-{kind}-server", settings / f"{kind}.conf", "--verbose"]
            running.enter_context(server(command, port, folder / f"{kind}.log"))
        yield ports["proxy"]


def _make_ring(bin_folder: Path, builder: Path, port: int) -> None:
    for words in (
        ("create", "4", "1", "0"),
        ("add", f"r1z1-127.0.0.1:{port}/one", "1"),
        ("rebalance",),
    ):
        command = [bin_folder / "swift-ring-builder", builder, *words]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _write_storage(settings: Path, kind: str, port: int, disks: Path) -> None:
    (settings / f"{kind}.conf").write_text(
        f"{_default(settings, port, workers=0)}devices = {disks}\nmount_check = false\ndisable_fallocate = true\n"
        f"[pipeline:main]\npipeline = {kind}-server\n[app:{kind}-server]\nuse = egg:swift#{kind}\n"
    )


def _write_proxy(settings: Path, port: int) -> None:
    more = {
        "cache": "memcache_servers = 127.0.0.1:1",  # none
        "tempauth": f"user_{KEY.replace(':', '_')} = {SECRET} .admin",
        "s3api": "location = us-east-1",
    }
    names = {"cache": "memcache"}
    filters = "".join(
        f"[filter:{name}]\nuse = egg:swift#{names.get(name, name)}\n{more.get(name, '')}\n"
        for name in _PIPELINE.split()
    )
    (settings / "proxy.conf").write_text(
        f"{_default(settings, port, workers=1)}[pipeline:main]\npipeline = {_PIPELINE} proxy-server\n"
        f"[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n{filters}"
    )


def _default(settings: Path, port: int, workers: int) -> str:
    user = os.environ.get("USER") or "root"
    return (
        f"[DEFAULT]\nbind_ip = 127.0.0.1\nbind_port = {port}\nworkers = {workers}\nuser = {user}\n"
        f"swift_dir = {settings}\n"
    )
