"""Which names are of a folder here, and which may be of a model on the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from decant.pipeline.support import hub
from tests.helpers.extras import needs

pytestmark = needs("huggingface_hub")


def test_a_folder_of_the_name_of_an_owner_hides_no_model_of_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "owner/model-small").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hub, "unreachable", lambda: None)
    assert hub.find_model("owner/model-large", OSError) == "owner/model-large"
    monkeypatch.setattr(hub, "unreachable", lambda: "no route")
    monkeypatch.setattr(hub, "_fetched", lambda name: None)
    with pytest.raises(OSError, match=r"no such folder here \(did you mean owner/model-small\?\), and if"):
        hub.find_model("owner/model-large", OSError)
    with pytest.raises(OSError, match="no such file or folder"):
        hub.find_model("./owner/model-large", OSError)
