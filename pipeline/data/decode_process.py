"""A process that decodes images for another one, and what that other one tells it.

It imports neither torch nor the module that the user has started. Started once, it forks as many processes as are
wanted, so that their imports are made once. Each serves one connection, and ends when that is closed, or with the
process that it was forked from, which ends with the one that decodes.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from decant.pipeline.data.image_pack import Layout
from decant.pipeline.data.listed_reader import ListedFile, ListedReader
from decant.pipeline.data.pack_filling import Filling
from decant.pipeline.support.allocator import freed_memory_kept
from decant.pipeline.support.notices import tell_instead

Group = Sequence[tuple[int, Sequence[ListedFile]]]
"""Blocks, each with the files of its images."""
Answer = tuple[list[bool | None], list[tuple[str, str | None]]]
"""Of each block whether it is made, None where something has gone wrong; and what is to be said, with its subject."""
MakeBlock = Callable[[int, Sequence[ListedFile]], bool]

_POLL_SECONDS = 1.0
_REAP_SECONDS = 0.2


@dataclass(frozen=True)
class Destination:
    """Where images go: into an unfinished pack, or into memory that processes share."""

    layout: Layout
    reader: ListedReader
    descriptors: tuple[int, ...]
    """Open files, which the process has from the one that starts it: of a pack that and its claims, else the memory."""
    pack: Path | None = None

    def open(self) -> MakeBlock:
        """What decodes a block into it; False where yet another process is about to."""
        return self._in_memory() if self.pack is None else self._in_pack(self.pack)

    def _in_memory(self) -> MakeBlock:
        pixels = shared_pixels(self.layout, self.descriptors[0])

        def make(block: int, files: Sequence[ListedFile]) -> bool:
            first, end = self.layout.bounds(block)
            pixels[first:end] = self.reader.images(files)
            return True

        return make

    def _in_pack(self, path: Path) -> MakeBlock:
        at_hand: dict[int, ListedFile] = {}
        filling = Filling(
            path,
            self.layout,
            lambda indices: self.reader.images([at_hand[index] for index in indices.tolist()]),
            (self.descriptors[0], self.descriptors[1]),
        )

        def make(block: int, files: Sequence[ListedFile]) -> bool:
            at_hand.clear()
            at_hand.update(enumerate(files, self.layout.bounds(block)[0]))
            return filling.store(block, check=True)

        return make


def shared_pixels(layout: Layout, memory: int) -> NDArray[np.uint8]:
    """(N, C, H, W) in memory that an open file is, and that everybody sees who has that file."""
    mapped = mmap.mmap(memory, layout.pixel_bytes)
    return np.frombuffer(mapped, np.uint8).reshape(layout.count, *layout.image_shape)


def main(parent: int, sockets: Sequence[int]) -> None:
    """Forks a process for each socket, and waits for them. Ends them all where the process `parent` has died."""
    server, left, processes = os.getpid(), list(sockets), set[int]()
    while left:
        socket = left.pop()
        process = os.fork()
        if not process:
            _serve_alone(socket, left, server)
        processes.add(process)
        os.close(socket)
    while processes:
        if os.getppid() != parent:  # a copy of it may still have the connections, as a forked worker has
            for process in processes:
                os.kill(process, signal.SIGKILL)
        ended, _ = os.waitpid(-1, os.WNOHANG)
        processes.discard(ended)
        time.sleep(0 if ended else _REAP_SECONDS)


def _serve_alone(socket: int, others: Sequence[int], server: int) -> NoReturn:
    """Serves a connection in a process that was forked for it, and ends the process."""
    try:
        for other in others:
            os.close(other)
        serve(Connection(socket), lambda: os.getppid() == server)
    finally:
        os._exit(0)


def serve(connection: Connection, is_wanted: Callable[[], bool]) -> None:
    """Makes the blocks that it is sent, until the connection is closed, or nobody is there who wants them. The first
    message is a `Destination`, which is answered by the number of this process, all others are each a `Group`.
    """
    said: list[tuple[str, str | None]] = []
    tell_instead(lambda text, about: said.append((text, about)))
    make: MakeBlock | None = None
    with contextlib.suppress(EOFError, OSError), freed_memory_kept():
        while True:
            while not connection.poll(_POLL_SECONDS):
                if not is_wanted():
                    return
            message = connection.recv()
            if make is None:
                make = message.open()
                connection.send(os.getpid())
                continue
            answers = [_made(make, block, files) for block, files in message]
            connection.send((answers, said))
            said.clear()


def _made(make: MakeBlock, block: int, files: Sequence[ListedFile]) -> bool | None:
    """What is wrong is found again, and named, by who is answered None and makes the block itself."""
    try:
        return make(block, files)
    except Exception:
        return None
