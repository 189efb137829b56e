"""Which columns of a table of logits belong to the classes of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from decant.pipeline.config.settings import DataSettings, ViewsSettings
from decant.pipeline.data import load_data
from decant.pipeline.data.imported_columns import choose_columns
from decant.pipeline.data.kept_classes import kept_columns
from decant.pipeline.errors import DataError

NAMES = ("cat", "Dog", "red fox", "crane", "crane")


@pytest.mark.parametrize(
    ("chosen", "columns"), [(["cat"], [0]), (["dog", "red_fox"], [1, 2]), ([4, 0], [4, 0]), (["Dog"], [1])]
)
def test_columns_by_number_and_by_name(chosen: Sequence[int | str], columns: list[int]) -> None:
    assert kept_columns(chosen, 5, NAMES, len(chosen)) == columns


@pytest.mark.parametrize(
    ("chosen", "says"),
    [
        (["crane"], "'crane' is the name of columns 3, 4; give the number of one"),
        (["dgo"], "no output is called 'dgo'"),
        ([5], "5 is no column; there are 5, 0 to 4"),
        ([-1], "-1 is no column"),
        ([1, 1], "1 is there twice"),
        (["dog", "Dog"], "'dog' is there twice"),
        ([0, 1, 2], "keeps 3 of 5 columns, and the data have 2 classes"),
    ],
)
def test_what_is_no_column_is_refused(chosen: Sequence[int | str], says: str) -> None:
    count = 2 if len(chosen) == 3 else len(chosen)
    with pytest.raises(DataError, match=rf"^teacher.classes: .*{says[:20]}") as caught:
        kept_columns(chosen, 5, NAMES, count)
    assert says in str(caught.value)


def test_the_datas_classes_in_another_order_are_refused_and_other_names_are_not() -> None:
    with pytest.raises(DataError, match="in this order, and the data's classes are dog, cat"):
        kept_columns([0, 1], 5, NAMES, 2, ("dog", "cat"))
    assert kept_columns([1, 0], 5, NAMES, 2, ("dog", "cat")) == [1, 0]
    assert kept_columns([0, 1], 5, NAMES, 2, ("felis", "canis")) == [0, 1]


@pytest.mark.parametrize("text", ["2,0", "[2, 0]"])
def test_columns_of_a_table_of_several_views(text: str) -> None:
    table = np.arange(12.0).reshape(2, 2, 3)
    kept, columns = choose_columns(table, text, None, None)
    assert columns == [2, 0]
    assert (kept == table[..., [2, 0]]).all()


@pytest.mark.parametrize("chosen", [None, "2,0"])
def test_a_table_of_other_samples_is_refused_by_its_rows(chosen: str | None) -> None:
    data = load_data(DataSettings(name="digits"), ViewsSettings(), "test")
    with pytest.raises(DataError, match="logits: 359 rows, and the data have 360 samples"):
        choose_columns(np.zeros((359, 10), np.float32), chosen, None, data)


@pytest.mark.parametrize("text", ["", "1,,2", "[1.5]", "[true]", "[", "[]"])
def test_what_is_no_list_of_columns_is_refused(text: str) -> None:
    with pytest.raises(DataError, match=r"^--classes: expected"):
        choose_columns(np.zeros((2, 3)), text, None, None)
