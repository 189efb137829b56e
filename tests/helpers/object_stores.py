"""An S3 server in a process of its own, over loopback, and the environment in which its clients find it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"
KEY = "AKIAIOSFODNN7EXAMPLE"


@contextmanager
def s3_server(log: Path) -> Iterator[dict[str, str]]:
    """moto's server, until the end; yields the environment of its clients. With `DECANT_TEST_S3`, the address of
    another server, that is tested, with the credentials of the environment.
    """
    if other := os.environ.get("DECANT_TEST_S3"):
        yield {
            "AWS_ENDPOINT_URL": other,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            stdout=file,
            stderr=file,
            env={name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"},
        )
        try:
            _wait(port, process, log)
            yield {
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
                "AWS_ACCESS_KEY_ID": KEY,
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_EC2_METADATA_DISABLED": "true",
            }
        finally:
            process.kill()
            process.wait()


def make_bucket(name: str) -> None:
    """Makes a bucket in the server that the environment names."""
    import boto3

    boto3.client("s3").create_bucket(Bucket=name)


def _wait(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        assert process.poll() is None, log.read_text()
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("the server did not start")
