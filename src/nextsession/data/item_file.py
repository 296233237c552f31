"""Reading what is known of items from a file of the reader: titles, categories, numbers in bins."""

import math
from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextsession.data.events import read_events
from nextsession.data.format import Columns, ItemFile, LogFormat
from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError


def read_items(source: ItemFile, vocabulary: Vocabulary) -> ItemTable:
    """Read titles and side features of the items of a vocabulary, in its order.

    Items that the file does not hold have no title (`""`) and no values.

    Args:
        source: The file, its columns and how they are read.
        vocabulary: The items wanted.

    Raises:
        DataError: The file or a column is missing, an id is missing or stands twice, or a number is none.
    """
    title = () if source.title is None else (source.title,)
    columns = (*title, *source.categories, *source.numbers)
    frame = _frame(source, columns)
    codes = _codes(vocabulary, frame["id"])
    place = np.full(len(vocabulary), -1, np.int64)
    place[codes[codes >= 0]] = np.flatnonzero(codes >= 0)

    def of_items(column: str) -> list[str]:
        values = frame[column].to_list()
        return [values[i] or "" if i >= 0 else "" for i in place.tolist()]

    features = {name: _categories(of_items(name), source.separator) for name in source.categories}
    for name in source.numbers:
        numbers = _numbers(source, name, frame)
        features[name] = ItemFeature.binned(np.where(place >= 0, numbers[place], np.nan), source.bins)
    titles = np.array(of_items(source.title), dtype=object) if source.title is not None else None
    return ItemTable(features, titles)


def _frame(source: ItemFile, columns: Sequence[str]) -> pl.DataFrame:
    """Read the whole file as text: the columns, `id`, and `row`, the number of each row in the file."""
    form = LogFormat(
        delimiter=source.delimiter, columns=Columns(user=None, item=source.id, time=None, features=tuple(columns))
    )
    parts = []
    for batch in read_events(source.path, form):
        for wrong in batch.rejected:
            raise DataError(f"{wrong}. Every row of a file of items must be readable.")
        rows = (
            batch.frame["__row__"]
            if "__row__" in batch.frame.columns
            else pl.Series(range(batch.first_row, batch.first_row + batch.frame.height), dtype=pl.Int64)
        )
        text = batch.frame.select(
            pl.col(source.id).cast(pl.String).alias("id"),
            *(pl.col(c).cast(pl.String) for c in columns if c != source.id),
        )
        parts.append(text.with_columns(rows.cast(pl.Int64).alias("row")))
    frame = pl.concat(parts) if parts else pl.DataFrame()
    if frame.is_empty():
        raise DataError(f"{source.path} holds no row; it must have one row an item.")
    empty = frame.filter(pl.col("id").is_null() | (pl.col("id") == ""))
    if empty.height:
        raise DataError(f"{source.path}, row {empty['row'][0]}, column {source.id!r}: every item must have an id.")
    twice = frame.filter(pl.col("id").is_duplicated())
    if twice.height:
        again = twice.filter(pl.col("id") == twice["id"][0])["row"]
        raise DataError(
            f"{source.path}, row {again[1]}, column {source.id!r}: the item {twice['id'][0]!r} stands in row "
            f"{again[0]} already; give each item one row."
        )
    return frame


def _codes(vocabulary: Vocabulary, ids: pl.Series) -> NDArray[np.int32]:
    if vocabulary.ids.dtype != np.int64:
        return vocabulary.encode(ids.to_list())
    numbers = ids.cast(pl.Int64, strict=False)
    exact = (numbers.cast(pl.String) == ids).fill_null(value=False).to_numpy()
    return np.where(exact, vocabulary.encode(numbers.fill_null(0).to_numpy()), np.int32(-1))


def _categories(texts: list[str], separator: str) -> ItemFeature:
    rows = ([part.strip() for part in text.split(separator)] if separator else [text] for text in texts)
    return ItemFeature.of([list(dict.fromkeys(part for part in row if part)) for row in rows])


def _numbers(source: ItemFile, column: str, frame: pl.DataFrame) -> NDArray[np.float64]:
    texts, rows = frame[column].to_list(), frame["row"].to_list()
    found = np.full(len(texts), np.nan)
    for i, text in enumerate(texts):
        if text is None or not text.strip():
            continue
        try:
            found[i] = float(text)
        except ValueError:
            found[i] = math.inf
        if math.isinf(found[i]):
            raise DataError(
                f"{source.path}, row {rows[i]}, column {column!r}: must be a number or nothing (got {text!r}); "
                f"name it among the categories if it is none."
            )
    return found
