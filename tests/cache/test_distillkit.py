"""Rows that DistillKit has captured become caches; what cannot be theirs is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from decant.cache import CacheWarning, FormatError, LogitCache, Store, import_rows, read_distillkit
from decant.cache.exchange.distillkit_compression import Compression
from tests.cache.test_compact import softmax
from tests.helpers.commands import decant, refused, succeed
from tests.helpers.extras import needs

OUTPUTS, KEPT = 3000, 24
BASE = {"d": OUTPUTS, "k": KEPT, "exact_k": 4, "delta_encoding": False, "error_diffusion": False}
BINS = [
    {"scale_dtype": "float16", "element_bits": 5, "num_elements": 7},
    {"scale_dtype": "float32", "element_bits": 1, "num_elements": 3},
]
FORMS: dict[str, dict[str, Any]] = {
    "exact": {**BASE, "exact_k": KEPT, "residual_bins": []},
    "recommended": {
        **BASE,
        "exact_dtype": "bfloat16",
        "polynomial_terms": [0, 1, 2, "sqrt"],
        "residual_bins": [],
    },
    "bins": {**BASE, "polynomial_terms": [0, 1], "term_dtype": "float64", "residual_bins": BINS},
    "unit": {**BASE, "polynomial_terms": [0, 1, 2, "exp"], "normalize_t": True, "residual_bins": []},
    "deltas": {**BASE, "delta_encoding": True, "polynomial_terms": [0, 1, 2], "residual_bins": []},
}


def pack_bits(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """(Q, n) integers of so many bits, the highest first."""
    places = (
        values[..., None].astype(np.uint64) >> np.arange(bits - 1, -1, -1, dtype=np.uint64)
    ) & np.uint64(1)
    return np.packbits(places.reshape(len(values), -1).astype("u1"), axis=1)


def floats(values: NDArray[np.float64], dtype: str) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Bytes of (Q, n) floats, and what they hold."""
    if dtype == "bfloat16":
        whole = (values.astype("<f4").view("<u4") >> 16).astype("<u2")
        held = (whole.astype("<u4") << 16).view("<f4")
    else:
        whole = held = values.astype(f"<f{int(dtype[5:]) // 8}")
    return np.ascontiguousarray(whole).view("u1").reshape(len(values), -1), held.astype("f8")


def pack(
    log_probs: NDArray[np.float64], form: dict[str, Any]
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """What DistillKit's description makes of falling log-probabilities (Q, k), and what these bytes hold."""
    given = np.diff(log_probs, axis=1, prepend=0) if form["delta_encoding"] else log_probs
    first = form["exact_k"]
    some, exact = floats(given[:, :first], form.get("exact_dtype", "float32"))
    parts, rest = [some], given[:, first:]
    held = np.zeros_like(rest)
    terms = form.get("polynomial_terms")
    if terms:
        count = rest.shape[1]
        at = np.linspace(0, 1, count) if form.get("normalize_t") else np.arange(float(count))
        of = {"sqrt": np.sqrt, "exp": np.exp}
        design = np.stack([of[term](at) if term in of else at**term for term in terms], axis=1)
        factors = np.linalg.lstsq(design, rest.T, rcond=None)[0].T
        some, factors = floats(factors, form.get("term_dtype", "float32"))
        parts.append(some)
        held = factors @ design.T
    begin = 0
    for each in form["residual_bins"]:
        bits, at_ = each["element_bits"], slice(begin, begin + each["num_elements"])
        values = (rest - held)[:, at_]
        most = 1 if bits == 1 else 2 ** (bits - 1)
        some, scale = floats(np.abs(values).max(axis=1, keepdims=True) / most, each["scale_dtype"])
        least = 0 if bits == 1 else -most
        steps = np.clip(np.round(values / scale), least, 1 if bits == 1 else most - 1) - least
        parts += [some, pack_bits(steps, bits)]
        held[:, at_] += (2 * steps - 1 if bits == 1 else steps + least) * scale
        begin += each["num_elements"]
    found = np.concatenate([exact, held], axis=1)
    return np.concatenate(parts, axis=1), np.cumsum(found, axis=1) if form["delta_encoding"] else found


def teacher(rows: int, seed: int = 0) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The likeliest outputs (Q, k) of a teacher, and their log-probabilities."""
    rng = np.random.default_rng(seed)
    falling = -1.3 * np.log(np.arange(1, OUTPUTS + 1)) * 1.2
    logits = rng.permuted(np.tile(falling, (rows, 1)), axis=1) + rng.normal(size=(rows, OUTPUTS)) * 0.1
    ids = np.argsort(-logits, axis=1)[:, :KEPT]
    return ids, np.take_along_axis(np.log(softmax(logits, 1.0)), ids, 1)


@pytest.mark.parametrize("name", FORMS)
def test_what_is_packed_by_the_description_is_read(name: str) -> None:
    ids, log_probs = teacher(50)
    packed, held = pack(log_probs, FORMS[name])
    of = Compression.of(FORMS[name])
    assert packed.shape[1] == of.row_bytes
    np.testing.assert_allclose(of.log_probs(packed), held, rtol=2e-6, atol=2e-6)
    assert np.abs(held - log_probs).max() < 0.6, "the test packs what the teacher said"
    assert (of.ids(pack_bits(ids, 12)) == ids).all()
    assert of.id_bytes == KEPT * 12 // 8


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"k": 0}, "k: expected an integer of 1 to"),
        ({"k": True}, "k: expected an integer"),
        ({"d": 2**40}, "d: expected an integer of 2 to 262,144"),
        ({"exact_k": 25}, "exact_k: expected an integer of 0 to 24, found 25"),
        ({"exact_dtype": "int8"}, "exact_dtype: expected one of float16"),
        ({"polynomial_terms": ["log"]}, "polynomial_terms: expected powers"),
        ({"polynomial_terms": [-1]}, "polynomial_terms: expected powers"),
        ({"polynomial_terms": [[1]]}, "polynomial_terms: expected powers"),
        ({"polynomial_terms": None}, "polynomial_terms and residual_bins: one of both"),
        ({"residual_bins": [3]}, "residual_bins: expected a list of tables"),
        (
            {"residual_bins": [{**BINS[0], "element_bits": 65}]},
            "element_bits: expected an integer of 1 to 64",
        ),
        ({"residual_bins": [BINS[0]] * 3}, "residual_bins: of more than the 20 values"),
        ({"delta_encoding": 1}, "delta_encoding: expected true or false"),
        ({"polynomial_degree": 8}, "polynomial_degree: no field of it"),
    ],
    ids=str,
)
def test_configurations_that_cannot_be_are_refused(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(FormatError, match=says):
        Compression.of({**FORMS["recommended"], **changes})


class TestFiles:
    pytestmark = needs("pyarrow", "yaml")
    LENGTHS = (9, 0, 30, 1)  # rows of samples

    def tokens(self, ids: NDArray[np.int64]) -> list[list[int]]:
        """Of each sample one more than rows: what follows is the likeliest of its row but every fifth time."""
        follows, found, first = np.where(np.arange(len(ids)) % 5, ids[:, 0], 1), list[list[int]](), 0
        for length in self.LENGTHS:
            found.append([7, *follows[first : first + length].tolist()])
            first += length
        return found

    def columns(self, form: str | None = None) -> dict[str, Any]:
        ids, log_probs = teacher(sum(self.LENGTHS))
        at = np.cumsum(self.LENGTHS)[:-1]
        if form is None:
            names, tables = ("token_ids", "top_values"), (ids, log_probs)
        else:
            names = ("bytepacked_indices", "compressed_logprobs")
            tables = (pack_bits(ids, 12), pack(log_probs, FORMS[form])[0])
        split = {
            name: [part.tolist() for part in np.split(table, at)]
            for name, table in zip(names, tables, strict=True)
        }
        return {"input_ids": self.tokens(ids), **split}

    def write(self, path: Path, columns: dict[str, Any], form: str | None = None) -> Path:
        import pyarrow
        from pyarrow import parquet

        kinds = {
            "input_ids": pyarrow.list_(pyarrow.uint64()),
            "bytepacked_indices": pyarrow.list_(pyarrow.list_(pyarrow.uint8())),
            "compressed_logprobs": pyarrow.list_(pyarrow.list_(pyarrow.uint8())),
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {
            name: values if isinstance(values, pyarrow.Array) else pyarrow.array(values, kinds.get(name))
            for name, values in columns.items()
        }
        parquet.write_table(pyarrow.table(arrays), path)
        if form is not None:
            (path.parent / "compression_config.yaml").write_text(json.dumps(FORMS[form]))
        return path

    @pytest.mark.parametrize("form", [None, *FORMS])
    def test_captured_rows_become_a_cache(self, tmp_path: Path, form: str | None) -> None:
        path = self.write(tmp_path / "captured" / "data_0.parquet", self.columns(form), form)
        arrays = read_distillkit(path)
        made = import_rows(
            Store(tmp_path / "caches"), arrays, num_outputs=OUTPUTS, teacher={}, data={"name": "x"}
        )
        cache = LogitCache.open(made, verify="open")
        assert cache.verify() == []
        assert cache.lengths.tolist() == list(self.LENGTHS)
        ids, log_probs = teacher(sum(self.LENGTHS))
        held = log_probs if form is None else pack(log_probs, FORMS[form])[1]
        rows = cache.rows(slice(None))
        if form in (None, "exact"):
            assert (rows.ids == ids).all()
        np.testing.assert_allclose(rows.log_probs, -np.sort(-held, axis=1), rtol=1e-3, atol=1e-3)
        np.testing.assert_allclose(np.exp(rows.log_tail[:, 0]), 1 - np.exp(held).sum(1), atol=2e-3)
        tokens = self.tokens(ids)
        assert [cache.tokens([sample])[0].tolist() for sample in range(4)] == tokens
        np.testing.assert_allclose(cache.next_log_prob([0])[1], held[1, 0], atol=1e-3)
        assert np.isnan(cache.next_log_prob([0])[0]), "a token of which nothing is known"

    def test_files_of_a_folder_come_by_number_and_the_likeliest_are_kept(self, tmp_path: Path) -> None:
        columns = self.columns("exact")
        for number in (10, 9):
            one = {name: values[::-1] if number == 10 else values for name, values in columns.items()}
            self.write(tmp_path / "all" / f"data_{number}.parquet", one, "exact")
        arrays = read_distillkit(tmp_path / "all", kept=5)
        assert arrays["lengths"].tolist() == [*self.LENGTHS, *self.LENGTHS[::-1]]
        assert (arrays["ids"][:40] == teacher(40)[0][:, :5]).all()

    def test_packed_texts_end_where_their_numbers_change(self, tmp_path: Path) -> None:
        columns = self.columns()
        columns["input_ids"] = [
            ids[: len(rows)] for ids, rows in zip(*map(columns.get, ("input_ids", "token_ids")), strict=True)
        ]
        columns["attention_mask"] = [
            [1 + (place > 2) for place in range(len(ids))] for ids in columns["input_ids"]
        ]
        arrays = read_distillkit(self.write(tmp_path / "packed.parquet", columns))
        known = np.isfinite(arrays["next_log_prob"][:9])
        assert known.tolist() == [False, True, False, True, True, False, True, True, False]

    def test_what_cannot_be_is_refused_by_name(self, tmp_path: Path) -> None:
        def says(form: str | None = None, kept: int | None = None, **changes: Any) -> str:
            columns = {**self.columns(form), **changes}
            columns = {name: values for name, values in columns.items() if values is not None}
            path = self.write(tmp_path / "rows.parquet", columns, form)
            with pytest.raises(FormatError) as caught:
                read_distillkit(path, kept)
            return str(caught.value)

        import pyarrow

        good = self.columns()
        assert "expected columns input_ids, and token_ids" in says(top_values=None)
        assert "an older form of DistillKit" in says(
            token_ids=None, packed_indices=[[]] * 4, exact_values=[[]] * 4, coeffs=[[]] * 4
        )
        assert "how is in compression_config.yaml" in says(
            **self.columns("exact"), token_ids=None, top_values=None
        )
        short = [good["input_ids"][0][:-2], *good["input_ids"][1:]]
        assert "sample 0: 9 rows of 8 tokens" in says(input_ids=short)
        fewer = [good["token_ids"][0][:-1], *good["token_ids"][1:]]
        assert "sample 0: top_values: 9, and elsewhere 8" in says(token_ids=fewer)
        ragged = [[*good["token_ids"][0][:3], [1], *good["token_ids"][0][4:]], *good["token_ids"][1:]]
        assert "sample 0, position 3: token_ids: 1 in a row where others have 24" in says(token_ids=ragged)
        assert "top_values: one of samples 0 to 3 has nothing" in says(
            top_values=[*good["top_values"][:3], None]
        )
        assert "input_ids: expected lists, found int64" in says(input_ids=pyarrow.array([1, 2, 3, 4]))
        assert "24 log-probabilities, and 25 are to be kept" in says(kept=25)
        gone = [*good["top_values"][:3], [[float("-inf")] * 2 + [-9.0] * 22]]
        assert "sample 3, position 0: 22 log-probabilities are numbers, and 24" in says(top_values=gone)
        other = self.columns("bins")
        assert "compressed_logprobs: " in says("exact", **other)
        (tmp_path / "compression_config.yaml").write_text("{d: ")
        with pytest.raises(FormatError, match="not YAML"):
            read_distillkit(tmp_path / "rows.parquet")
        (tmp_path / "rows.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(FormatError, match="cannot be read as Parquet"):
            read_distillkit(tmp_path / "rows.parquet")
        (tmp_path / "empty").mkdir()
        with pytest.raises(FormatError, match="no files of Parquet"):
            read_distillkit(tmp_path / "empty")

    def test_many_samples_without_rows_come_first(self, tmp_path: Path) -> None:
        """More than are read at once."""
        empty = {name: 40 * [values[1]] for name, values in self.columns("exact").items()}
        self.write(tmp_path / "all" / "data_0.parquet", empty, "exact")
        with pytest.raises(FormatError, match="no rows in 40 samples"):
            read_distillkit(tmp_path / "all")
        self.write(tmp_path / "all" / "data_1.parquet", self.columns("exact"), "exact")
        arrays = read_distillkit(tmp_path / "all")
        assert arrays["lengths"].tolist() == [0] * 40 + list(self.LENGTHS)
        assert (arrays["ids"] == teacher(40)[0]).all()
        for kept in (0, -1, 2.0, "2"):
            with pytest.raises(ValueError, match="kept: expected a whole number of 1 or more"):
                read_distillkit(tmp_path / "all", kept)  # type: ignore[arg-type]

    def test_rows_that_fit_other_tokens_better_and_those_scaled_are_said(self, tmp_path: Path) -> None:
        columns = self.columns()
        columns["input_ids"] = [[*ids[1:], 5] for ids in columns["input_ids"]]
        with pytest.warns(CacheWarning, match="next token is among .* and the token itself in 80%"):
            read_distillkit(self.write(tmp_path / "shifted.parquet", columns))
        columns, most = (
            self.columns("exact"),
            pack(np.log(np.full((1, KEPT), 1.02 / KEPT)), FORMS["exact"])[0],
        )
        columns["compressed_logprobs"][3] = most.tolist()
        with pytest.warns(
            CacheWarning, match=r"probabilities of 1 of 40 rows sum to more than 1, at most 1\.02"
        ):
            read_distillkit(self.write(tmp_path / "scaled.parquet", columns, "exact"))
        wrong = pack(np.log(np.full((1, KEPT), 1.2 / KEPT)), FORMS["exact"])[0]
        columns["compressed_logprobs"][3] = wrong.tolist()
        with pytest.raises(FormatError, match=r"sample 3, position 0: probabilities that sum to 1\.2"):
            read_distillkit(self.write(tmp_path / "wrong.parquet", columns, "exact"))

    def test_the_command_takes_them(self, tmp_path: Path) -> None:
        self.write(tmp_path / "captured" / "data_0.parquet", self.columns("bins"), "bins")
        words = (
            "cache",
            "import",
            "captured",
            "--teacher",
            "llm",
            "--data",
            "texts",
            "--outputs",
            str(OUTPUTS),
        )
        made = succeed(decant(*words, cwd=tmp_path)).split()[1]
        assert LogitCache.open(tmp_path / made).rows([2]).ids.shape == (30, KEPT)
        config = tmp_path / "captured" / "compression_config.yaml"
        config.rename(tmp_path / "how.yaml")
        assert "name it with --compression" in refused(decant(*words, cwd=tmp_path))
        said = succeed(decant(*words, "--compression", "how.yaml", "--head", "8", cwd=tmp_path))
        assert LogitCache.open(tmp_path / said.split()[1]).rows([2]).ids.shape == (30, 8)


def test_the_options_of_rows_need_rows(tmp_path: Path) -> None:
    words = ("cache", "import", "rows.npz", "--teacher", "llm", "--data", "texts")
    assert "--head and --compression belong to rows of ids" in refused(
        decant(*words, "--head", "3", cwd=tmp_path), code=2
    )
    said = refused(decant(*words, "--outputs", "9", "--compression", "how.yaml", cwd=tmp_path), code=2)
    assert "--compression: belongs to rows of DistillKit" in said
    said = refused(decant(*words, "--outputs", "9", "--head", "3", cwd=tmp_path), code=2)
    assert "--head: a .npz file has the outputs that are kept" in said
