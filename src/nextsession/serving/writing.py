"""What is done to the tables of a `SQLiteStore` inside one transaction."""

import gc
import sqlite3
from typing import Any

import msgspec

from nextsession.serving.events import (
    ACCEPTED,
    DUPLICATE,
    NOTHING,
    Event,
    Kept,
    Outcome,
    Receipt,
    Record,
    Rules,
    Shown,
    digest_of,
    kept,
    key_of,
    record_of,
    refusal,
    with_event,
)

REWRITTEN = "rewritten"
"""The note of how often what stands in the log was changed or removed."""
VERSION = 3
SCHEMA = (
    """CREATE TABLE events (seq INTEGER PRIMARY KEY, person INTEGER NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL,
       time INTEGER NOT NULL, received INTEGER NOT NULL, action TEXT NOT NULL, label INTEGER NOT NULL,
       request TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX event_ids ON events (person, id)",
    """CREATE TABLE shown (seq INTEGER PRIMARY KEY, person INTEGER NOT NULL, request TEXT NOT NULL,
       time INTEGER NOT NULL, arm TEXT NOT NULL, version TEXT NOT NULL, items BLOB NOT NULL,
       shadow INTEGER NOT NULL DEFAULT 0, explored BLOB)""",
    "CREATE INDEX shown_to ON shown (person)",
    "CREATE TABLE visitors (visitor TEXT PRIMARY KEY, person INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX identities ON visitors (person)",
    "CREATE TABLE people (person INTEGER PRIMARY KEY, name TEXT NOT NULL, touched INTEGER, record BLOB)",
    "CREATE TABLE tombstones (digest TEXT PRIMARY KEY, erased_at INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE notes (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    "CREATE TABLE counter (seq INTEGER NOT NULL)",
    "INSERT INTO counter VALUES (0)",
)
SINCE = {
    1: ("ALTER TABLE shown ADD COLUMN shadow INTEGER NOT NULL DEFAULT 0",),
    2: ("ALTER TABLE shown ADD COLUMN explored BLOB",),
}
"""What makes a file of each older version one of the next."""

RECORDS = msgspec.msgpack.Decoder(Record)
_ENCODE = msgspec.msgpack.Encoder().encode
_JSON = msgspec.json.Encoder().encode
_OF_SOME = """SELECT seq, id, item, time, received, action, label, person FROM events
               WHERE +person >= ? AND +person < ? ORDER BY seq"""  # + : not by the index, which lies in another order
_AT_ONCE = 250_000
"""Events that are held in memory while records are made again, about."""
_OF_PERSON = "SELECT seq, id, item, time, received, action, label FROM events WHERE person = ? ORDER BY seq"


class Recent:
    """What a process that alone writes a file remembers of it: whose an id is, and records, as they are on the disk.

    Only the thread that writes changes it, after a commit.  Merges and erasures start another.
    """

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        """Read who was erased; remember records of at most so many events."""
        self.people: dict[str, int] = {}
        self.records: dict[int, Record] = {}
        self.erased: dict[str, int] = dict(connection.execute("SELECT digest, erased_at FROM tombstones"))
        self.room = most

    def learn(self, people: dict[str, int], records: dict[int, Record]) -> bool:
        """Take what was committed; say whether there was room for it."""
        self.room -= len(people) + sum(len(new.events) - len(self._old(p).events) for p, new in records.items())
        self.records.update(records)
        self.people.update(people)
        return self.room > 0

    def _old(self, person: int) -> Record:
        return self.records.get(person, NOTHING)


class Writing:
    """One transaction; records are written once, at its end, however many events they gained."""

    def __init__(self, connection: sqlite3.Connection, rules: Rules, recent: Recent | None = None) -> None:
        """Begin: somebody else has begun the transaction."""
        self._do, self._many = connection.execute, connection.executemany
        self._rules = rules
        self._recent = recent
        self._seq: int = self._do("SELECT seq FROM counter").fetchone()[0]
        self._before = self._seq
        self._people: dict[str, int] = {}  # ids of visitors met in this transaction
        self._records: dict[int, Record] = {}
        self._changed: set[int] = set()
        self._upset = False  # has anything happened besides new events?

    def committed(self) -> bool:
        """Let what is remembered follow; say whether it can go on being remembered."""
        return not self._upset and (self._recent is None or self._recent.learn(self._people, self._records))

    def finish(self) -> None:
        """Write what was held back."""
        for person in self._changed:
            record = self._records[person]
            row = (None, None) if record == NOTHING else (record.touched, _ENCODE(record))
            self._do("UPDATE people SET touched = ?, record = ? WHERE person = ?", (*row, person))
        if self._seq != self._before:
            self._do("UPDATE counter SET seq = ?", (self._seq,))

    def add(self, event: Event, now: int) -> Outcome:
        """Add an event to the log and to the record of its visitor."""
        wrong = refusal(event, now, self._erased_at(event.visitor))
        if wrong is not None:
            return wrong
        person = self._person(event.visitor)
        seq = self._seq + 1
        added = self._do(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (
                seq,
                person,
                event.id,
                event.item,
                min(event.time, now),
                now,
                event.action,
                event.label,
                event.request,
            ),
        ).rowcount
        if added < 1:
            return DUPLICATE
        self._seq = seq
        before = self._record(person)
        after = with_event(before, kept(event, seq, now), now, self._rules)
        if after is not before:
            self._records[person] = after
            self._changed.add(person)
        return ACCEPTED

    def add_shown(self, shown: Shown) -> None:
        """Add a list that was shown, unless its visitor has been erased since."""
        erased_at = self._erased_at(shown.visitor)
        if erased_at is not None and shown.time <= erased_at:
            return
        self._seq += 1
        self._do(
            "INSERT INTO shown VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                self._seq,
                self._person(shown.visitor),
                shown.request,
                shown.time,
                shown.arm,
                shown.version,
                _JSON(shown.items),
                shown.shadow,
                _JSON(shown.explored) if shown.explored else None,
            ),
        )

    def merge(self, visitor: str, into: str) -> int:
        """Give everything of one person to another."""
        self._upset, self._recent = True, None
        one, other = self._person(visitor), self._person(into)
        if one == other:
            return 0
        twice = self._do(
            "DELETE FROM events WHERE person = ? AND id IN (SELECT id FROM events WHERE person = ?)", (one, other)
        ).rowcount
        moved: int = self._do("UPDATE events SET person = ? WHERE person = ?", (other, one)).rowcount
        shown = self._do("UPDATE shown SET person = ? WHERE person = ?", (other, one)).rowcount
        self._rewrote(twice + moved + shown)
        self._do("UPDATE visitors SET person = ? WHERE person = ?", (other, one))
        self._do("DELETE FROM people WHERE person = ?", (one,))
        self._people = {name: other if person == one else person for name, person in self._people.items()}
        self._changed.discard(one)
        self._records.pop(one, None)
        self._records[other] = record_of(map(_kept, self._do(_OF_PERSON, (other,))), self._rules)
        self._changed.add(other)
        return moved

    def erase(self, visitor: str, now: int) -> Receipt:
        """Remove a person from every table, and leave a tombstone for each of the ids."""
        self._upset, self._recent = True, None
        row = self._do("SELECT person FROM visitors WHERE visitor = ?", (visitor,)).fetchone()
        identities, events, shown = [visitor], 0, 0
        if row is not None:
            person = row[0]
            identities = [i for (i,) in self._do("SELECT visitor FROM visitors WHERE person = ?", (person,))]
            events = self._do("DELETE FROM events WHERE person = ?", (person,)).rowcount
            shown = self._do("DELETE FROM shown WHERE person = ?", (person,)).rowcount
            self._do("DELETE FROM visitors WHERE person = ?", (person,))
            self._do("DELETE FROM people WHERE person = ?", (person,))
            self._people = {name: p for name, p in self._people.items() if p != person}
            self._records.pop(person, None)
            self._changed.discard(person)
            self._rewrote(events + shown)
        for identity in identities:
            self._do(
                "INSERT INTO tombstones VALUES (?, ?) "
                "ON CONFLICT DO UPDATE SET erased_at = max(erased_at, excluded.erased_at)",
                (digest_of(identity), now),
            )
        return Receipt(digest_of(visitor), now, events, shown, len(identities))

    def forget(self, start: int, stop: int, before: int) -> int:
        """Drop the records of people `start..stop` that were last heard of before an instant."""
        self._upset, self._recent = True, None
        self.finish()
        self._records, self._changed, self._before = {}, set(), self._seq
        done: int = self._do(
            "UPDATE people SET touched = NULL, record = NULL WHERE person >= ? AND person < ? AND touched < ?",
            (start, stop, before),
        ).rowcount
        return done

    def trim(self, start: int, stop: int, before: int) -> None:
        """Remove entries `start..stop` of the log that arrived before an instant."""
        wheres = ("events WHERE seq >= ? AND seq < ? AND received < ?", "shown WHERE seq >= ? AND seq < ? AND time < ?")
        self._rewrote(sum(self._do(f"DELETE FROM {where}", (start, stop, before)).rowcount for where in wheres))

    def rebuild(self) -> int:
        """Make all records again from the log."""
        self._upset, self._recent = True, None
        self._records, self._changed = {}, set()
        self._do("UPDATE people SET touched = NULL, record = NULL WHERE record IS NOT NULL")
        people, events = self._do("SELECT (SELECT max(person) FROM people), (SELECT count(*) FROM events)").fetchone()
        step = 1 + (people or 0) // (1 + events // _AT_ONCE)
        collected = gc.isenabled()
        gc.disable()  # what is made lives until it is written: to look through it over and over takes as long again
        try:
            return sum(self._rebuild(start, start + step) for start in range(0, (people or 0) + 1, step))
        finally:
            if collected:
                gc.enable()

    def _rebuild(self, start: int, stop: int) -> int:
        """Make the records of people `start..stop`; to read the log as it lies is faster than to have it sorted."""
        events: dict[int, list[Any]] = {}
        for row in self._do(_OF_SOME, (start, stop)):
            events.setdefault(row[7], []).append(row)
        records = [(record_of(map(_kept, mine), self._rules), person) for person, mine in events.items()]
        made = [(r.touched, _ENCODE(r), person) for r, person in records if r is not NOTHING]
        self._many("UPDATE people SET touched = ?, record = ? WHERE person = ?", made)
        return len(made)

    def note(self, name: str, value: str | None) -> None:
        """Keep a small text under a name."""
        if value is None:
            self._do("DELETE FROM notes WHERE name = ?", (name,))
        else:
            self._do("INSERT INTO notes VALUES (?, ?) ON CONFLICT DO UPDATE SET value = excluded.value", (name, value))

    def _rewrote(self, entries: int) -> None:
        """Note that entries of the log were changed or removed, if any were."""
        if entries:
            self._do(
                "INSERT INTO notes VALUES (?, '1') ON CONFLICT DO UPDATE SET value = CAST(value AS INTEGER) + 1",
                (REWRITTEN,),
            )

    def _erased_at(self, visitor: str) -> int | None:
        if self._recent is not None:
            return self._recent.erased.get(digest_of(visitor)) if self._recent.erased else None
        row = self._do("SELECT erased_at FROM tombstones WHERE digest = ?", (digest_of(visitor),)).fetchone()
        return None if row is None else int(row[0])

    def _person(self, visitor: str) -> int:
        """Return whose id it is; somebody new if nobody's."""
        found = self._people.get(visitor)
        if found is None and self._recent is not None:
            found = self._recent.people.get(visitor)
        if found is None:
            row = self._do("SELECT person FROM visitors WHERE visitor = ?", (visitor,)).fetchone()
            if row is None:
                made = self._do("INSERT INTO people (name) VALUES (?)", (visitor,)).lastrowid
                assert made is not None
                found = made
                self._do("INSERT INTO visitors VALUES (?, ?)", (visitor, found))
                self._records[found] = NOTHING
            else:
                found = int(row[0])
            self._people[visitor] = found
        return found

    def _record(self, person: int) -> Record:
        found = self._records.get(person)
        if found is None and self._recent is not None:
            found = self._recent.records.get(person)
        if found is None:
            row = self._do("SELECT record FROM people WHERE person = ?", (person,)).fetchone()
            found = NOTHING if row is None or row[0] is None else RECORDS.decode(row[0])
            self._records[person] = found
        return found


def _kept(row: Any) -> tuple[Kept, int]:
    seq, event_id, item, time, received, action, label, *_ = row
    return Kept(time, seq, key_of(event_id), item, action, label), received
