"""How a group of events and lists comes into the tables of a `SQLiteStore`: read first, then written table by table.

An event that is there already is rare: a client sends again what it had no answer to.  So nobody looks, and the
table refuses it; then the group is added once more, with care.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from nextsession.serving.events import (
    ACCEPTED,
    DUPLICATE,
    NOTHING,
    Event,
    Outcome,
    Record,
    Rules,
    Shown,
    digest_of,
    kept,
    refusal,
    with_event,
)

RECORDS = msgspec.msgpack.Decoder(Record)
ENCODE = msgspec.msgpack.Encoder().encode
_JSON = msgspec.json.Encoder().encode


class Added(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Events to be added, and when they arrived."""

    events: tuple[Event, ...]
    now: int


Addition: TypeAlias = Added | Shown


class Recent:
    """What a process that alone writes a file remembers of it: whose an id is, and records, as they are on the disk.

    Only the thread that writes changes it, after a commit.  Merges and erasures start another.
    """

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        """Read who was erased, and how far the file is; remember records of at most so many events."""
        self.people: dict[str, int] = {}
        self.records: dict[int, Record] = {}
        self.erased: dict[str, int] = dict(connection.execute("SELECT digest, erased_at FROM tombstones"))
        self.last: tuple[int, int] = connection.execute(_HOW_FAR).fetchone()
        self.room = most

    def learn(self, people: dict[str, int], records: dict[int, Record], last: tuple[int, int]) -> bool:
        """Take what was committed; say whether there was room for it."""
        self.room -= len(people) + sum(len(new.events) - len(self._old(p).events) for p, new in records.items())
        self.records.update(records)
        self.people.update(people)
        self.last = last
        return self.room > 0

    def _old(self, person: int) -> Record:
        return self.records.get(person, NOTHING)


_HOW_FAR = "SELECT seq, (SELECT coalesce(max(person), 0) FROM people) FROM counter"


_HELD = "SELECT 1 FROM events WHERE person = ? AND id = ?"
_MET = "SELECT person, record FROM visitors JOIN people USING (person) WHERE visitor = ?"


class Adding:
    """Adds to the tables within one transaction."""

    def __init__(
        self, connection: sqlite3.Connection, rules: Rules, recent: Recent | None = None, *, careful: bool = True
    ) -> None:
        """Note what is to be written to; nothing is read yet.

        Args:
            connection: In a transaction that somebody else began.
            rules: How much is remembered.
            recent: What is remembered of the file by who alone writes it.
            careful: Look which events are there already; without, one that is there is an error, and nothing is added.
        """
        self._connection, self._do = connection, connection.execute
        self._rules, self._recent = rules, recent
        self._people: dict[str, int] = {}  # ids of visitors met in this transaction
        self._records: dict[int, Record] = {}  # theirs
        self._last: tuple[int, int] | None = None if recent is None else recent.last
        self._upset = False  # has anything happened besides additions?
        self._careful = careful
        self.repeats = False
        """Was an event there already?"""

    def committed(self) -> bool:
        """Let what is remembered follow; say whether it can go on being remembered."""
        if self._upset or self._recent is None or self._last is None:
            return not self._upset
        return self._recent.learn(self._people, self._records, self._last)

    def add_all(self, additions: Sequence[Addition]) -> list[list[Outcome] | None]:
        """Add events to the log and to the records of their visitors, and lists that were shown.

        Returns:
            For each addition what became of its events; None for a list.

        Raises:
            sqlite3.IntegrityError: One was there already, and nobody looked.
        """
        if self._last is None:
            self._last = self._do(_HOW_FAR).fetchone()
        seq, newest = self._last
        events: list[tuple[Any, ...]] = []
        lists: list[tuple[Any, ...]] = []
        here: set[tuple[int, str]] = set()
        newcomers: dict[int, str] = {}
        changed: dict[int, None] = {}

        def person_of(visitor: str) -> int:
            nonlocal newest
            person = self._person(visitor)
            if person is None:
                newest += 1
                person = self._people[visitor] = newest
                self._records[person] = NOTHING
                newcomers[person] = visitor
            return person

        def add(event: Event, now: int) -> Outcome:
            nonlocal seq
            wrong = refusal(event, now, self._erased_at(event.visitor))
            if wrong is not None:
                return wrong
            person = person_of(event.visitor)
            known = person, event.id
            if known in here or (self._careful and self._do(_HELD, known).fetchone()):
                self.repeats = True
                return DUPLICATE
            here.add(known)
            seq += 1
            time = min(event.time, now)
            events.append((seq, *known, event.item, time, now, event.action, event.label, event.request))
            before = self._record(person)
            after = with_event(before, kept(event, seq, now), now, self._rules)
            if after is not before:
                self._records[person] = after
                changed[person] = None
            return ACCEPTED

        found: list[list[Outcome] | None] = []
        for one in additions:
            if isinstance(one, Added):
                found.append([add(event, one.now) for event in one.events])
                continue
            found.append(None)
            erased_at = self._erased_at(one.visitor)
            if erased_at is None or one.time > erased_at:
                seq, person = seq + 1, person_of(one.visitor)
                items, explored = _JSON(one.items), _JSON(one.explored) if one.explored else None
                lists.append((seq, person, one.request, one.time, one.arm, one.version, items, one.shadow, explored))
        if (seq, newest) != self._last:
            self._write(events, lists, newcomers, changed)
            self._do("UPDATE counter SET seq = ?", (seq,))
        self._last = seq, newest
        return found

    # -- inside ---------------------------------------------------------------------------------

    def _write(
        self,
        events: Sequence[tuple[Any, ...]],
        lists: Sequence[tuple[Any, ...]],
        newcomers: dict[int, str],
        changed: Iterable[int],
    ) -> None:
        """Write rows, table by table: so a page that several of them lie on is written once."""
        many = self._connection.executemany
        many("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", events)
        if lists:
            many("INSERT INTO shown VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", lists)
        if newcomers:
            many(
                "INSERT INTO people VALUES (?, ?, ?, ?)", [(p, name, *self._state(p)) for p, name in newcomers.items()]
            )
            many("INSERT INTO visitors VALUES (?, ?)", [(name, person) for person, name in newcomers.items()])
        states = [(*self._state(person), person) for person in changed if person not in newcomers]
        if states:
            many("UPDATE people SET touched = ?, record = ? WHERE person = ?", states)

    def _state(self, person: int) -> tuple[int | None, bytes | None]:
        record = self._records[person]
        return (None, None) if record == NOTHING else (record.touched, ENCODE(record))

    def _person(self, visitor: str) -> int | None:
        """Return whose id it is, and see that the record is at hand; None if it is nobody's."""
        found = self._people.get(visitor)
        if found is None and self._recent is not None:
            found = self._recent.people.get(visitor)
        if found is None and (row := self._do(_MET, (visitor,)).fetchone()) is not None:
            found = self._people[visitor] = int(row[0])
            if found not in self._records:  # else met under another id, and perhaps changed since
                self._records[found] = NOTHING if row[1] is None else RECORDS.decode(row[1])
        return found

    def _record(self, person: int) -> Record:
        found = self._records.get(person)
        return self._recent.records[person] if found is None and self._recent is not None else found or NOTHING

    def _erased_at(self, visitor: str) -> int | None:
        if self._recent is not None:
            return self._recent.erased.get(digest_of(visitor)) if self._recent.erased else None
        row = self._do("SELECT erased_at FROM tombstones WHERE digest = ?", (digest_of(visitor),)).fetchone()
        return None if row is None else int(row[0])
