"""How a group of events and lists comes into the tables of a `SQLiteStore`: in one statement.

Python lets go of the interpreter at every statement, and a thread that wants it back waits for the one that
answers questions, up to the switch interval each time.  So what the group needs to know is asked at
once, and all its rows, of whichever table, are put through one view whose triggers know where they belong.
"""

import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any, NamedTuple, TypeAlias

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

_EVENT, _SHOWN, _NEWCOMER, _RECORD, _LAST = range(1, 6)
_COLUMNS = "abcdefghi"
ENTRIES = (
    f"CREATE TEMP VIEW entries (kind, {', '.join(_COLUMNS)}) AS SELECT {', '.join(['NULL'] * (1 + len(_COLUMNS)))}",
    *(
        f"CREATE TEMP TRIGGER of_kind_{kind} INSTEAD OF INSERT ON entries WHEN new.kind = {kind} BEGIN {what}; END"
        for kind, what in {
            _EVENT: "INSERT INTO events VALUES (new.a, new.b, new.c, new.d, new.e, new.f, new.g, new.h, new.i)",
            _SHOWN: "INSERT INTO shown VALUES (new.a, new.b, new.c, new.d, new.e, new.f, new.g, new.h, new.i)",
            _NEWCOMER: "INSERT INTO people VALUES (new.a, new.b, new.c, new.d); "
            "INSERT INTO visitors VALUES (new.b, new.a)",
            _RECORD: "UPDATE people SET touched = new.b, record = new.c WHERE person = new.a",
            _LAST: "UPDATE counter SET seq = new.a",
        }.items()
    ),
)
"""What a connection must have that adds: a view that takes rows of all tables, each row with its kind."""

_NONE = (None,) * len(_COLUMNS)
_AT_ONCE = 512
"""Rows of a statement at most."""


class Added(NamedTuple):
    """Events to be added, and when they arrived."""

    events: Sequence[Event]
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


_ENTER = "INSERT INTO entries VALUES %s"
_HELD = (
    "SELECT person, id FROM (VALUES %s) AS asked CROSS JOIN events ON person = asked.column1 AND id = asked.column2"
)
_MET = "SELECT visitor, person, record FROM visitors JOIN people USING (person) WHERE visitor IN %s"
_ERASED = "SELECT digest, erased_at FROM tombstones WHERE digest IN %s"


class Adding:
    """Adds to the tables within one transaction; somebody else begins it, or the one statement is one by itself."""

    def __init__(
        self, connection: sqlite3.Connection, rules: Rules, recent: Recent | None = None, *, careful: bool = True
    ) -> None:
        """Note what is to be written to; nothing is read yet.

        Args:
            connection: Has the view that `ENTRIES` make.
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
        events = [event for one in additions if isinstance(one, Added) for event in one.events]
        visitors = dict.fromkeys([e.visitor for e in events] + [s.visitor for s in additions if isinstance(s, Shown)])
        erased, rows = self._erased(visitors), list[Sequence[Any]]()
        self._meet(visitors)
        held = self._held(events) if self._careful else set()
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
            wrong = refusal(event, now, erased.get(event.visitor))
            if wrong is not None:
                return wrong
            person = person_of(event.visitor)
            if (person, event.id) in held:
                self.repeats = True
                return DUPLICATE
            held.add((person, event.id))
            seq += 1
            time = min(event.time, now)
            rows.append(
                (_EVENT, seq, person, event.id, event.item, time, now, event.action, event.label, event.request)
            )
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
            erased_at = erased.get(one.visitor)
            if erased_at is None or one.time > erased_at:
                person = person_of(one.visitor)
                seq += 1
                explored = _JSON(one.explored) if one.explored else None
                items = _JSON(one.items)
                rows.append(
                    (_SHOWN, seq, person, one.request, one.time, one.arm, one.version, items, one.shadow, explored)
                )
        for person in dict.fromkeys([*newcomers, *changed]):
            record = self._records[person]
            state = (None, None) if record == NOTHING else (record.touched, ENCODE(record))
            name = newcomers.get(person)
            if name is None:
                rows.append((_RECORD, person, *state, *_NONE[:6]))
            else:
                rows.append((_NEWCOMER, person, name, *state, *_NONE[:5]))
        if rows:
            rows.append((_LAST, seq, *_NONE[:8]))
            self._put(rows)
        self._last = seq, newest
        return found

    # -- inside ---------------------------------------------------------------------------------

    def _put(self, rows: Sequence[Sequence[Any]]) -> None:
        """Write rows; if it takes more than one statement, in a transaction."""
        if len(rows) > _AT_ONCE and not self._connection.in_transaction:
            self._do("BEGIN IMMEDIATE")
        width = 1 + len(_COLUMNS)
        for start in range(0, len(rows), _AT_ONCE):
            some = rows[start : start + _AT_ONCE]
            number = _rounded(len(some))
            values = list(chain.from_iterable(some))
            values += (None,) * (width * (number - len(some)))
            self._do(_statement(_ENTER, number, width), values)

    def _person(self, visitor: str) -> int | None:
        found = self._people.get(visitor)
        return self._recent.people.get(visitor) if found is None and self._recent is not None else found

    def _record(self, person: int) -> Record:
        found = self._records.get(person)
        return self._recent.records[person] if found is None and self._recent is not None else found or NOTHING

    def _meet(self, visitors: Iterable[str]) -> None:
        """Read whose ids these are, and their records, unless they are remembered."""
        strangers = [visitor for visitor in visitors if self._person(visitor) is None]
        for visitor, person, record in self._asked(_MET, strangers):
            self._people[visitor] = person
            self._records[person] = NOTHING if record is None else RECORDS.decode(record)

    def _held(self, events: Iterable[Event]) -> set[tuple[int, str]]:
        """Return which events the log holds already, by person and id."""
        pairs = [(person, e.id) for e in events if (person := self._person(e.visitor)) is not None]
        found: set[tuple[int, str]] = set()
        for start in range(0, len(pairs), _AT_ONCE):
            some = pairs[start : start + _AT_ONCE]
            number = _rounded(len(some))
            values = [value for pair in some for value in pair] + [None] * (2 * (number - len(some)))
            found.update(self._do(_statement(_HELD, number, 2), values))
        return found

    def _erased(self, visitors: Iterable[str]) -> dict[str, int]:
        """Return when visitors were erased, those who were."""
        if self._recent is not None and not self._recent.erased:
            return {}
        names = {digest_of(visitor): visitor for visitor in visitors}
        if self._recent is not None:
            stones = self._recent.erased
            return {name: stones[digest] for digest, name in names.items() if digest in stones}
        rows = self._asked(_ERASED, list(names))
        return {names[digest]: erased_at for digest, erased_at in rows}

    def _asked(self, question: str, values: Sequence[str]) -> list[Any]:
        rows: list[Any] = []
        for start in range(0, len(values), _AT_ONCE):
            some = values[start : start + _AT_ONCE]
            number = _rounded(len(some))
            rows += self._do(_statement(question, 1, number), [*some, *[None] * (number - len(some))])
        return rows


def _rounded(number: int) -> int:
    """Return the power of two that is not below a number: so few statements are kept ready for all of them."""
    return 1 << (number - 1).bit_length()


@cache
def _statement(text: str, rows: int, columns: int) -> str:
    """Return a statement with places for values, `(?, ?), (?, ?)`: always the same, so that it is found prepared."""
    return text % ",".join(["(" + ",".join("?" * columns) + ")"] * rows)
