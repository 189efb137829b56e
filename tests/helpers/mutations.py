"""Changes to a folder of files that somebody sent: bytes, values of any type at any place, links, odd entries.

`mutate(folder, chance)` makes one of them, and says which.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import struct
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w

VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3.5, -0.0, 10**12, -(10**12), 2**31, 2**63, 2**64, 10**400),
    *(1e300, -1e300, 1e-320, float("nan"), float("inf"), float("-inf")),
    *(
        "",
        "x",
        "0",
        "../../outside",
        "/outside/canary",
        "a\0b",
        "a\nb",
        "\x1b[31mred",
        "\u202eabc",
        "\ud800",
        "os:system",
    ),
    *("sys:exit", "a" * 100_000, "torchvision:resnet18", "conv", "imagefolder", "é", "-", "{}", "%s", "=1+1"),
    *([], [[]], {}, [None], {"a": {}}, {"": 1}, [1] * 1000, {"name": 3}, {"name": "x"}, [10**12], ["a", 1]),
)
_NAMES = ("x", "..name", "a\nb", "\x1b[31m", "\udcff\udcfe", "-rf", "=x", " ", "result.json", "é", "a" * 250)


def mutate(folder: Path, chance: random.Random, outside: Path) -> str:
    """Changes something below `folder`; links lead to files in `outside`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    if not files:
        return "nothing is left"
    by_folder: dict[Path, list[Path]] = {}
    for path in files:  # every folder alike, however many files it has
        by_folder.setdefault(path.parent, []).append(path)
    path = chance.choice(by_folder[chance.choice(sorted(by_folder))])
    kinds: list[Callable[[Path, random.Random, Path], str]] = [
        _bytes,
        _cut,
        _gone,
        _odd_entry,
        _beside,
    ]
    if path.suffix in (".json", ".jsonl", ".toml", ".safetensors", ".npy"):
        kinds += [_value] * 8
    try:
        if chance.random() < 0.1:
            said = _exchange(path, chance.choice(files), chance)
        else:
            said = chance.choice(kinds)(path, chance, outside)
    except (OSError, ValueError, RecursionError, TypeError, AttributeError) as error:
        said = f"nothing ({type(error).__name__})"
    return f"{path.relative_to(folder)}: {said}"


def _bytes(path: Path, chance: random.Random, outside: Path) -> str:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 1, 2, 5, 40])):
        place = chance.randrange(max(1, min(len(content), chance.choice([64, 512, 1 << 30]))))
        value = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
        content[place : place + chance.choice([1, 1, 2, 4, 8])] = bytes([value]) * chance.choice(
            [1, 1, 2, 4, 8]
        )
    path.write_bytes(content)
    return "bytes changed"


def _cut(path: Path, chance: random.Random, outside: Path) -> str:
    content = path.read_bytes()
    length = chance.choice([0, 1, len(content) // 2, len(content) - 1, chance.randrange(len(content) + 1)])
    path.write_bytes(content[:length] + chance.choice([b"", b"", b"\0" * 100, content]))
    return f"cut to {length}"


def _exchange(path: Path, other: Path, chance: random.Random) -> str:
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    if chance.random() < 0.5:
        other.write_bytes(first)
    return f"exchanged with {other.name}"


def _gone(path: Path, chance: random.Random, outside: Path) -> str:
    if chance.random() < 0.3:
        shutil.rmtree(path.parent)
        return "folder removed"
    path.unlink()
    return "removed"


def _odd_entry(path: Path, chance: random.Random, outside: Path) -> str:
    """In place of the file."""
    kind = chance.choice(
        ["link", "link to nowhere", "circle", "pipe", "socket", "folder", "link to folder", "unreadable"]
    )
    if kind == "unreadable":
        path.chmod(0)
        return kind
    path.unlink()
    _make(kind, path, outside)
    return kind


def _beside(path: Path, chance: random.Random, outside: Path) -> str:
    """A new entry in the file's folder, or the whole folder once more."""
    name = chance.choice(_NAMES)
    kind = chance.choice(
        ["link", "link to nowhere", "circle", "pipe", "socket", "folder", "copy", "whole folder", "module"]
    )
    if kind == "copy":
        shutil.copy(path, path.with_name(name + path.suffix))
    elif kind == "module":
        named = chance.choice(["json", "numpy", "torch", "decant", "sitecustomize", "conv", "os", "data"])
        path.with_name(f"{named}.py").write_text("open('/outside-was-written', 'w')\nraise SystemExit(77)\n")
    elif kind == "whole folder":
        shutil.copytree(path.parent, path.parent.with_name(f"{path.parent.name}{name}"), symlinks=True)
    else:
        _make(kind, path.with_name(name + chance.choice(["", path.suffix, ".partial", ".lock"])), outside)
    return f"{kind} called {name!r} beside it"


def _make(kind: str, path: Path, outside: Path) -> None:
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            here = os.getcwd()
            os.chdir(path.parent)
            try:
                made.bind(path.name)
            finally:
                os.chdir(here)
    elif kind == "folder":
        path.mkdir()
    else:
        target = {"link": outside / "canary", "circle": path, "link to folder": outside}
        path.symlink_to(target.get(kind, outside / "nowhere"))


def _value(path: Path, chance: random.Random, outside: Path) -> str:
    """Another value at a random place of what the file holds."""
    match path.suffix:
        case ".jsonl":
            lines = path.read_text("utf-8").splitlines()
            place = chance.randrange(len(lines))
            content, said = changed(json.loads(lines[place]), chance)
            lines[place] = json.dumps(content)
            path.write_text("\n".join(lines) + "\n", "utf-8")
        case ".json":
            content, said = changed(json.loads(path.read_text("utf-8")), chance)
            path.write_text(json.dumps(content), "utf-8")
        case ".toml":
            content, said = changed(tomllib.loads(path.read_text("utf-8")), chance)
            path.write_bytes(tomli_w.dumps(content).encode("utf-8", "replace"))
        case ".safetensors":
            whole = path.read_bytes()
            end = 8 + struct.unpack("<Q", whole[:8])[0]
            content, said = changed(json.loads(whole[8:end]), chance)
            header = json.dumps(content).encode()
            path.write_bytes(struct.pack("<Q", len(header)) + header + whole[end:])
        case _:
            whole = path.read_bytes()
            end = 10 + struct.unpack("<H", whole[8:10])[0]
            shape = chance.choice(
                ["(10, 3)", "(1000000000000, 3)", "(6,)", "()", "(-1, 3)", "(6, 3, 1)", "'x'", "(3, 6)"]
            )
            kind = chance.choice(["<f4", "<f8", "|O", "<c8", "|S9", "<i4", "x", "<M8[s]"])
            said = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}"
            path.write_bytes(whole[:10] + said.encode().ljust(end - 11)[: end - 11] + b"\n" + whole[end:])
    return said


def changed(content: Any, chance: random.Random) -> tuple[Any, str]:
    """A JSON value with one place replaced, removed or added, and which."""
    places = [(holder, key) for holder in _holders(content) for key in _keys(holder)]
    if not places or chance.random() < 0.02:
        value = chance.choice(VALUES)
        return value, f"is {value!r:.40}"
    holder, key = chance.choice(places)
    action, value = (
        chance.choice(["replace", "replace", "replace", "remove", "add", "deep"]),
        chance.choice(VALUES),
    )
    if action == "remove":
        del holder[key]
    elif action == "add" and isinstance(holder, dict):
        holder[chance.choice(["x", "", "folder", "name", "a\x1bb", "__class__", "weights", "size"])] = value
    elif action == "add":
        holder.insert(key, value)
    elif action == "deep":
        for _ in range(chance.choice([10, 70, 900])):
            value = [value]
        holder[key] = value
    else:
        holder[key] = value
    return content, f"{action} {key!r} {value!r:.40}"


def _holders(content: Any) -> list[Any]:
    found, todo = [], [content]
    while todo:
        value = todo.pop()
        if isinstance(value, dict | list):
            found.append(value)
            todo.extend(value.values() if isinstance(value, dict) else value)
    return found


def _keys(holder: Any) -> list[Any]:
    return list(holder) if isinstance(holder, dict) else list(range(len(holder)))
