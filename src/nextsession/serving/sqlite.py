"""A store in one SQLite file: durable, shared by the worker processes of one machine.

```
 events        every event, in the order of arrival: the truth
 shown         every list that was shown
 visitors      id ──► person, several ids for one after a merge
 people        person ──► record, written with its events in one transaction
 tombstones    who was erased
```

One thread of each process writes.  What waits for it is committed together, so that one flush to
the disk pays for all events of the moment; an event is acknowledged after that flush.  Readers
never wait for writers (write-ahead log), nor writers for the log to be carried over into the file.  Where
several processes write, they take turns.
"""

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from itertools import groupby
from pathlib import Path
from typing import Any, TypeVar

from nextsession.errors import StoreError
from nextsession.serving.adding import RECORDS, Added, Recent
from nextsession.serving.carrying import Carrying
from nextsession.serving.claims import Turns, claimed
from nextsession.serving.events import (
    NOTHING,
    Event,
    Outcome,
    Receipt,
    Record,
    Rules,
    Shown,
    alive,
)
from nextsession.serving.groups import Groups, Job
from nextsession.serving.reading import Reader
from nextsession.serving.store import Store
from nextsession.serving.writing import SCHEMA, SINCE, VERSION, Writing

T = TypeVar("T")

_REMEMBERED = 200_000
"""Events (and ids of visitors) that are kept in memory by a process that is alone with its file."""
_STEP = 20_000
"""People that are looked through in one transaction, so that events need not wait long."""


class SQLiteStore(Reader, Store):
    """Keeps everything in one file.

    Args:
        path: The file; made if it is not there, in a folder that is.
        rules: How much is remembered.
        patience: How long (s) a process waits for another that writes.
        waiting: More events than this waiting to be written are refused.
        largest: The file may have so many pages of 4 KiB; none: what the disk holds.
        alone: No other process writes: records of late are kept in memory.  Whoever else tries is refused.
    """

    def __init__(
        self,
        path: str | Path,
        rules: Rules | None = None,
        *,
        patience: float = 5.0,
        waiting: int = 20_000,
        largest: int | None = None,
        alone: bool = False,
    ) -> None:
        """Open the file, or make it.

        Raises:
            StoreError: It cannot be opened, is no store, a newer version wrote it, or another process has it alone.
        """
        super().__init__(path, patience=patience)
        self.rules = rules or Rules()
        self._largest, self._error = largest, ""
        self._groups = Groups(str(self._path), waiting)
        self._counts = {"groups": 0, "events": 0, "cpu": 0.0}
        self._claim = claimed(self._path, alone=alone)
        try:
            connection = self._writer()
        except BaseException:
            if self._claim is not None:
                os.close(self._claim)
            raise
        self._recent = Recent(connection, _REMEMBERED) if alone else None
        self._turns = None if alone else Turns(self._path)
        self._carrying = Carrying(self._connection())
        self._careful = False
        self._thread = threading.Thread(target=self._write, args=(connection,), name="store", daemon=True)
        self._thread.start()

    # -- writing --------------------------------------------------------------------------------

    def submit(self, events: Sequence[Event], now: int) -> "Future[list[Outcome]]":
        """Add events; the future is done when they are durable."""
        many = list(events)
        return self._groups.promised(Job(Added(many, now), len(many)))

    def submit_shown(self, shown: Shown) -> None:
        """Add a list that was shown."""
        with contextlib.suppress(StoreError):  # an answer is worth more than the note that it was given
            self._groups.put(Job(shown, 1, urgent=False))

    def merge(self, visitor: str, into: str, now: int) -> int:
        """Make two ids one person."""
        return self._submit(lambda writing: writing.merge(visitor, into), 1).result()

    def erase(self, visitor: str, now: int) -> Receipt:
        """Remove everything about a visitor, from the file and from what lies in its write-ahead log."""
        return self._submit(lambda writing: writing.erase(visitor, now), 1, after=True).result()

    def sweep(self, now: int, *, retention: int | None = None) -> int:
        """Drop the records of visitors that have been silent too long, some people at a time."""
        silent, before = 0, now - self.rules.ttl
        for start in range(0, self._one("SELECT coalesce(max(person), 0) FROM people") + 1, _STEP):
            silent += self._submit(lambda writing, a=start: writing.forget(a, a + _STEP, before), 1).result()  # type: ignore[misc]
        if retention is not None:
            old = min(now, self._one("SELECT coalesce(max(received), 0) FROM events")) - retention
            new = self._row("SELECT seq FROM events WHERE received BETWEEN ? AND ? ORDER BY seq LIMIT 1", (old, now))
            until = 0 if new is None else new[0]
            for start in range(0, until, _STEP):
                stop = min(start + _STEP, until)
                self._submit(lambda writing, a=start, b=stop: writing.trim(a, b, old), 1).result()  # type: ignore[misc]
        return silent

    def rebuild(self) -> int:
        """Make all records again from the log, in one transaction."""
        return self._submit(lambda writing: writing.rebuild(), 1).result()

    def note(self, name: str, value: str | None) -> None:
        """Keep a small text under a name."""
        self._submit(lambda writing: writing.note(name, value), 1).result()

    def flush(self) -> None:
        """Wait until everything submitted is durable."""
        self._submit(lambda writing: None, 0).result()

    def close(self) -> None:
        """Make everything durable and let go of the file."""
        if self._closed:
            return
        self._groups.close()
        self._thread.join()
        super().close()
        if self._turns is not None:
            self._turns.close()
        if self._claim is not None:
            os.close(self._claim)

    # -- reading --------------------------------------------------------------------------------

    def record(self, visitor: str, now: int) -> Record:
        """Return what is remembered of a visitor."""
        recent = self._recent  # a merge or an erasure puts another in its place
        person = None if recent is None else recent.people.get(visitor)
        if recent is not None and person in recent.records and not self._closed:
            return alive(recent.records[person], now, self.rules.ttl)
        row = self._row(
            "SELECT p.record FROM visitors v JOIN people p ON p.person = v.person WHERE v.visitor = ?", (visitor,)
        )
        return NOTHING if row is None or row[0] is None else alive(RECORDS.decode(row[0]), now, self.rules.ttl)

    def health(self) -> dict[str, Any]:
        """Return counts (of this process where it writes), sizes and the last error; it never fails."""
        facts: dict[str, Any] = {
            "kind": "sqlite",
            "ok": not self._error,
            "waiting": self._groups.waiting,
            **self._counts,
        }
        facts["error"] = self._error or None
        with contextlib.suppress(StoreError, OSError):
            facts["entries"] = self.last()
            facts["visitors"] = self._one("SELECT coalesce(max(person), 0) FROM people")
            facts["bytes"] = sum(f.stat().st_size for f in self._path.parent.glob(self._path.name + "*"))
        return facts

    # -- inside: the writer ---------------------------------------------------------------------

    def _submit(self, work: Callable[[Writing], T], weight: int, *, after: bool = False) -> "Future[T]":
        return self._groups.promised(Job(work, weight, after=after))

    def _write(self, connection: sqlite3.Connection) -> None:
        running = True
        while running:
            jobs, running = self._groups.taken()
            with contextlib.nullcontext() if self._turns is None else self._turns.mine():
                self._commit(connection, jobs)
        self._carrying.close()
        with contextlib.suppress(sqlite3.Error):
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    def _commit(self, connection: sqlite3.Connection, jobs: list[Job]) -> None:
        """Do all jobs in one transaction; only when it is on the disk does anybody hear of it."""
        results: list[Any] = []
        writing = Writing(connection, self.rules, self._recent, careful=self._careful)
        try:
            connection.execute("BEGIN IMMEDIATE")
            for adds, some in groupby(jobs, _is_addition):
                works = [job.work for job in some]
                results += writing.add_all(works) if adds else [work(writing) for work in works]
            connection.execute("COMMIT")
            if not writing.committed() and self._recent is not None:
                self._recent = Recent(connection, _REMEMBERED)
            if any(job.after for job in jobs):
                self._carrying.empty(connection, self._patience)
        except Exception as error:  # nothing may end this thread, and whoever waits must hear what went wrong
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.IntegrityError) and not self._careful:
                self._careful = True  # an event is there already: find out which
                self._commit(connection, jobs)
                return
            if len(jobs) > 1 and not isinstance(error, sqlite3.OperationalError):
                for job in jobs:  # it is not the disk but one of them: let the others live
                    self._commit(connection, [job])
                return
            self._error = f"{type(error).__name__}: {error}"
            failure = StoreError(f"{self._path} cannot be written: {error}. Nothing was recorded; send it again.")
            failure.__cause__ = error
            self._groups.settle(jobs, [failure] * len(jobs))
            return
        self._error, self._careful = "", writing.repeats
        self._counts["cpu"] = time.thread_time()
        self._counts["groups"] += 1
        self._counts["events"] += sum(job.weight for job in jobs)
        self._groups.settle(jobs, results)
        self._carrying.wrote(connection)

    def _connection(self) -> sqlite3.Connection:
        """Return a connection that writes, and asks for a flush of every commit."""
        connection = sqlite3.connect(
            self._path, isolation_level=None, timeout=self._patience, check_same_thread=False, cached_statements=64
        )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")  # see `Carrying`
        return connection

    def _writer(self) -> sqlite3.Connection:
        try:
            new = not self._path.exists()
            connection = self._connection()
            if new:
                self._path.chmod(0o600)  # what people did is nobody else's business
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA secure_delete = ON")  # what is erased is overwritten
            connection.execute("BEGIN IMMEDIATE")
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found == 0:
                for statement in SCHEMA:
                    connection.execute(statement)
            for older in range(found or VERSION, VERSION):
                for statement in SINCE[older]:
                    connection.execute(statement)
            if found < VERSION:
                connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("COMMIT")
            if self._largest is not None:
                connection.execute(f"PRAGMA max_page_count = {self._largest}")
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be opened as a store: {error}.") from error
        if found > VERSION:
            connection.close()
            raise StoreError(
                f"{self._path} has format {found}, this version reads up to {VERSION}: upgrade nextsession."
            )
        return connection


def _is_addition(job: Job) -> bool:
    return isinstance(job.work, Added | Shown)
