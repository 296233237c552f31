"""Side features and titles of items, against lists of labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession.data.items import ItemFeature, ItemTable
from nextsession.errors import DataError

values = st.lists(st.lists(st.sampled_from(["red", "blue", "é", ""]), max_size=3), max_size=5)


@given(values)
def test_of_and_rows_are_inverse(rows):
    feature = ItemFeature.of(rows)
    assert feature.rows() == rows
    assert len(feature) == len(rows)


@given(values, st.lists(st.integers(-1, 4), max_size=6))
def test_take_against_a_loop(rows, chosen):
    chosen = [c for c in chosen if c < len(rows)]
    taken = ItemFeature.of(rows).take(np.array(chosen, np.int32))
    assert taken.rows() == [rows[c] if c >= 0 else [] for c in chosen]


@given(values, st.lists(st.integers(-1, 4), max_size=6))
def test_take_of_a_table(rows, chosen):
    chosen = np.array([c for c in chosen if c < len(rows)], np.int32)
    titles = np.array([f"title {i}" for i in range(len(rows))], dtype=object)
    table = ItemTable({"colour": ItemFeature.of(rows)}, titles).take(chosen)
    assert table.features["colour"].rows() == ItemFeature.of(rows).take(chosen).rows()
    assert table.titles is not None
    assert table.titles.tolist() == [f"title {c}" if c >= 0 else "" for c in chosen]
    table.check(len(chosen))


def test_a_table_without_titles_has_none_afterwards():
    assert ItemTable().take(np.array([-1, -1])).titles is None


def test_a_table_of_the_wrong_size_is_refused():
    with pytest.raises(DataError, match=r"Item feature 'colour' must have 2 rows, one an item; it has 1\."):
        ItemTable({"colour": ItemFeature.of([["red"]])}).check(2)
    with pytest.raises(DataError, match=r"There must be 2 titles, one an item; there are 0\."):
        ItemTable(titles=np.array([], object)).check(2)
