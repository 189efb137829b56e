"""Teachers of a recipe from a .gguf file and from what was fetched from the hub, by the real commands."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import gguf_files, language
from tests.helpers.commands import decant_anew, decant_here, succeed
from tests.helpers.extras import needs
from tests.phases.language.conftest import RECIPE

pytestmark = needs("transformers", "gguf", "accelerate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With one teacher in a folder and as a .gguf file."""
    made = tmp_path_factory.mktemp("gguf")
    network, tokenizer = language.llama(341), language.tokenizer(template=None)
    tokenizer.add_special_tokens(
        {"pad_token": "<|endoftext|>"}
    )  # which the library adds to any vocabulary of this kind
    network.save_pretrained(made / "teacher")
    tokenizer.save_pretrained(made / "teacher")
    gguf_files.write(made / "teacher.gguf", network, tokenizer)
    rows = [json.dumps({"text": text}) for text in language.sentences(60)]
    (made / "texts.jsonl").write_text("\n".join(rows))
    (made / "lm.toml").write_text(RECIPE)
    return made


def test_a_gguf_teacher_says_what_the_same_network_in_a_folder_says_and_is_cut_and_exported(
    folder: Path,
) -> None:
    from decant.cache import LogitCache

    def cache_of(*more: str) -> LogitCache:
        succeed(decant_here("teacher", "--recipe", "lm.toml", *more, cwd=folder))
        made = json.loads(
            succeed(decant_here("cache-logits", "--recipe", "lm.toml", *more, "--json", cwd=folder))
        )
        return LogitCache.open(folder / next(one["path"] for one in made if one["split"] == "train"))

    of_folder = cache_of()
    given = ("--set", "teacher.network=transformers:teacher.gguf")
    of_file = cache_of("--runs", "gguf-runs", *given)
    every = range(of_file.num_samples)
    assert np.array_equal(of_file.tokens(every)[0], of_folder.tokens(every)[0])
    theirs, ours = of_folder.rows(every), of_file.rows(every)
    assert np.array_equal(theirs.ids, ours.ids)
    np.testing.assert_allclose(theirs.log_probs, ours.log_probs, atol=1e-2)
    for command in ("student", "evaluate", "report"):
        succeed(decant_here(command, "--recipe", "lm.toml", "--runs", "gguf-runs", *given, cwd=folder))
    (student,) = folder.glob("gguf-runs/**/student-cut-kd-*/seed-0")
    out = succeed(decant_here("export", student, cwd=folder))
    assert "transformers" in out
    assert (student / "export/transformers/model.safetensors").exists()


def test_a_model_that_was_fetched_from_the_hub_before_is_taken_where_that_cannot_be_reached(
    folder: Path, tmp_path: Path
) -> None:
    """Each load would try for most of a minute."""
    model = tmp_path / "hub/models--some--model"
    shutil.copytree(folder / "teacher", model / "snapshots" / ("a" * 40))
    (model / "refs").mkdir()
    (model / "refs/main").write_text("a" * 40)
    offline = {"HF_HOME": str(tmp_path), "HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "0"}
    began = time.monotonic()
    words = (
        "teacher",
        "--recipe",
        "lm.toml",
        "--runs",
        "hub-runs",
        "--set",
        "teacher.network=transformers:some/model",
    )
    made = decant_anew(*words, cwd=folder, **offline)
    assert "transformers:some/model" in succeed(made)
    assert "Retrying" not in made.stderr
    assert time.monotonic() - began < 120
