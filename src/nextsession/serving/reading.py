"""The reading side of a `SQLiteStore`: what may be asked of its file while a server writes it."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nextsession.errors import StoreError
from nextsession.serving.events import Event, Shown, Stored, Tombstone, digest_of
from nextsession.serving.store import Known
from nextsession.serving.writing import REWRITTEN, VERSION

_PAGE = 10_000
"""Rows that are read at once where a whole table is read, so that no reader holds the log back for long."""

_EVENTS = (
    "SELECT e.seq, e.id, p.name, e.item, e.time, e.action, e.label, e.request, e.received "
    "FROM events e JOIN people p ON p.person = e.person WHERE"
)
_SHOWN = (
    "SELECT s.seq, s.request, p.name, s.time, s.arm, s.version, s.items, s.shadow, s.explored "
    "FROM shown s JOIN people p USING (person)"
)
_EXPLORED = msgspec.json.Decoder(dict[str, float])
_ITEMS = msgspec.json.Decoder(tuple[str, ...])


class Reader:
    """Reads the file of a store; every thread has a connection of its own.

    Args:
        path: The file.
        patience: How long (s) to wait for a process that holds the file.
    """

    def __init__(self, path: str | Path, *, patience: float = 5.0) -> None:
        """Note where the file is; it is opened when something is asked."""
        self._path, self._patience, self._closed = Path(path), patience, False
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._lock = threading.Lock()

    def close(self) -> None:
        """Let go of the file."""
        self._closed = True
        for connection in self._readers:
            connection.close()
        self._readers = []

    def known(self, visitor: str) -> Known | None:
        """Return everything that is held of a visitor."""
        row = self._row(
            "SELECT v.person, p.name FROM visitors v JOIN people p ON p.person = v.person WHERE v.visitor = ?",
            (visitor,),
        )
        if row is None:
            return None
        person, name = row
        identities = self._rows("SELECT visitor FROM visitors WHERE person = ? ORDER BY visitor", (person,))
        events = self._rows(f"{_EVENTS} e.person = ? ORDER BY e.seq", (person,))
        shown = self._rows(f"{_SHOWN} WHERE s.person = ? ORDER BY s.seq", (person,))
        return Known(
            name, tuple(i for (i,) in identities), tuple(map(_stored, events)), tuple(_shown(s)[1] for s in shown)
        )

    def standing(self, visitor: str) -> dict[str, int | None]:
        """Return the ids that a visitor goes by, and when each was erased."""
        person = "SELECT person FROM visitors WHERE visitor = ?"
        rows = self._rows(f"SELECT visitor FROM visitors WHERE person = ({person}) ORDER BY visitor", (visitor,))
        identities = [identity for (identity,) in rows] or [visitor]
        return {identity: self._erased_at(identity) for identity in identities}

    def _erased_at(self, visitor: str) -> int | None:
        row = self._row("SELECT erased_at FROM tombstones WHERE digest = ?", (digest_of(visitor),))
        return None if row is None else int(row[0])

    def events(self, after: int = 0, limit: int | None = None) -> Iterator[Stored]:
        """Give the log in the order of arrival."""
        for row in self._pages(f"{_EVENTS} e.seq > ? ORDER BY e.seq LIMIT ?", after, limit):
            yield _stored(row)

    def shown(self, after: int = 0, limit: int | None = None) -> Iterator[tuple[int, Shown]]:
        """Give the lists that were shown."""
        for row in self._pages(f"{_SHOWN} WHERE s.seq > ? ORDER BY s.seq LIMIT ?", after, limit):
            yield _shown(row)

    def tombstones(self) -> list[Tombstone]:
        """Return who was erased and when."""
        return [Tombstone(*row) for row in self._rows("SELECT digest, erased_at FROM tombstones ORDER BY digest")]

    def last(self) -> int:
        """Return the place of the newest entry."""
        return self._one("SELECT seq FROM counter")

    def rewritten(self) -> int:
        """Return how often what stands in the log was changed or removed."""
        return int(self.noted(REWRITTEN) or 0)

    def noted(self, name: str) -> str | None:
        """Return what was kept under a name."""
        row = self._row("SELECT value FROM notes WHERE name = ?", (name,))
        return None if row is None else str(row[0])

    # -- inside ---------------------------------------------------------------------------------

    def _reader(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                f"file:{_quoted(self._path)}?mode=ro",
                uri=True,
                isolation_level=None,
                timeout=self._patience,
                check_same_thread=False,  # `close` closes the connections of all threads
            )
            with self._lock:
                self._readers.append(connection)
            found = connection.execute("PRAGMA user_version").fetchone()[0]
            if found != VERSION:
                remedy = "start a server on it once" if found < VERSION else "upgrade nextsession"
                raise StoreError(f"{self._path} has format {found}, and {VERSION} is read here: {remedy}.")
            self._local.connection = connection
        return connection

    def _rows(self, question: str, values: Sequence[Any] = ()) -> list[Any]:
        if self._closed:
            raise StoreError(f"{self._path} has been closed; open it again to read from it.")
        try:
            return self._reader().execute(question, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be read: {error}.") from error

    def _row(self, question: str, values: Sequence[Any] = ()) -> Any:
        found = self._rows(question, values)
        return found[0] if found else None

    def _one(self, question: str) -> int:
        return int(self._row(question)[0])

    def _pages(self, question: str, after: int, limit: int | None) -> Iterator[Any]:
        left = limit
        while left is None or left > 0:
            rows = self._rows(question, (after, _PAGE if left is None else min(_PAGE, left)))
            yield from rows
            if not rows:
                return
            after, left = rows[-1][0], None if left is None else left - len(rows)


def _quoted(path: Path) -> str:
    return str(path.absolute()).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


def _stored(row: Any) -> Stored:
    seq, event_id, visitor, item, time, action, label, request, received = row
    return Stored(seq, Event(event_id, visitor, item, time, action, label, request), received)


def _shown(row: Any) -> tuple[int, Shown]:
    seq, request, visitor, time, arm, version, items, shadow, explored = row
    known = {} if explored is None else _EXPLORED.decode(explored)
    return seq, Shown(request, visitor, time, arm, version, _ITEMS.decode(items), bool(shadow), known)
