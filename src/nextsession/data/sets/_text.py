"""Sequences as plain text: `user item item ...` on a line, or `user item` on many lines, in their order."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import polars as pl

from nextsession.data.cleaning import ROW
from nextsession.data.dataset import Layout, item_table
from nextsession.data.format import Columns, EventBatch, LogFormat, Rejected, SessionRule
from nextsession.data.items import ItemTable
from nextsession.data.sets._lines import chunks
from nextsession.data.vocabulary import Vocabulary
from nextsession.progress import Progress

_ROWS: Final = 100_000
_SCHEMA: Final[Any] = {ROW: pl.Int64, "user": pl.String, "item": pl.List(pl.String)}


def _read(files: Sequence[Path], form: LogFormat, progress: Progress) -> Iterator[EventBatch]:
    """Read lines of ids between blanks or tabs: the first is the user, the others are items in their order."""
    for file in files:
        for row, lines in chunks(file, _ROWS, progress):
            split = [line.decode("utf-8", errors="replace").split() for line in lines]
            rejected = tuple(
                Rejected(str(file), row + i, "item", " ".join(ids), "a line must hold a user and at least one item")
                for i, ids in enumerate(split)
                if len(ids) == 1
            )
            full = [(row + i, ids[0], ids[1:]) for i, ids in enumerate(split) if len(ids) > 1]
            frame = pl.DataFrame(full, _SCHEMA, orient="row")
            yield EventBatch(frame.explode("item"), str(file), row, rejected)


def attributes(folder: Path, vocabulary: Vocabulary) -> ItemTable:
    """Read `*item2attributes.json`, item to list of attributes."""
    file = min(folder.glob("*item2attributes.json"))
    found = json.loads(file.read_text(encoding="utf-8"))
    return item_table(vocabulary, {}, {"attribute": {x: [str(a) for a in values] for x, values in found.items()}})


def layout(*files: str) -> Layout:
    """Return the layout of text files of these names: all items of a user are one session, only ordered."""
    return Layout(
        files=files,
        form=LogFormat(columns=Columns(user="user", item="item", time=None)),
        sessions=SessionRule(by="user"),
        read=_read,
        items=attributes,
        item_files=("*item2attributes.json",),
    )
