"""A store in one SQLite file: durable, shared by the worker processes of one machine.

```
 events        every event, in the order of arrival: the truth
 shown         every list that was shown
 visitors      id ──► person, several ids for one after a merge
 people        person ──► record, written with its events in one transaction
 tombstones    who was erased
```

One thread of a process writes, or a process beside it.  What waits for it is committed together, so that one
flush to the disk pays for all events of the moment; an event is acknowledged after that flush.  Readers
never wait for writers (write-ahead log), nor writers for the log to be carried over into the file.  Where
several processes write, they take turns.
"""

import asyncio
import contextlib
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from nextsession.errors import StoreError
from nextsession.serving.adding import RECORDS, Added, Recent
from nextsession.serving.apart import Apart
from nextsession.serving.committing import NO_FACTS, Committing
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
from nextsession.serving.works import Erase, File, Forget, Merge, Note, Nothing, Rebuild, Trim

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
        apart: Write in a process of its own, so that who writes and who answers do not wait for one another; where
            there are no sockets that a process can be given, in a thread nevertheless.
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
        apart: bool = False,
    ) -> None:
        """Open the file, or make it.

        Raises:
            StoreError: It cannot be opened, is no store, a newer version wrote it, or another process has it alone.
        """
        super().__init__(path, patience=patience)
        self.rules = rules or Rules()
        file = File(str(self._path), self.rules, patience, largest, alone)
        self._writer = Apart(file, waiting) if apart and sys.platform != "win32" else _Beside(file, waiting)

    # -- writing --------------------------------------------------------------------------------

    def submit(self, events: Sequence[Event], now: int) -> "Future[list[Outcome]]":
        """Add events; the future is done when they are durable."""
        many = tuple(events)
        return self._writer.promised(Job(Added(many, now), len(many)))

    def submit_shown(self, shown: Shown) -> None:
        """Add a list that was shown."""
        with contextlib.suppress(StoreError):  # an answer is worth more than the note that it was given
            self._writer.put(Job(shown, 1, urgent=False))

    def merge(self, visitor: str, into: str, now: int) -> int:
        """Make two ids one person."""
        return int(self._submit(Merge(visitor, into), 1).result())

    def erase(self, visitor: str, now: int) -> Receipt:
        """Remove everything about a visitor, from the file and from what lies in its write-ahead log."""
        receipt: Receipt = self._submit(Erase(visitor, now), 1, after=True).result()
        return receipt

    def sweep(self, now: int, *, retention: int | None = None) -> int:
        """Drop the records of visitors that have been silent too long, some people at a time."""
        silent, before = 0, now - self.rules.ttl
        for start in range(0, self._one("SELECT coalesce(max(person), 0) FROM people") + 1, _STEP):
            silent += self._submit(Forget(start, start + _STEP, before), 1).result()
        if retention is not None:
            old = min(now, self._one("SELECT coalesce(max(received), 0) FROM events")) - retention
            new = self._row("SELECT seq FROM events WHERE received BETWEEN ? AND ? ORDER BY seq LIMIT 1", (old, now))
            until = 0 if new is None else new[0]
            for start in range(0, until, _STEP):
                self._submit(Trim(start, min(start + _STEP, until), old), 1).result()
        return silent

    def rebuild(self) -> int:
        """Make all records again from the log, in one transaction."""
        return int(self._submit(Rebuild(), 1).result())

    def note(self, name: str, value: str | None) -> None:
        """Keep a small text under a name."""
        self._submit(Note(name, value), 1).result()

    def flush(self) -> None:
        """Wait until everything submitted is durable."""
        self._submit(Nothing(), 0).result()

    def close(self) -> None:
        """Make everything durable and let go of the file."""
        if not self._closed:
            self._writer.close()
            super().close()

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a loop of events hear what a process beside this one has written."""
        if isinstance(self._writer, Apart):
            self._writer.attend(loop)

    # -- reading --------------------------------------------------------------------------------

    def record(self, visitor: str, now: int) -> Record:
        """Return what is remembered of a visitor."""
        recent = self._writer.recent  # a merge or an erasure puts another in its place
        person = None if recent is None else recent.people.get(visitor)
        if recent is not None and person in recent.records and not self._closed:
            return alive(recent.records[person], now, self.rules.ttl)
        row = self._row(
            "SELECT p.record FROM visitors v JOIN people p ON p.person = v.person WHERE v.visitor = ?", (visitor,)
        )
        return NOTHING if row is None or row[0] is None else alive(RECORDS.decode(row[0]), now, self.rules.ttl)

    def health(self) -> dict[str, Any]:
        """Return counts (of this process where it writes), sizes and the last error; it never fails."""
        told = self._writer.facts
        facts: dict[str, Any] = {
            "kind": "sqlite",
            "ok": not told["error"],
            "waiting": self._writer.waiting,
            **told,
        }
        with contextlib.suppress(StoreError, OSError):
            facts["entries"] = self.last()
            facts["visitors"] = self._one("SELECT coalesce(max(person), 0) FROM people")
            facts["bytes"] = sum(f.stat().st_size for f in self._path.parent.glob(self._path.name + "*"))
        return facts

    # -- inside ---------------------------------------------------------------------------------

    def _submit(self, work: Any, weight: int, *, after: bool = False) -> "Future[Any]":
        return self._writer.promised(Job(work, weight, after=after))


class _Beside(Groups):
    """Jobs for a thread of this process."""

    def __init__(self, file: File, most: int) -> None:
        """Open the file, and start the thread."""
        super().__init__(file.path, most)
        self.facts = NO_FACTS
        self._committing = Committing(file)
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    @property
    def recent(self) -> Recent | None:
        """Records of late, if nobody else writes the file."""
        return self._committing.recent

    def close(self) -> None:
        """Take no more jobs, and wait until those that wait are done."""
        super().close()
        self._thread.join()

    def _write(self) -> None:
        self._committing.run(self)
        self._committing.close()
