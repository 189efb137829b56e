"""The README of a dataset on the Hub that holds caches: what each is, and how it is used."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from decant.cache.io.redaction import redacted
from decant.cache.manifest import Manifest

MARK = "<!-- caches: decant cache push writes what follows -->"
_TOP = f"""---
tags:
- soft-labels
- knowledge-distillation
- decant
---

# Soft labels

Logits of teachers, cached once, to distil students from. Each file says whose logits of which data and views it has;
a student's run checks that before it uses one.

{MARK}
"""
_MOST_TEXT = 300


def with_cache(card: str | None, store: str, name: str, manifest: Manifest, size: int) -> str | None:
    """The README with a section on a cache: a new one for None; None where it is another's text.

    >>> card = with_cache(None, "hf://datasets/me/labels", "x.h5", Manifest.build(num_samples=2, num_outputs=3), 9000)
    >>> card.splitlines()[-2]
    'decant student --set cache.from=hf://datasets/me/labels/x.h5'
    >>> with_cache(card, "hf://datasets/me/labels", "x.h5", Manifest.build(num_samples=2, num_outputs=3), 9000) == card
    True
    >>> with_cache("# My data", "hf://datasets/me/labels", "x.h5", Manifest.build(num_samples=2, num_outputs=3), 9000)
    """
    if card is not None and MARK not in card:
        return None
    top, _, rest = (card or _TOP).partition(MARK)
    before = re.split(r"(?m)^(?=## )", rest.strip())
    sections = [text.strip() for text in before if text.strip() and not text.startswith(f"## {name}\n")]
    sections.append(_section(store, name, manifest, size))
    return "\n\n".join([f"{top}{MARK}", *sorted(sections)]) + "\n"


def _section(store: str, name: str, manifest: Manifest, size: int) -> str:
    views = manifest.num_views
    rows = [
        ("key", f"`{manifest.key}`"),
        ("teacher", _words(manifest.identity["teacher"])),
        ("data", _words(manifest.identity["data"])),
        ("views", _words(manifest.identity["views"])),
        (
            "stored as",
            f"{manifest.encoding.name}, {manifest.num_samples:,} × {views:,} × {manifest.num_outputs:,}",
        ),
        ("bytes", f"{size:,}"),
    ]
    rows += [
        (field, _words(value)) for field, value in manifest.info.items() if field in ("metrics", "made_by")
    ]
    table = "\n".join(f"| {_plain(field)} | {text} |" for field, text in rows)
    return (
        f"## {name}\n\n| | |\n| --- | --- |\n{table}\n\n```bash\npip install 'decant-kd[hub]'\n"
        f"decant cache pull {store}/{name}\ndecant student --set cache.from={store}/{name}\n```"
    )


def _words(value: Any) -> str:
    """A part of a manifest on one line of a table, without secrets and without markup."""
    if isinstance(value, Mapping):
        pairs = (f"{field} {_words(inner)}" for field, inner in value.items() if inner is not None)
        text = ", ".join(pairs)
    else:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    text = _plain(redacted(text))
    return text if len(text) <= _MOST_TEXT else f"{text[: _MOST_TEXT - 1]}…"


def _plain(text: str) -> str:
    text = "".join(character if character.isprintable() else " " for character in text)
    return re.sub(r"([\\`*\[\]<>|#_])", r"\\\1", re.sub(r"\\(?=[\\`*\[\]<>|#_])", "", text))
