"""Batches of a raw log, cleaned and coded, into a scratch file; bad rows counted or set aside."""

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from nextsession.data.cleaning import Clean, Cleaner
from nextsession.data.coding import Coder
from nextsession.data.format import EventBatch, LogFormat, Rejected, SessionRule
from nextsession.data.spill import Spill
from nextsession.errors import ConfigError, DataError

BadRows = Literal["fail", "quarantine"]


@dataclass(frozen=True)
class Feature:
    """How a further column was spilled: text by number, numbers as they are."""

    field: str
    coder: Coder | None

    def values(self) -> NDArray[Any] | None:
        """Return the value of each number; none if the column holds values itself.

        Values are float64 if every text is a number or missing (then NaN), else text.
        """
        if self.coder is None:
            return None
        texts = self.coder.texts()
        numbers = texts.str.strip_chars().cast(pl.Float64, strict=False)
        if (numbers.is_not_null() | (texts == "")).all() and not (texts == "").all():
            return numbers.fill_null(float("nan")).to_numpy()
        return np.array(texts.to_list(), dtype=np.str_)


class Intake:
    """Takes batches one by one; afterwards `spill` holds every usable row, coded."""

    def __init__(self, form: LogFormat, rule: SessionRule, folder: Path, bad_rows: BadRows) -> None:
        """Take the format and the rule of sessions, and where scratch files may be put.

        Raises:
            ConfigError: The rule needs a column that the format does not name.
        """
        columns = form.columns
        for name, by in (("session", ("id",)), ("time", ("gap", "time")), ("user", ("gap", "time", "user"))):
            if rule.by in by and getattr(columns, name) is None:
                whole = "" if name == "user" else ", --by user all of a user's events"
                raise ConfigError(
                    f"Sessions by {rule.by} need a {name} column; name it, or choose another rule: "
                    f"--session COLUMN takes the sessions of the log{whole}."
                )
        self._form, self._by_id, self._folder, self._bad_rows = form, rule.by == "id", folder, bad_rows
        self._cleaner = Cleaner(form, session=self._by_id)
        self.users, self.items, self.sessions, self.actions = Coder(), Coder(), Coder(), Coder()
        self.features: dict[str, Feature] = {}
        self.spill: Spill | None = None
        self.rows: dict[str, int] = {}
        """Rows of each source."""
        self.rejected = 0
        self.unwanted = 0
        self.wanted = 0
        self._first: Rejected | None = None

    def add(self, batch: EventBatch) -> None:
        """Clean and code a batch and put it to the others.

        Raises:
            DataError: A column is missing or cannot hold what it must.
        """
        self.rows[batch.source] = self.rows.get(batch.source, 0) + len(batch.frame) + len(batch.rejected)
        if len(batch.frame) == len(batch.rejected) == 0:
            return
        clean = self._cleaner.clean(batch)
        self.unwanted += clean.unwanted
        self.wanted += len(clean) if clean.labels is None else int(np.count_nonzero(clean.labels))
        if clean.rejected:
            self._reject(clean.rejected)
        if len(clean) and not (self.rejected and self._bad_rows == "fail"):
            columns = self._coded(clean, batch.source)
            if self.spill is None:
                self.spill = Spill(self._folder / "events", np.dtype([(n, c.dtype) for n, c in columns.items()]))
            rows = np.empty(len(clean), self.spill.kind)
            for name, column in columns.items():
                rows[name] = column
            self.spill.append(rows)

    def finish(self) -> Spill:
        """Return the rows.

        Raises:
            DataError: Rows were bad and may not be; or none is left.
        """
        if self._first is not None and self._bad_rows == "fail":
            more = f" {self.rejected:,} rows cannot be used." if self.rejected > 1 else ""
            raise DataError(
                f"{self._first}.{more} Mend the log, or set such rows aside with --bad-rows quarantine "
                f"(bad_rows='quarantine')."
            )
        if self.spill is None:
            why = f"; the first of {self.rejected:,} rows set aside: {self._first}" if self._first else ""
            why += f"; {self.unwanted:,} events were not wanted" if self.unwanted else ""
            names = ", ".join(self.rows) or "the log"
            raise DataError(f"{names if len(names) < 200 else 'The log'} must hold an event, it holds none{why}.")
        values = self._form.labels.values
        if values is not None and not self.wanted:
            raise DataError(
                f"Some event must be wanted, but column {self._form.columns.label!r} nowhere holds "
                f"{' or '.join(map(repr, values))}; see whether --label-value (labels.values) is right."
            )
        return self.spill

    def _reject(self, rejected: list[Rejected]) -> None:
        self._first = self._first or rejected[0]
        self.rejected += len(rejected)
        if self._bad_rows == "fail":
            return
        path = self._folder / "rejected.csv"
        new = not path.exists()
        with path.open("a", encoding="utf-8", newline="") as handle:
            writer = csv.writer(handle)
            if new:
                writer.writerow(["source", "row", "column", "value", "reason"])
            writer.writerows([r.source, r.row, r.column, r.value, r.reason] for r in rejected)

    def _coded(self, clean: Clean, source: str) -> Mapping[str, NDArray[Any]]:
        user = clean.session if clean.user is None else clean.user
        assert user is not None
        columns: dict[str, NDArray[Any]] = {"user": self.users.encode(user), "item": self.items.encode(clean.item)}
        if self._by_id and clean.user is not None and clean.session is not None:
            columns["session"] = self.sessions.encode(clean.session)
        if clean.times is not None:
            columns["time"] = clean.times
        if clean.positions is not None:
            columns["position"] = clean.positions
        if clean.labels is not None:
            columns["label"] = clean.labels
        if clean.action is not None:
            actions = self.actions.encode(clean.action)
            if len(actions) and actions.max() > np.iinfo(np.int16).max:
                raise DataError(f"{source}: there must be at most 32,768 kinds of action; is the column right?")
            columns["action"] = actions.astype(np.int16)
        for place, (name, column) in enumerate(clean.features.items()):
            text = column.dtype == pl.String
            feature = self.features.setdefault(name, Feature(f"feature_{place}", Coder() if text else None))
            if text != (feature.coder is not None):
                raise DataError(f"{source}: column {name!r} must hold numbers in all files or text in all.")
            columns[feature.field] = column.to_numpy() if feature.coder is None else feature.coder.encode(column)
        return columns
