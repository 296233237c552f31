"""Diginetica (CIKM Cup 2016) from `train-item-views.csv`: sessions given, users mostly not.

Columns `sessionId;userId;itemId;timeframe;eventdate`.  The time of a view is the first date of its
session plus `timeframe` milliseconds; the date alone is not enough, and of a session that
runs past midnight the later dates would be added twice.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from nextsession.data.dataset import DataSet, Layout, item_feature
from nextsession.data.format import Columns, EventBatch, LogFormat, SessionRule
from nextsession.data.items import ItemTable
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError
from nextsession.progress import Progress


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    """Read the whole file at once (1.2 million rows): the first date of a session needs all its rows."""
    for file in files:
        progress(f"reading {file.name}", 0, 1)
        try:
            rows = pl.read_csv(file, separator=";", infer_schema=False)
            first = pl.col("eventdate").str.to_date("%Y-%m-%d", strict=False).min().over("sessionId")
            frame = rows.select(
                "sessionId",
                "itemId",
                time=first.cast(pl.Datetime("ms")).to_physical() + pl.col("timeframe").cast(pl.Int64, strict=False),
            )
        except pl.exceptions.PolarsError as error:
            raise DataError(
                f"{file} must have the columns sessionId;userId;itemId;timeframe;eventdate: {error}."
            ) from None
        yield EventBatch(frame, str(file), 2)
        progress(f"reading {file.name}", 1, 1)


def _categories(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read `product-categories.csv`: `itemId;categoryId`."""
    table = pl.read_csv(folder / "product-categories.csv", separator=";", infer_schema=False)
    return ItemTable({"category": item_feature(vocabulary, table["itemId"], table["categoryId"])})


SET = DataSet(
    name="diginetica",
    title="Diginetica (CIKM Cup 2016, track 2)",
    about=(
        "1,235,380 views in 310,324 sessions of an online shop, January to June 2016. Visitors are mostly not "
        "known: each session stands alone. Every view is wanted."
    ),
    homepage="https://competitions.codalab.org/competitions/11161",
    licence="for research; the terms of the CIKM Cup 2016 apply",
    citation="CIKM Cup 2016 Track 2: Personalized E-Commerce Search Challenge. https://competitions.codalab.org/competitions/11161",
    layouts=(
        Layout(
            files=("train-item-views.csv",),
            form=LogFormat(columns=Columns(user=None, item="itemId", time="time", session="sessionId"), time_unit="ms"),
            sessions=SessionRule(by="id"),
            read=_read,
            items=_categories,
            item_files=("product-categories.csv",),
        ),
    ),
    folders=("dataset-train-diginetica",),
    by_hand="register at https://competitions.codalab.org/competitions/11161 and unpack dataset-train-diginetica.zip.",
)
