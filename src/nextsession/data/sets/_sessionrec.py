"""The form of session-rec: tab separated `SessionId ItemId Time`, with a ready split into train and test.

The log holds the training file.  The questions are those of the per-event protocol: each event of a
test session but its first, asked after the events of the session before it.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

from nextsession.data.cases import Cases
from nextsession.data.dataset import Layout
from nextsession.data.format import Columns, LogFormat, SessionRule
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError

_FORM: Final = LogFormat(
    kind="csv",
    delimiter="\t",
    columns=Columns(user=None, item="ItemId", time="Time", session="SessionId"),
    time_unit="s",
)


def layout(train: str, test: str) -> Layout:
    """Return the layout of a training file and a test file of these names."""
    return Layout(files=(train,), form=_FORM, sessions=SessionRule(by="id"), questions=_reader(test), side=(test,))


def _reader(test: str) -> Callable[[Path, Vocabulary], Cases]:
    def read(folder: Path, vocabulary: Vocabulary) -> Cases:
        file = folder / test
        try:
            table = pl.read_csv(
                file,
                separator="\t",
                columns=["SessionId", "ItemId", "Time"],
                schema_overrides={"SessionId": pl.Int64, "ItemId": pl.Int64, "Time": pl.Float64},
            )
        except pl.exceptions.PolarsError as error:
            raise DataError(f"{file} must have numbers in the columns SessionId, ItemId and Time: {error}.") from None
        return per_event(table.with_columns(time=(pl.col("Time") * 1000).round().cast(pl.Int64)), vocabulary)

    return read


def per_event(events: pl.DataFrame, vocabulary: Vocabulary) -> Cases:
    """Ask for every event of a session but the first, after those before it.

    Args:
        events: Columns SessionId, ItemId, time (ms); events of one instant keep their order.
        vocabulary: The items of the log to learn from; other items get codes behind them.
    """
    ordered = events.sort("time", maintain_order=True).sort("SessionId", maintain_order=True)
    own = vocabulary.extend(ordered["ItemId"].to_numpy())
    items, times = own.encode(ordered["ItemId"].to_numpy()), ordered["time"].to_numpy()
    starts = np.flatnonzero(np.diff(ordered["SessionId"].to_numpy(), prepend=np.iinfo(np.int64).min))
    session = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(items))))
    place = np.arange(len(items)) - starts[session]
    asked = np.flatnonzero(place > 0)
    lengths = place[asked]
    offsets = offsets_of(lengths)
    known = np.arange(offsets[-1]) + np.repeat(starts[session[asked]] - offsets[:-1], lengths)
    histories = SessionLog(
        items=items[known],
        times=times[known],
        session_offsets=offsets,
        user_offsets=np.arange(len(asked) + 1),
        vocabulary=own,
    )
    return Cases(
        histories=histories,
        asked_at=times[asked - 1] + 1,
        targets=items[asked],
        target_offsets=np.arange(len(asked) + 1),
        groups=session[asked],
    )
