"""Titles and side features from a file of the reader's own."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession.data.format import ItemFile
from nextsession.data.item_file import read_items
from nextsession.data.items import ItemFeature
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError

GOODS = "sku,name,kind,price\n7,Kettle,kitchen|steel,30\n8,Pan,kitchen,20.5\n3,,,\n9,Lamp,light,99\n"
SPEC = {"id": "sku", "title": "name", "categories": ("kind",), "numbers": ("price",), "bins": 2}


def written(tmp_path, text, name="goods.csv"):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_items_come_in_the_order_of_the_vocabulary(tmp_path):
    table = read_items(ItemFile(path=written(tmp_path, GOODS), **SPEC), Vocabulary([3, 5, 7, 8]))
    assert table.titles.tolist() == ["", "", "Kettle", "Pan"]
    assert table.features["kind"].rows() == [[], [], ["kitchen", "steel"], ["kitchen"]]
    assert table.features["price"].rows() == [[], [], ["30"], ["20.5"]]
    table.check(4)


def test_ids_are_compared_as_the_log_has_them(tmp_path):
    path = written(tmp_path, "item_id,name\n07,padded\n7,plain\n")
    assert read_items(ItemFile(path=path, title="name"), Vocabulary([7])).titles.tolist() == ["plain"]
    assert read_items(ItemFile(path=path, title="name"), Vocabulary(["07", "7"])).titles.tolist() == ["padded", "plain"]


def test_parquet_with_typed_columns(tmp_path):
    path = tmp_path / "goods.parquet"
    pl.DataFrame({"item_id": [2, 1], "kind": ["a", None], "price": [1.5, None]}).write_parquet(path)
    table = read_items(ItemFile(path=str(path), categories=("kind",), numbers=("price",)), Vocabulary([1, 2]))
    assert table.features["kind"].rows() == [[], ["a"]]
    assert table.features["price"].rows() == [[], ["1.5"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sku,name,kind,price\n7,a,b,1\n7,a,b,2\n", r"row 3, column 'sku': the item '7' stands in row 2 already"),
        ("sku,name,kind,price\n,a,b,1\n", r"row 2, column 'sku': every item must have an id"),
        ("sku,name,kind,price\n7,a,b,cheap\n", r"row 2, column 'price': must be a number or nothing \(got 'cheap'\)"),
        ("sku,name,kind,price\n7,a,b,inf\n", r"row 2, column 'price': must be a number"),
        ("sku,name,kind,price\n7,a\n", r"Every row of a file of items must be readable"),
        ("sku,title,kind,price\n7,a,b,1\n", r"'name'"),
        ("sku,name,kind,price\n", r"no row"),
    ],
)
def test_a_bad_file_is_refused_with_row_and_column(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_items(ItemFile(path=written(tmp_path, text), **SPEC), Vocabulary([7]))


@given(st.lists(st.one_of(st.just(float("nan")), st.integers(-5, 5).map(float)), max_size=40), st.integers(2, 6))
def test_bins_keep_the_order_and_never_part_equal_values(values, bins):
    feature = ItemFeature.binned(np.array(values, dtype=np.float64), bins)
    assert len(feature.labels) <= bins
    bin_of = {}
    for value, codes in zip(values, np.split(feature.codes, feature.offsets[1:-1]), strict=True) if values else ():
        assert len(codes) == (value == value)
        if value == value:
            assert bin_of.setdefault(value, codes[0]) == codes[0]
    ordered = [bin_of[value] for value in sorted(bin_of)]
    assert ordered == sorted(ordered)


def test_bins_hold_about_as_many_items_each():
    feature = ItemFeature.binned(np.random.default_rng(0).normal(size=10_000), bins=10)
    assert np.all(np.abs(np.bincount(feature.codes) - 1000) <= 1)
