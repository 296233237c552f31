"""How a raw log is written, and what is to be made of it: columns, labels, sessions, filters.

These settings are the `[data]`, `[sessions]` and `[filters]` tables of an experiment file, the
flags of `nextsession data prepare`, and what every named data set declares about its files.
"""

from dataclasses import dataclass, field
from typing import Literal, Self

import polars as pl
from pydantic import Field, model_validator

from nextsession.config import Duration, Settings


class Columns(Settings):
    """Which column of the file plays which part."""

    user: str | None = "user_id"
    """Who acted; none: every session is a visitor of its own."""
    item: str = "item_id"
    """What was acted upon."""
    time: str | None = "timestamp"
    """When; none: only the order of the rows is known."""
    session: str | None = None
    """The id of the session, where the file gives one."""
    label: str | None = None
    """What decides whether the event was wanted (see `Labels`); none: every event was."""
    action: str | None = None
    """The kind of action: click, cart, purchase."""
    position: str | None = None
    """Breaks ties of time: the place of an item in what was shown at one instant."""
    features: tuple[str, ...] = ()
    """Further columns to keep beside each event."""


class Labels(Settings):
    """When an event counts as wanted (label 1); all other events are shown-and-ignored (label 0).

    With neither `at_least` nor `values` an event is wanted if the label column is at least 1, or true.
    """

    at_least: float | None = None
    """Wanted if the label column is at least this number (a rating of 4, say)."""
    values: tuple[str, ...] | None = None
    """Wanted if the label column is one of these."""
    otherwise: Literal["ignored", "dropped"] = "ignored"
    """What becomes of the other events: kept with label 0, or left out."""


class SessionRule(Settings):
    """Where sessions begin and end."""

    by: Literal["gap", "id", "time", "user"] = "gap"
    """`gap`: a silence longer than `gap`; `id`: the session column; `time`: equal user and time (one
    delivered request); `user`: all events of a user are one session."""
    gap: Duration = 1_800_000
    """The silence that ends a session; an event exactly `gap` after the last belongs to the same session."""


class Filters(Settings):
    """What is left out, repeated until nothing changes (or `passes` times)."""

    item_events: int = Field(default=0, ge=0)
    """Least number of events of an item."""
    user_events: int = Field(default=0, ge=0)
    """Least number of events of a user."""
    user_sessions: int = Field(default=0, ge=0)
    """Least number of sessions of a user."""
    session_events: int = Field(default=0, ge=0)
    """Least number of events of a session."""
    session_positives: int = Field(default=0, ge=0)
    """Least number of wanted events of a session."""
    longest_session: int = Field(default=0, ge=0)
    """Leave out sessions of more events than this (crawlers); 0 keeps all."""
    repeats: Literal["keep", "drop"] = "keep"
    """Drop an event whose item is that of the event before it in the same session."""
    passes: int | None = Field(default=None, ge=1)
    """Most rounds; none: until nothing changes."""


class LogFormat(Settings):
    """How the files of a raw log are written."""

    kind: Literal["csv", "jsonl", "parquet"] | None = None
    """None: by the name of the file (`.csv`, `.tsv`, `.txt`, `.dat`, `.jsonl`, `.ndjson`, `.parquet`; also `.gz`)."""
    delimiter: str | None = None
    """Of a csv; may be several characters (`::`).  None: a tab for `.tsv`, else the one of `,` `;` tab that the
    first line holds most."""
    header: tuple[str, ...] | None = None
    """Names of the columns of a csv whose first line is data already."""
    columns: Columns = Columns()
    """Which column plays which part."""
    time_unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = "auto"
    """Unit of a numeric time (`auto`: by magnitude), or ISO 8601 text."""
    labels: Labels = Labels()
    """When an event counts as wanted."""

    @model_validator(mode="after")
    def _has_what_labels_read(self) -> Self:
        if self.columns.label is None and self.labels != Labels():
            raise ValueError("labels say what is wanted by a column; name it: --label COLUMN (columns.label), got none")
        return self


class ItemFile(Settings):
    """A file with one row an item: titles and side features, kept beside the log."""

    path: str
    """The file: CSV, JSON lines or Parquet, like a log."""
    delimiter: str | None = None
    """Of a csv; none: as for a log."""
    id: str = "item_id"
    """The column of the item's id, written as in the log."""
    title: str | None = None
    """The column of what people call the item."""
    categories: tuple[str, ...] = ()
    """Columns of categorical features."""
    separator: str = "|"
    """Parts the values of a category that has several (`drama|war`); empty: never."""
    numbers: tuple[str, ...] = ()
    """Columns of numeric features, which are binned: each bin holds about as many items of those learnt from."""
    bins: int = Field(default=10, ge=2)
    """Most bins of a numeric feature."""


@dataclass(frozen=True)
class EventBatch:
    """Some rows of a raw log, not yet checked.

    `frame` holds the file's own columns (text for csv), or, after a data set's own reshaping, the
    columns that the `Columns` in force name.  A column `__row__` holds the numbers of the rows in the
    file, where these have gaps.
    """

    frame: pl.DataFrame
    source: str
    """The file, as the caller named it."""
    first_row: int = 1
    """The number, in the file, of the first row of `frame` (1-based, the header counts)."""
    rejected: tuple["Rejected", ...] = field(default=())
    """Rows that could not even be read."""


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be used, and why."""

    source: str
    row: int
    column: str
    """Empty: the row as a whole."""
    value: str
    reason: str

    def __str__(self) -> str:
        """Say where and why, as a message to a person."""
        column = f", column {self.column!r}" if self.column else ""
        return f"{self.source}, row {self.row}{column}: {self.reason} (got {self.value!r})"
