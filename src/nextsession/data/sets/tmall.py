"""Tmall (IJCAI-15): clicks, carts, purchases and favourites with the day as only time.

The file gives month and day (`829`); the year is 2014.  The events of a person on one day are one
session, in the order of the file.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import polars as pl

from nextsession.data.dataset import DataSet, Layout, read_tables
from nextsession.data.format import Columns, EventBatch, LogFormat, SessionRule
from nextsession.progress import Progress

_ACTIONS = {"0": "click", "1": "cart", "2": "buy", "3": "favourite"}


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    """Read the table and give days their year and actions their names."""
    for batch in read_tables(files, form, progress):
        day = "2014" + pl.col("time_stamp").cast(pl.String).str.zfill(4)
        frame = batch.frame.with_columns(
            time_stamp=day.str.to_date("%Y%m%d", strict=False),
            action_type=pl.col("action_type").cast(pl.String).replace(_ACTIONS),
        )
        yield replace(batch, frame=frame)


SET = DataSet(
    name="tmall",
    title="Tmall repeat buyers (IJCAI-15)",
    about=(
        "54,925,330 events (click, cart, buy, favourite) of 424,170 people on 1,090,390 items, May to November 2014. "
        "A person's day is a session. Every event is wanted; kinds are actions."
    ),
    homepage="https://tianchi.aliyun.com/dataset/42",
    licence="for research, not commercial; the terms of Tianchi apply",
    citation="IJCAI-15 Repeat Buyers Prediction Competition. Alibaba Group, 2015. https://tianchi.aliyun.com/dataset/42",
    layouts=(
        Layout(
            files=("user_log_format1.csv",),
            form=LogFormat(columns=Columns(time="time_stamp", action="action_type")),
            sessions=SessionRule(by="time"),
            read=_read,
        ),
    ),
    folders=("data_format1",),
    by_hand="download it from Tianchi (an account is needed) and unpack user_log_format1.csv.",
)
