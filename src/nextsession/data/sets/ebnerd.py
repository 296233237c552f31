"""EB-NeRD: what readers of Ekstra Bladet were shown, and what of it they clicked.

One row of `behaviors.parquet` is an impression: the articles in view and those clicked.  It becomes
one event for each article in view, in the order of the view, wanted if it was clicked.  A click
that is not in view, and a second click on the same article, is an event of its own.  Sessions are
the paper's own; the impression is kept beside each event as the feature `impression_id`.
The clicks of the weeks before (`history.parquet`) have no sessions and are not read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow.parquet as pq

from nextsession.data.cleaning import ROW
from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, EventBatch, Labels, LogFormat, SessionRule
from nextsession.progress import Progress

_LISTS: Final = ("article_ids_inview", "article_ids_clicked")
_ROWS: Final = 50_000
"""Impressions read at a time; each becomes about a dozen events."""


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    columns = ["impression_id", "impression_time", "user_id", "session_id", *_LISTS]
    for file in files:
        table = pq.ParquetFile(file)
        row = 1
        for batch in table.iter_batches(_ROWS, columns=columns):
            yield EventBatch(_events(pl.DataFrame(pl.from_arrow(batch)).with_row_index(ROW, row)), str(file), row)
            row += len(batch)
            progress(f"reading {file.name}", row - 1, table.metadata.num_rows)


def _events(impressions: pl.DataFrame) -> pl.DataFrame:
    """Turn impressions into events: those in view in their order, then further clicks."""
    view = (
        impressions.with_columns(position=pl.int_ranges(0, pl.col("article_ids_inview").list.len()))
        .explode("article_ids_inview", "position")
        .drop_nulls("article_ids_inview")
        .with_columns(
            article_id="article_ids_inview",
            clicked=pl.col("article_ids_inview").is_in(pl.col("article_ids_clicked"), nulls_equal=False).cast(pl.Int8),
        )
    )
    clicks = (
        impressions.select(pl.exclude("article_ids_clicked"), article_id="article_ids_clicked")
        .explode("article_id")
        .drop_nulls("article_id")
        .with_columns(nth=pl.int_range(pl.len()).over("impression_id", "article_id"))
        .filter((pl.col("nth") > 0) | pl.col("article_id").is_in(pl.col("article_ids_inview")).not_())
        .with_columns(
            position=pl.col("article_ids_inview").list.len().cast(pl.Int64) + pl.col("nth"),
            clicked=pl.lit(1, pl.Int8),
        )
    )
    columns = [ROW, "user_id", "session_id", "impression_id", "impression_time", "article_id", "position", "clicked"]
    return pl.concat([view.select(columns), clicks.select(columns)])


def _facts(files: Sequence[Path]) -> dict[str, int]:
    """Count impressions, articles in view, and clicks."""
    lists = pl.concat([pl.read_parquet(file, columns=list(_LISTS)) for file in files])
    shown, clicks = (int(lists[name].list.len().sum()) for name in _LISTS)
    return {"impressions": len(lists), "shown": shown, "clicks": clicks}


_FORM: Final = LogFormat(
    columns=Columns(
        item="article_id",
        time="impression_time",
        session="session_id",
        label="clicked",
        position="position",
        features=("impression_id",),
    ),
    labels=Labels(at_least=1),
)

SET = DataSet(
    name="ebnerd",
    title="EB-NeRD (Ekstra Bladet News Recommendation Dataset)",
    about=(
        "Impressions of a Danish news site in 2023: every article in view is an event, wanted if clicked. "
        "Sessions by the site's own ids. Sizes demo, small and large; the training part is read."
    ),
    homepage="https://recsys.eb.dk/dataset/",
    licence="research and education only; the terms at the homepage must be agreed to (JP/Politikens Media Group)",
    citation=(
        "Johannes Kruse, Kasper Lindskow, Saikishore Kalloori et al. EB-NeRD: A Large-Scale Dataset for News "
        "Recommendation. RecSys Challenge 2024. https://doi.org/10.1145/3687151.3687152"
    ),
    layouts=tuple(
        Layout(
            files=(f"{folder}behaviors.parquet",), form=_FORM, sessions=SessionRule(by="id"), read=_read, facts=_facts
        )
        for folder in ("train/", "")
    ),
    folders=("ebnerd_demo", "ebnerd_small", "ebnerd_large"),
    by_hand="agree to the terms at https://recsys.eb.dk/dataset/ and unpack ebnerd_demo.zip (or small, or large).",
)
