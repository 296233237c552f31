"""OTTO: clicks, carts and orders of an online shop, one JSON session a line."""

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from nextsession.data.cleaning import ROW
from nextsession.data.dataset import DataSet, Layout
from nextsession.data.format import Columns, EventBatch, LogFormat, SessionRule
from nextsession.data.sets._lines import chunks
from nextsession.errors import DataError
from nextsession.progress import Progress

_ROWS: Final = 50_000
"""Sessions read at a time; each holds about 17 events."""
_SCHEMA: Final[Any] = {
    "session": pl.Int64,
    "events": pl.List(pl.Struct({"aid": pl.Int64, "ts": pl.Int64, "type": pl.String})),
}


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    for file in files:
        for row, lines in chunks(file, _ROWS, progress):
            try:
                table = pl.read_ndjson(io.BytesIO(b"".join(lines)), schema=_SCHEMA)
            except pl.exceptions.PolarsError as error:
                raise DataError(
                    f"{file}, rows {row} to {row + len(lines) - 1}: each line must be a JSON session "
                    f'{{"session": 0, "events": [{{"aid": 0, "ts": 0, "type": "clicks"}}]}}: {error}.'
                ) from None
            yield EventBatch(table.with_row_index(ROW, row).explode("events").unnest("events"), str(file), row)


SET = DataSet(
    name="otto",
    title="OTTO recommender systems dataset",
    about=(
        "220 million events (clicks, carts, orders) in 12.9 million sessions on 1.8 million items of an online shop, "
        "August and September 2022. A session is a visitor over weeks. Every event is wanted; kinds are actions."
    ),
    homepage="https://github.com/otto-de/recsys-dataset",
    licence="CC BY 4.0: attribution",
    citation=(
        "Philipp Normann, Sophie Baumeister and Timo Wilm. OTTO Recommender Systems Dataset. 2023. "
        "https://doi.org/10.34740/KAGGLE/DSV/4991874"
    ),
    layouts=tuple(
        Layout(
            files=(name,),
            form=LogFormat(
                columns=Columns(user=None, item="aid", time="ts", session="session", action="type"), time_unit="ms"
            ),
            sessions=SessionRule(by="id"),
            read=_read,
        )
        for name in ("otto-recsys-train.jsonl", "train.jsonl", "train.jsonl.gz")
    ),
    folders=("otto_fixture", "recsys-dataset"),
    by_hand="download it from Kaggle (otto/recsys-dataset, an account is needed).",
)
