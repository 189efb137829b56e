"""Hosts of their own on one machine: network namespaces, each with an address, on one switch. Needs root and Linux."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

CARD = "eth0"
"""What the network card of each host is called."""


class Hosts:
    """Hosts 0 to n − 1 and the switch between them. The network of the machine itself is not touched: the switch is a
    bridge in a namespace of its own.
    """

    def __init__(self, count: int) -> None:
        self.token = secrets.token_hex(2)
        self.count = count
        self._names: Path | None = None

    def name(self, host: int) -> str:
        """Of the host, and of its namespace."""
        return f"decant-{self.token}-{host}"

    def address(self, host: int) -> str:
        """In the network that the hosts have among themselves."""
        return f"10.87.3.{host + 1}"

    def connect(self, host: int) -> None:
        """Plugs the cable in."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "up")

    def cut_off(self, host: int) -> None:
        """Pulls the cable out: no packet arrives or leaves, and no connection is closed."""
        _ip("-n", self._switch, "link", "set", f"port{host}", "down")

    def start(
        self, host: int, words: Sequence[str | Path], folder: Path, environment: Mapping[str, str]
    ) -> Started:
        """A command on a host, which has a name of its own and sees the files that all see."""
        there = ["ip", "netns", "exec", self.name(host), "unshare", "--uts", "--mount", "sh", "-c"]
        script = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'
        named = [script, "sh", str(self._names), self.name(host)]
        said = tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            [*there, *named, *map(str, words)],
            cwd=folder,
            env={**os.environ, "GLOO_SOCKET_IFNAME": CARD, "NCCL_SOCKET_IFNAME": CARD, **environment},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        return Started(self, host, process, said)

    def switch_off(self, host: int, sent: signal.Signals) -> None:
        """Sends a signal to every process of a host."""
        for word in _ip("netns", "pids", self.name(host)).split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(word), sent)

    @property
    def _switch(self) -> str:
        return f"decant-{self.token}-switch"

    def make(self) -> None:
        """Makes the namespaces, the switch and the cables. Raises OSError where that cannot be."""
        fd, names = tempfile.mkstemp(prefix="decant-hosts-")
        self._names = Path(names)
        known = [f"{self.address(host)} {self.name(host)}" for host in range(self.count)]
        with os.fdopen(fd, "w") as file:
            file.write("\n".join(["127.0.0.1 localhost", *known, ""]))
        _ip("netns", "add", self._switch)
        _ip("-n", self._switch, "link", "add", "switch", "type", "bridge")
        _ip("-n", self._switch, "link", "set", "switch", "up")
        for host in range(self.count):
            name, port = self.name(host), f"port{host}"
            _ip("netns", "add", name)
            _ip("-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", CARD, "netns", name)
            _ip("-n", self._switch, "link", "set", port, "master", "switch", "up")
            _ip("-n", name, "addr", "add", f"{self.address(host)}/24", "dev", CARD)
            for card in ("lo", CARD):
                _ip("-n", name, "link", "set", card, "up")

    def remove(self) -> None:
        """Removes the namespaces, and with them cards, cables and switch."""
        for host in range(self.count):
            with contextlib.suppress(OSError):
                self.switch_off(host, signal.SIGKILL)
        for name in (*map(self.name, range(self.count)), self._switch):
            with contextlib.suppress(OSError):
                _ip("netns", "delete", name)
        if self._names is not None:
            self._names.unlink(missing_ok=True)


@contextlib.contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """So many hosts, connected to each other; they are removed at the end. Raises OSError where that cannot be."""
    made = Hosts(count)
    try:
        made.make()
        yield made
    finally:
        made.remove()


def why_not() -> str | None:
    """Why hosts cannot be made here; None where they can."""
    if os.name != "posix" or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "unshare", "hostname"):
        if shutil.which(program) is None:
            return f"{program}: not installed (Debian: apt-get install iproute2 util-linux hostname)"
    try:
        with hosts(1):
            return None
    except OSError as error:
        return str(error)


@dataclass(frozen=True)
class Started:
    """A command on a host."""

    hosts: Hosts
    host: int
    process: subprocess.Popen[bytes]
    _said: IO[bytes]

    def has_ended(self) -> bool:
        """Whether it has."""
        return self.process.poll() is not None

    def end(self, seconds: float) -> int | None:
        """Waits so many seconds for the end; the exit code, or None where the command had to be ended, with all that
        runs on its host.
        """
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self.process.wait(seconds)
        for sent in (signal.SIGTERM, signal.SIGKILL):
            self.hosts.switch_off(self.host, sent)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
                break
        self.hosts.switch_off(self.host, signal.SIGKILL)
        return None

    def said(self) -> str:
        """What it has written on stdout and stderr."""
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


def _ip(*words: str) -> str:
    """What `ip` prints. Raises OSError with what it says."""
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"ip {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
