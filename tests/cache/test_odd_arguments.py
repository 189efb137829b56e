"""What is no encoding, row or temperature is refused by name, and never stored or read as something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from decant.cache import (
    Dense,
    FormatError,
    LogitCache,
    LogitCacheWriter,
    Manifest,
    Quantised,
    Sparse,
    ValueRefusedError,
)

C = 6


def of(encoding: Any) -> Manifest:
    return Manifest.build(num_samples=2, num_outputs=C, encoding=encoding)


@pytest.mark.parametrize("given", [None, 1.0, "1", (), (1,), ("1.0",), (1.0, float("nan")), {1.0}])
def test_what_is_no_list_of_temperatures_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match="temperatures: expected 1 to 16 floats above 0, found"):
        Sparse(2, given)


def test_a_list_of_temperatures_is_as_good_as_a_tuple() -> None:
    assert Sparse(2, [1.0, 2.0]) == Sparse(2, (1.0, 2.0))  # type: ignore[arg-type]
    assert of(Sparse(2, [1.0, 2.0])).encoding == Sparse(2, (1.0, 2.0))  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["sparse", Sparse, 3, [("kind", "sparse")]])
def test_what_is_no_encoding_is_refused(given: Any) -> None:
    with pytest.raises(ValueError, match=r"encoding: expected one of .*, or fields of it, found"):
        of(given)


@pytest.mark.parametrize("name", ["num_samples", "num_outputs", "num_views"])
@pytest.mark.parametrize("given", ["8", 8.0, None])
def test_a_size_that_is_no_whole_number_is_refused(name: str, given: Any) -> None:
    sizes: dict[str, Any] = {"num_samples": 2, "num_outputs": C, "num_views": 1, name: given}
    with pytest.raises(FormatError, match=f"{name}: expected a whole number, found"):
        Manifest.build(**sizes)


@pytest.mark.parametrize("rows", [None, [1], 3, "ids"])
def test_rows_without_names_are_refused(rows: Any, tmp_path: Path) -> None:
    with LogitCacheWriter(tmp_path / "a.h5", of(Sparse(2))) as writer:
        with pytest.raises(
            ValueRefusedError, match="rows: expected arrays by name, ids, log_probs, stats, found"
        ):
            writer.write_encoded([0, 1], rows)
        assert not writer.is_written().any()


def test_a_row_whose_range_overflows_is_refused_and_no_scale_makes_infinite_logits(tmp_path: Path) -> None:
    """Logits that are finite in float32, and whose codes would have been read as ±Inf."""
    wide = np.zeros((2, C), "f4")
    wide[1, :2] = -3e38, 3e38
    with LogitCacheWriter(tmp_path / "a.h5", of(Quantised())) as writer:
        with pytest.raises(ValueRefusedError, match=r"sample 1, view 0: logits from -3e\+38 to 3e\+38"):
            writer.write([0, 1], wide)
        for spoilt in ([0, 2e36], [0, -1], [np.nan, 1], [0, np.nan], [np.inf, -np.inf]):
            rows = {"codes": np.zeros((2, C), "u1"), "scale": np.array([[0, 1], spoilt], "<f4")}
            with pytest.raises(ValueRefusedError, match="sample 1, view 0: scale: expected a finite value"):
                writer.write_encoded([0, 1], rows)
        writer.write([0, 1], wide / 2)
        assert np.isfinite(LogitCache.open(writer.publish()).logits([0, 1])).all()


@pytest.mark.parametrize("encoding", [Dense(), Sparse(2), Quantised()], ids=lambda one: one.name)
@pytest.mark.parametrize("temperature", ["1", None, 0, -1.0, float("nan"), True])
def test_what_is_no_temperature_is_refused_of_every_encoding(
    encoding: Any, temperature: Any, tmp_path: Path
) -> None:
    with LogitCacheWriter(tmp_path / "a.h5", of(encoding)) as writer:
        writer.write([0, 1], np.random.default_rng(0).normal(size=(2, C)))
        cache = LogitCache.open(writer.publish())
    with pytest.raises(ValueError, match="temperature: expected a number above 0, found"):
        cache.at_temperature(temperature)
