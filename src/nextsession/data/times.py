"""Reading the times of a log: numbers in some unit, ISO 8601 text or typed columns, to milliseconds.

The unit of a number is decided by its magnitude, once for the whole log: below 10^11 it counts
seconds, below 10^14 milliseconds, below 10^17 microseconds, else nanoseconds since 1970 UTC.  A
log in which two of these meet is refused, for nobody but its owner can say which is right.  Text
without a time zone is UTC.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextsession.errors import DataError

LATEST = 4_102_444_800_000
"""2100-01-01 in milliseconds: a later time is a mistake."""

Unit = Literal["s", "ms", "us", "ns", "iso"]

_BOUNDS = np.array([1e11, 1e14, 1e17])
_UNITS: tuple[Unit, ...] = ("s", "ms", "us", "ns")
_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds", "iso": "ISO 8601 text"}
_PER_MS = {"s": 1e-3, "ms": 1.0, "us": 1e3, "ns": 1e6}
_FORMATS = tuple(
    f"%Y-%m-%d{separator}{clock}{zone}"
    for separator in ("T", " ")
    for clock in ("%H:%M:%S%.f", "%H:%M")
    for zone in ("", "%#z", " UTC")
)


class Clock:
    """Reads the time columns of one log, batch by batch, and remembers which unit it found."""

    def __init__(self, unit: Literal["auto", "s", "ms", "us", "ns", "iso"] = "auto") -> None:
        """Take the unit of numbers; `auto` finds it."""
        self._unit = unit
        self._found: dict[Unit, str] = {}  # unit: where it was first seen

    def read(self, column: pl.Series, source: str, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return milliseconds since 1970, and which rows hold a time at all.

        Milliseconds are negative for times before 1970 and `LATEST` for times after 2100.

        Args:
            column: Text, numbers, dates or datetimes, `(n,)`.
            source: The file, for messages.
            rows: The number of each row in the file, `(n,)`, for messages.

        Raises:
            DataError: Times of different units meet (`auto` only), or the column cannot hold times.
        """
        if column.dtype.is_temporal() and column.dtype not in (pl.Time, pl.Duration):
            known = column.is_not_null().to_numpy()
            return _clipped(column.cast(pl.Datetime("ms")).to_physical().fill_null(0).to_numpy(), "ms"), known
        if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
            raise DataError(
                f"{source}: column {column.name!r} must hold times (numbers, ISO 8601 text, datetimes); "
                f"it holds {column.dtype}."
            )
        ms, known = np.zeros(len(column), np.int64), np.zeros(len(column), np.bool_)
        for reader in self._readers(column.dtype):
            left = np.flatnonzero(~known)
            if len(left) == 0:
                break
            part = column if len(left) == len(column) else column.gather(left)
            values = reader(part)
            found = left[values.is_not_null().to_numpy()]
            if len(found) == 0:
                continue
            here = part.drop_nulls() if len(found) == len(part) else column.gather(found)
            numbers = values.drop_nulls().to_numpy()
            if reader is _iso:
                ms[found] = _clipped(numbers, "ms")
                self._meet("iso", _possible(ms[found]), here, source, rows[found])
            else:
                ms[found] = self._from_numbers(numbers, here, source, rows[found])
            known[found] = True
        return ms, known

    def _readers(self, kind: pl.DataType) -> tuple[Callable[[pl.Series], pl.Series], ...]:
        if kind.is_float() or kind.is_decimal():
            return (_broken,)
        if kind != pl.String:
            return (_whole,)
        if self._unit == "iso":
            return (_iso,)
        return (_whole, _broken, _iso) if self._unit == "auto" else (_whole, _broken)

    def _from_numbers(
        self, values: NDArray[Any], column: pl.Series, source: str, rows: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        if self._unit != "auto":
            return _clipped(values, "ms" if self._unit == "iso" else self._unit)
        low, high = np.searchsorted(_BOUNDS, [values.min(), values.max()], side="right")
        band = None if low == high else np.searchsorted(_BOUNDS, values, side="right")
        ms = np.zeros(len(values), np.int64)
        for place in range(low, high + 1):
            here: Any = slice(None) if band is None else band == place
            ms[here] = _clipped(values[here], _UNITS[place])
            fits = _possible(ms)
            self._meet(_UNITS[place], fits if band is None else fits & here, column, source, rows)
        return ms

    def _meet(self, unit: Unit, here: NDArray[Any], column: pl.Series, source: str, rows: NDArray[np.int64]) -> None:
        if unit in self._found or self._unit != "auto" or not here.any():
            return
        first = int(np.argmax(here))
        self._found[unit] = f"{source}, row {rows[first]}: {column[first]} looks like {_NAMES[unit]}"
        if len(self._found) > 1:
            raise DataError(
                f"Column {column.name!r} must hold times of one kind; {'; '.join(self._found.values())}. "
                f"Say which is right with time_unit (s, ms, us, ns or iso)."
            )


def _possible(ms: NDArray[np.int64]) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (ms >= 0) & (ms < LATEST)
    return found


def _clipped(values: NDArray[Any], unit: Unit) -> NDArray[np.int64]:
    """Return milliseconds; `-1` before 1970, `LATEST` after 2100."""
    if unit == "ms" and values.dtype == np.int64:
        return np.asarray(np.clip(values, -1, LATEST))
    low, high = -_PER_MS[unit], LATEST * _PER_MS[unit]
    if values.dtype == np.int64:
        inside = np.clip(values, -int(max(1, np.ceil(-low))), int(high))
        return np.asarray(inside * 1000 if unit == "s" else inside // int(_PER_MS[unit]))
    ms = np.clip(np.rint(np.clip(values, low, high) / _PER_MS[unit]), -1, LATEST)
    return np.asarray(np.where(values < 0, -1, ms), dtype=np.int64)


def _whole(column: pl.Series) -> pl.Series:
    return (column.str.strip_chars() if column.dtype == pl.String else column).cast(pl.Int64, strict=False)


def _broken(column: pl.Series) -> pl.Series:
    text = column.str.strip_chars() if column.dtype == pl.String else column
    return text.cast(pl.Float64, strict=False).fill_nan(None)


def _iso(text: pl.Series) -> pl.Series:
    """Read ISO 8601 text as milliseconds; null where it is not."""
    stripped = text.str.strip_chars()
    days = stripped.str.to_date("%Y-%m-%d", strict=False, exact=True)
    found = days.cast(pl.Datetime("ms")).to_physical()
    for pattern in _FORMATS:
        left = found.is_null().arg_true()
        if not len(left):
            break
        read = stripped.gather(left).str.to_datetime(pattern, time_unit="ms", strict=False)
        found = found.scatter(left, read.dt.replace_time_zone(None).to_physical())
    return found
