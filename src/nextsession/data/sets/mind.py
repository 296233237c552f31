"""MIND: what readers of Microsoft News were shown, and what of it they clicked.

One line of `behaviors.tsv` is an impression: id, user, time, earlier clicks, and `N1-0 N2-1 ...`
for what was shown.  It becomes one session with an event for each piece of news, wanted if clicked
(`-1`), in the order of the file.  The earlier clicks have no times and are not read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import polars as pl

from nextsession.data.cleaning import ROW
from nextsession.data.dataset import DataSet, Layout, item_table
from nextsession.data.format import Columns, EventBatch, Labels, LogFormat, Rejected, SessionRule
from nextsession.data.items import ItemTable
from nextsession.data.sets._lines import chunks
from nextsession.data.vocabulary import Vocabulary
from nextsession.progress import Progress

_ROWS: Final = 20_000
"""Impressions read at a time; each becomes about 37 events."""


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    for part, file in enumerate(files):
        for row, lines in chunks(file, _ROWS, progress):
            split = [line.decode("utf-8", errors="replace").rstrip("\r\n").split("\t") for line in lines]
            rejected = tuple(
                Rejected(str(file), row + i, "impression", "\t".join(x)[:80], "must have five columns")
                for i, x in enumerate(split)
                if len(x) != 5
            )
            good = [(row + i, f"{part}-{x[0]}", x[1], x[2], x[4]) for i, x in enumerate(split) if len(x) == 5]
            yield EventBatch(_events(good), str(file), row, rejected)


def _events(impressions: list[tuple[int, str, str, str, str]]) -> pl.DataFrame:
    return (
        pl.DataFrame(impressions, schema=[ROW, "session", "user", "time", "shown"], orient="row")
        .with_columns(
            # A time that cannot be read stays empty here and is reported with the other bad rows.
            time=pl.col("time").str.to_datetime("%m/%d/%Y %I:%M:%S %p", strict=False),
            shown=pl.col("shown").str.split(" "),
        )
        .with_columns(position=pl.int_ranges(0, pl.col("shown").list.len()))
        .explode("shown", "position")
        .filter(pl.col("shown") != "")
        .with_columns(item=pl.col("shown").str.replace(r"-[01]$", ""), clicked=pl.col("shown").str.ends_with("-1"))
        .select(ROW, "session", "user", "time", "item", "position", pl.col("clicked").cast(pl.Int8))
    )


def _news(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read titles, categories and subcategories from every `news.tsv` that belongs to the events."""
    rows = []
    for file in sorted({*folder.glob("news.tsv*"), *folder.glob("MIND*/news.tsv*")}):
        for _, lines in chunks(file, _ROWS):
            rows += [line.decode("utf-8", errors="replace").split("\t")[:4] for line in lines if line.count(b"\t") > 3]
    titles = {x: title for x, _, _, title in rows}
    return item_table(
        vocabulary,
        titles,
        {"category": {r[0]: [r[1]] for r in rows}, "subcategory": {r[0]: [r[2]] for r in rows}},
    )


_FORM: Final = LogFormat(
    columns=Columns(user="user", item="item", time="time", session="session", label="clicked", position="position"),
    labels=Labels(at_least=1),
)

SET = DataSet(
    name="mind",
    title="MIND (Microsoft News Dataset)",
    about=(
        "Impressions of Microsoft News, October and November 2019: each impression is a session, every piece of "
        "news shown is an event, wanted if clicked. The training and validation parts are read."
    ),
    homepage="https://msnews.github.io/",
    licence="Microsoft Research License Terms: research only, no commercial use, no redistribution",
    citation=(
        "Fangzhao Wu, Ying Qiao, Jiun-Hung Chen et al. MIND: A Large-scale Dataset for News Recommendation. "
        "ACL 2020. https://aclanthology.org/2020.acl-main.331/"
    ),
    layouts=tuple(
        Layout(
            files=tuple(f"{part}behaviors.tsv*" for part in parts),
            form=_FORM,
            sessions=SessionRule(by="id"),
            read=_read,
            items=_news,
            item_files=tuple(f"{part}news.tsv*" for part in parts),
        )
        for parts in (("MIND*_train/", "MIND*_dev/"), ("MIND*_train/",), ("",))
    ),
    folders=("mind_sample", "MINDlarge", "MINDsmall"),
    by_hand="agree to the terms at https://msnews.github.io/ and unpack training and validation parts side by side.",
)
