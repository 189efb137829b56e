"""Passwords and tokens in paths, addresses and arguments are in no file that is shared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from decant.cache import Manifest
from decant.cache.io.redaction import redacted, without_secrets
from tests.helpers.commands import decant, refused, succeed

CODE = """
import numpy as np
from torch import nn

class Few:
    classes = ["dark", "light"]
    def __len__(self):
        return 16
    def __getitem__(self, index):
        return np.full((1, 4, 4), 9 * index, "u1"), index % 2

def parts(root, split):
    assert "s3cr3tpassw0rd" in root, root
    return Few()

def network(num_classes, input_shape, token, where):
    return nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes))

def darken(image, api_key):
    return image // 2
"""
SECRETS = {
    "password": "https://me:s3cr3tpassw0rd@host/images",
    "signature": "https://bucket.host/a?X-Amz-Signature=5ca1ab1e5ca1ab1e&size=2",
    "token": "hf_PlantedPlantedPlantedPlanted",
    "key": "AKIAPLANTEDPLANTED12",
}
PLANTED = ("s3cr3tpassw0rd", "5ca1ab1e5ca1ab1e", "hf_Planted", "AKIAPLANTED", "plantedapikey")
NETWORK = {"name": "mine:network", "token": SECRETS["token"], "where": SECRETS["signature"]}
TRANSFORM = {"op": "transform", "name": "mine:darken", "api_key": "plantedapikey"}


def recipe(root: str) -> dict[str, Any]:
    return {
        "data": {"name": "mine:parts", "root": root},
        "views": {"augment": [TRANSFORM]},
        "teacher": {"network": NETWORK, "epochs": 1},
        "student": {
            "network": {**NETWORK, "where": SECRETS["key"]},
            "epochs": 1,
            "seeds": 1,
        },
    }


def found_in(folder: Path) -> list[str]:
    """Which secrets lie in the content or name of any file of a folder."""
    return [
        f"{path.name}: {secret}"
        for path in folder.rglob("*")
        for secret in PLANTED
        if secret in path.name or (path.is_file() and secret.encode() in path.read_bytes())
    ]


@pytest.mark.parametrize("root", [SECRETS["password"], "$PHOTOS"])
def test_no_file_that_is_written_holds_a_secret(tmp_path: Path, root: str) -> None:
    given, made = tmp_path / "given", tmp_path / "made"
    given.mkdir()
    made.mkdir()
    (given / "mine.py").write_text(CODE)
    (given / "mine.toml").write_text(tomli_w.dumps(recipe(root)))
    where = ("--recipe", given / "mine.toml")
    env = {"PHOTOS": SECRETS["password"]}
    for phase in ("teacher", "cache-logits", "student", "student", "report"):
        done = decant(phase, *where, cwd=made, **env)
        succeed(done)
    assert "found " in succeed(decant("teacher", *where, cwd=made, **env))
    student = next(made.glob("runs/mine/student-*/seed-0"))
    words = ("export", student, "--formats", "pt2", "--samples", "4")
    exported = decant(*words, cwd=given, **env)
    if root == "$PHOTOS":
        succeed(exported)
        assert 'root = "$PHOTOS"' in (student / "recipe.toml").read_text()
    else:
        assert "data.root" in refused(exported)
    assert found_in(made) == []
    assert "0 of 1" not in succeed(decant("status", *where, cwd=made, **env))


def test_a_manifest_holds_none() -> None:
    manifest = Manifest.build(
        num_samples=2,
        num_outputs=2,
        teacher={"network": {"name": "x", "args": {"token": SECRETS["token"]}}},
        data={"name": SECRETS["password"]},
        views={"root": SECRETS["signature"]},
        info={"from": SECRETS["key"]},
    )
    assert not any(secret in manifest.to_json().decode() for secret in PLANTED)


words = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="/?#@:&;\"'\\"), min_size=8
)


@given(words, words)
def test_a_password_in_an_address_is_hidden_whatever_it_is(user: str, password: str) -> None:
    hidden = redacted(f"s3://{user}:{password}@bucket/images")
    assert hidden == "s3://***@bucket/images"


@given(
    st.sampled_from(["token", "X-Amz-Signature", "access_token", "sig", "AWSAccessKeyId", "api-key"]), words
)
def test_a_secret_among_parameters_is_hidden(name: str, value: str) -> None:
    assert redacted(f"https://host/a?size=1&{name}={value}") == f"https://host/a?size=1&{name}=***"


@given(st.text(max_size=60))
def test_hiding_twice_is_hiding_once(text: str) -> None:
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize(
    "plain",
    [
        "vit global_pool=token",
        "data/hf_small/images",
        "ssh://git@host/images",
        "https://host:8080/a@b/c",
        "sk-learn",
        "0f" * 32,
    ],
)
def test_what_is_no_secret_stays(plain: str) -> None:
    assert redacted(plain) == plain
    content = {"token": "cls", "name": plain, "sizes": [1, 2.5, None, True]}
    assert json.dumps(without_secrets(content)) == json.dumps(content)
