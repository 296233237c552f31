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


numbers = st.lists(st.one_of(st.just(float("nan")), st.integers(-5, 5).map(float)), max_size=30)


@given(numbers, st.data(), st.integers(2, 6))
def test_bins_depend_on_the_known_items_alone_and_keep_the_order_of_the_others(values, data, bins):
    array = np.array(values, np.float64)
    known = np.array(data.draw(st.lists(st.booleans(), min_size=len(values), max_size=len(values))), np.bool_)
    feature = ItemFeature.binned(array, bins).binned_by(known)
    alone = ItemFeature.binned(array[known], bins)
    assert feature.labels == alone.labels
    assert feature.take(np.flatnonzero(known)).rows() == alone.rows()
    if not alone.labels:
        assert len(feature.codes) == 0
        return
    bin_of = dict(zip(array[~np.isnan(array)].tolist(), feature.codes.tolist(), strict=True))
    assert [bin_of[value] for value in sorted(bin_of)] == sorted(bin_of.values())
    assert set(bin_of.values()) <= set(range(len(feature.labels)))


def test_a_category_has_no_bins():
    feature = ItemFeature.of([["red"], []])
    assert feature.binned_by(np.array([True, False])) is feature


def test_numbers_are_taken_with_their_items():
    feature = ItemFeature.binned(np.array([1.0, np.nan, 3.0]), bins=2).take(np.array([2, -1, 0]))
    np.testing.assert_array_equal(feature.numbers, [3.0, np.nan, 1.0])
    assert feature.rows() == [["3"], [], ["1"]]
