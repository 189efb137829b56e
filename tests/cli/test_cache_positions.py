"""What people see of a cache whose samples have several rows each: facts as SciPy counts them, samples, the page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats
from click.testing import CliRunner, Result

from decant.cache import (
    Dense,
    Encoding,
    LogitCache,
    Quantised,
    Sparse,
    profile_positions,
    sample_rows,
    summarize,
)
from decant.pipeline.cli.main import decant
from decant.pipeline.report.sections.positions import positions
from tests.helpers.positions import LENGTHS, V, build, logits_of, positions_of, sample_logits

EVERY = np.arange(len(LENGTHS))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("shown")
    build(made / "sparse.h5")
    build(made / "here.h5", positions_of(predicts="here"), Quantised())
    return made


def shown(*words: str | Path) -> Result:
    return CliRunner().invoke(decant, ["cache", *map(str, words)])


@pytest.mark.parametrize("encoding", [Sparse(1, (1.0, 2.0)), Dense(), Sparse(10, draws=90)])
def test_facts_are_those_of_the_softmaxes(encoding: Encoding, tmp_path: Path) -> None:
    cache = LogitCache.open(build(tmp_path / "a.h5", None, encoding))
    found, of = profile_positions(cache, limit=None), positions_of()
    p = np.concatenate([scipy.special.softmax(sample_logits(of, EVERY, v).astype("f8"), 1) for v in range(V)])
    assert found.places.tolist() == [place for _ in range(V) for count in LENGTHS for place in range(count)]
    np.testing.assert_allclose(found.facts.confidence, p.max(1), rtol=2e-2)
    whole = scipy.stats.entropy(p, axis=1)
    if isinstance(encoding, Dense):
        np.testing.assert_allclose(found.facts.entropy, whole, rtol=2e-2, atol=2e-2)
        assert not found.facts.tail.any()
    elif encoding.draws:
        assert (
            abs(found.facts.entropy.mean() - whole.mean())
            < 4 * (found.facts.entropy - whole).std() / len(p) ** 0.5
        )
        assert found.facts.certain is not None
        assert 10 <= found.facts.certain.min() <= found.facts.certain.max() <= 100
    else:
        largest = -np.sort(-p, axis=1)[:, : encoding.head]
        as_one = np.concatenate([largest, (1 - largest.sum(1, keepdims=True)).clip(0)], axis=1)
        np.testing.assert_allclose(
            found.facts.entropy, scipy.stats.entropy(as_one, axis=1), rtol=1e-2, atol=1e-4
        )
        np.testing.assert_allclose(found.facts.tail, as_one[:, -1], rtol=1e-3, atol=1e-7)
    by_place = found.by_place()
    assert [group[:2] for group in by_place[:4]] == [(0, 0), (1, 1), (2, 3), (4, 7)]
    assert by_place[-1][1] == max(LENGTHS) - 1
    assert (np.sum([group[2] for group in by_place], axis=0) == 1).all()
    summary = summarize(cache)
    assert np.isclose(summary.entropy, found.facts.entropy.mean())  # type: ignore[union-attr]


def test_rows_of_a_sample_are_those_of_the_file(folder: Path) -> None:
    cache, of = LogitCache.open(folder / "sparse.h5"), positions_of()
    rows, logits = sample_rows(cache, 3, view=1, likeliest=2), sample_logits(of, [3], 1)
    tokens, following = cache.tokens([3])[0], of.next_tokens(np.array([3]))
    assert [row.place for row in rows] == list(range(40))
    assert [row.token for row in rows] == tokens.tolist()
    assert [row.next_token for row in rows] == [None if token < 0 else token for token in following.tolist()]
    assert rows[-1].next_log_prob is None
    for row, one in zip(rows, logits, strict=True):
        assert [output for output, _ in row.likeliest] == np.argsort(-one)[:2].tolist()
        assert row.next_token in (None, row.likeliest[0][0])
    assert len(sample_rows(cache, 3, limit=7)) == 7
    assert sample_rows(cache, 1) == []
    dense = LogitCache.open(folder / "here.h5")
    (first, *_), values = sample_rows(dense, 2, likeliest=1), logits_of(sum(LENGTHS), 0)[3]
    assert (first.next_token, first.next_log_prob, first.likeliest[0][0]) == (
        None,
        None,
        int(values.argmax()),
    )
    with pytest.raises(IndexError):
        sample_rows(cache, len(LENGTHS))


def test_info_shows_lengths_places_and_a_sample(folder: Path) -> None:
    done = shown("info", folder / "sparse.h5", "--sample", "3")
    assert done.exit_code == 0, done.output
    for said in (
        "0 to 300 a sample, 31.2 on average; 499 of 16 samples",
        "certain rows",
        "mean entropy",
        "128–255",
    ):
        assert said in done.output
    best = sample_rows(LogitCache.open(folder / "sparse.h5"), 3)[0].likeliest[0]
    assert f"{best[0]} ({best[1]:.3f})" in done.output
    document = json.loads(shown("info", folder / "sparse.h5", "--sample", "3", "--json").stdout)
    assert [row["place"] for row in document["sample"]] == list(range(40))
    for wrong, says in (("16", "expected 0 to 15, found 16"), ("-1", "-1")):
        refused = shown("info", folder / "sparse.h5", "--sample", wrong)
        assert (refused.exit_code, says in refused.output) == (2, True)


def test_the_page_of_a_cache(folder: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = shown("info", folder / "sparse.h5", "--page", page)
    assert done.exit_code == 0, done.output
    text = page.read_text()
    for said in (
        "What the rows say",
        "sample 3, 40 rows",
        "sample 10, the first 60 of 64 rows",
        "499 of 16 samples",
        "positions-entropy",
        "positions-tail",
    ):
        assert said in text


def test_texts_of_tokens_are_shown_where_they_are_known_and_run_nothing(folder: Path) -> None:
    from decant.pipeline.report.page import render

    cache = LogitCache.open(folder / "sparse.h5")
    section = positions(cache, lambda ids: f"<script>{ids[0]}\x1b")
    token = cache.tokens([3])[0][0]
    page = render("a", [section], []).decode()
    assert f"<script>{token}" not in page
    assert f"&lt;script&gt;{token}" in page
    assert "\x1b" not in page
