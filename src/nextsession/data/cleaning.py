"""From rows as they were written to values that can be used, or rows set aside with a reason.

Each row is either used whole or becomes a `Rejected`; nothing is repaired by guess.  Work is done
by column in Polars; only rows that are set aside are looked at one by one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextsession.data.format import Columns, EventBatch, LogFormat, Rejected
from nextsession.data.times import LATEST, Clock
from nextsession.errors import DataError, suggestion

ROW = "__row__"
"""A column of this name in the frame of a batch holds the number of each row in its file."""

_MISSING = ["", "nan", "NaN", "NAN", "null", "NULL", "None", "NONE", "<NA>", "NaT", "NA", "\\N"]
_ROWS_IN_ID = r"[,;\t\x1f][^\n]*\n[^\n]*[,;\t\x1f]"  # a line end with delimiters on both sides
_SHORT = max(map(len, _MISSING))


@dataclass(frozen=True, eq=False)
class Clean:
    """The usable rows of a batch."""

    user: pl.Series | None
    item: pl.Series
    session: pl.Series | None
    times: NDArray[np.int64] | None
    labels: NDArray[np.int8] | None
    action: pl.Series | None
    positions: NDArray[np.float64] | None
    features: dict[str, pl.Series]
    rejected: list[Rejected]
    unwanted: int
    """Rows left out because only wanted events are kept (`Labels.otherwise = "dropped"`)."""

    def __len__(self) -> int:
        """Return the number of usable rows."""
        return len(self.item)


class Cleaner:
    """Cleans the batches of one log, one after another."""

    def __init__(self, form: LogFormat, *, session: bool = True) -> None:
        """Take the format; `session` says whether the session column will be used."""
        columns = form.columns
        self._form = form
        self._columns = columns if session else columns.model_copy(update={"session": None})
        self._clock = Clock(form.time_unit)

    def clean(self, batch: EventBatch) -> Clean:
        """Return the usable rows, and every other with its reason.

        Raises:
            DataError: A column is missing or cannot hold what it must; times of several units meet.
        """
        check_columns(batch.frame.columns, self._form, batch.source)
        return _Rows(batch, self._form, self._columns, self._clock).result()


class _Rows:
    """One batch on its way: values by column, and the trouble with each row."""

    def __init__(self, batch: EventBatch, form: LogFormat, columns: Any, clock: Clock) -> None:
        self.batch, self.form, self.columns, self.clock = batch, form, columns, clock
        self.frame = batch.frame
        self.trouble: list[tuple[str, NDArray[np.bool_], str]] = []
        if ROW in self.frame.columns:
            self.numbers = self.frame[ROW].cast(pl.Int64).to_numpy()
        else:
            self.numbers = np.arange(batch.first_row, batch.first_row + len(self.frame))

    def result(self) -> Clean:
        columns = self.columns
        self._header_again()
        user, item, session = (self._ids(name) for name in (columns.user, columns.item, columns.session))
        assert item is not None
        times = self._times(columns.time)
        labels = self._labels(columns.label)
        action = self._actions(columns.action)
        positions = self._positions(columns.position)
        features = {name: self._feature(name) for name in columns.features}
        rejected, bad = self._rejected()
        keep = ~bad
        unwanted = 0
        if labels is not None and self.form.labels.otherwise == "dropped":
            unwanted = int((keep & (labels == 0)).sum())
            keep &= labels == 1
            labels = None
        if not keep.all():
            mask = pl.Series(keep)
            user, item, session, action = (s if s is None else s.filter(mask) for s in (user, item, session, action))
            times = None if times is None else times[keep]
            labels = None if labels is None else labels[keep]
            positions = None if positions is None else positions[keep]
            features = {name: column.filter(mask) for name, column in features.items()}
        assert item is not None
        return Clean(user, item, session, times, labels, action, positions, features, rejected, unwanted)

    def _bad(self, column: str, where: NDArray[np.bool_], reason: str) -> None:
        if where.any():
            self.trouble.append((column, where, reason))

    def _header_again(self) -> None:
        named = [
            name for name in (self.columns.user, self.columns.item, self.columns.session, self.columns.time) if name
        ]
        texts = [name for name in named if self.frame[name].dtype == pl.String]
        if len(texts) == len(named):
            again = self.frame.select(pl.all_horizontal(pl.col(name) == name for name in texts)).to_series()
            self._bad(self.columns.item, _flags(again), "the header is repeated here; were files joined?")

    def _ids(self, name: str | None) -> pl.Series | None:
        if name is None:
            return None
        column = self.frame[name]
        kind = column.dtype
        if kind.is_integer():
            self._bad(name, column.is_null().to_numpy(), "an id is missing")
            return column.cast(pl.String)
        if kind.is_float() or kind.is_decimal():
            numbers = column.cast(pl.Float64).fill_nan(None)
            self._bad(name, numbers.is_null().to_numpy(), "an id is missing")
            whole = numbers.cast(pl.Int64, strict=False)
            odd = numbers.is_not_null() & (
                whole.is_null() | (whole.cast(pl.Float64) != numbers) | (numbers.abs() > 2**53)
            )
            self._bad(name, _flags(odd), "an id must be text or a whole number that a float holds exactly")
            return whole.cast(pl.String)
        if kind == pl.Null:
            self._bad(name, np.ones(len(column), np.bool_), "an id is missing")
            return column.cast(pl.String)
        text = self._text(name, "ids (text or whole numbers)")
        short = text.str.len_bytes() <= _SHORT
        missing = text.is_null()
        if short.any():
            missing |= short & (text.is_in(_MISSING) | (text.str.strip_chars() == ""))
        self._bad(name, _flags(missing), "an id is missing")
        self._bad(name, _flags(text.str.contains("\0", literal=True)), "an id must not hold a NUL byte")
        self._bad(name, _flags(text.str.contains(_ROWS_IN_ID)), "an id holds whole rows; is a quote unbalanced?")
        return text

    def _text(self, name: str, what: str) -> pl.Series:
        column = self.frame[name]
        if column.dtype == pl.Binary:
            text = pl.Series(name, [_decoded(value) for value in column], dtype=pl.String)
            self._bad(name, (text.is_null() & column.is_not_null()).to_numpy(), "this is not UTF-8 text")
            return text
        if column.dtype == pl.String:
            return column
        if isinstance(column.dtype, pl.Categorical | pl.Enum) or column.dtype in (pl.Boolean, pl.Null):
            return column.cast(pl.String)
        if column.dtype.is_numeric() or column.dtype.is_temporal():
            return column.cast(pl.String)
        raise DataError(f"{self.batch.source}: column {name!r} must hold {what}; it holds {column.dtype}.")

    def _times(self, name: str | None) -> NDArray[np.int64] | None:
        if name is None:
            return None
        column = self.frame[name]
        if column.dtype == pl.Binary:
            column = self._text(name, "times")
        ms, known = self.clock.read(column, self.batch.source, self.numbers)
        missing = column.is_null().to_numpy()
        if column.dtype == pl.String and not known.all():
            missing |= _flags(column.str.strip_chars().is_in(_MISSING))
        elif column.dtype.is_float():
            missing |= _flags(column.is_nan())
        self._bad(name, missing, "the time is missing")
        number = "" if self.form.time_unit == "iso" else ", or a number since 1970"
        self._bad(name, ~known & ~missing, f"a time must be ISO 8601 such as 2024-03-01T12:34:56Z{number}")
        self._bad(name, known & (ms < 0), "a time must not be before 1970")
        self._bad(name, known & (ms >= LATEST), "a time must not be after 2100; is time_unit right?")
        return ms

    def _labels(self, name: str | None) -> NDArray[np.int8] | None:
        if name is None:
            return None
        rule = self.form.labels
        if rule.values is not None:
            text = self._text(name, "labels")
            self._bad(name, text.is_null().to_numpy(), "the label is missing")
            return _flags(text.is_in(list(rule.values))).astype(np.int8)
        least = 1.0 if rule.at_least is None else rule.at_least
        otherwise = ", or say which are wanted: --label-value (labels.values)" if rule.at_least is None else ""
        return (self._numbers(name, f"the label must be a number{otherwise}") >= least).astype(np.int8)

    def _numbers(self, name: str, reason: str) -> NDArray[np.float64]:
        column = self.frame[name]
        if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
            text = self._text(name, "numbers")
            column = text.str.strip_chars().replace({"true": "1", "True": "1", "false": "0", "False": "0"})
        numbers = column.cast(pl.Float64, strict=False).fill_nan(None)
        self._bad(name, numbers.is_null().to_numpy(), reason)
        return numbers.fill_null(0.0).to_numpy()

    def _actions(self, name: str | None) -> pl.Series | None:
        if name is None:
            return None
        text = self._text(name, "actions (text)")
        self._bad(name, _flags(text.is_null() | text.is_in(_MISSING)), "the action is missing")
        return text

    def _positions(self, name: str | None) -> NDArray[np.float64] | None:
        return None if name is None else self._numbers(name, "the position must be a number")

    def _feature(self, name: str) -> pl.Series:
        column = self.frame[name]
        if column.dtype == pl.Boolean or (column.dtype.is_numeric() and not column.dtype.is_nested()):
            return column.cast(pl.Float64).fill_null(float("nan"))
        return self._text(name, "numbers or text").fill_null("")

    def _rejected(self) -> tuple[list[Rejected], NDArray[np.bool_]]:
        bad = np.zeros(len(self.frame), np.bool_)
        found: list[tuple[int, Rejected]] = []
        for name, where, reason in self.trouble:
            column = self.frame[name]
            for row in np.flatnonzero(where & ~bad).tolist():
                number = int(self.numbers[row])
                found.append((row, Rejected(self.batch.source, number, name, shown(column[row]), reason)))
            bad |= where
        ordered = [rejected for _, rejected in sorted(found, key=lambda pair: pair[0])]
        return [*self.batch.rejected, *ordered], bad


def needed(columns: Columns) -> list[str]:
    """Return the names of the columns that play a part, each once."""
    names = [
        value for part in columns.model_dump().values() for value in (part if isinstance(part, tuple) else (part,))
    ]
    return list(dict.fromkeys(name for name in names if name is not None))


def check_columns(found: Sequence[str], form: LogFormat, source: str) -> None:
    """Raise `DataError`, with a suggestion, unless every column that the format names is there."""
    for part, names in form.columns.model_dump().items():
        for name in names if isinstance(names, tuple) else (names,):
            if name is not None and name not in found:
                known = [column for column in found if column != ROW]
                none = f", or that there is none: --{part} ''" if part in ("user", "time") else ""
                flag = f"--{part.removesuffix('s')} COLUMN (columns.{part})"
                raise DataError(
                    f"{source}: there is no column {name!r} (for {part}).{suggestion(name, known)} "
                    f"Columns: {', '.join(known)}. Say which it is: {flag}{none}."
                )


def shown(value: object) -> str:
    """Write a value for a person, at most 80 characters of it."""
    text = "" if value is None else value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode()
    except UnicodeDecodeError:
        return None


def _flags(mask: pl.Series) -> NDArray[np.bool_]:
    return mask.fill_null(value=False).to_numpy()
