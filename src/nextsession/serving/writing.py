"""What is done to the tables of a `SQLiteStore` inside one transaction."""

from operator import itemgetter
from typing import Any, TypeAlias

import msgspec

from nextsession.serving.adding import ENCODE, Adding
from nextsession.serving.events import NOTHING, Kept, Receipt, digest_of, key_of, latest, record_of

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

_OF_EACH = """SELECT person, json_group_array(json_array(seq, time, received, id, item, action, label)) FROM events
               WHERE action <> 'shown' GROUP BY +person"""  # + : not by the index, which lies in another order
_Told: TypeAlias = tuple[int, int, int, str, str, str, int]
_TOLD = msgspec.json.Decoder(list[_Told]).decode
_RECEIVED, _PLACE = itemgetter(2), itemgetter(1, 0)
_OF_PERSON = "SELECT seq, id, item, time, received, action, label FROM events WHERE person = ? ORDER BY seq"


class Writing(Adding):
    """What else may be done in a transaction: each act reads and writes the tables themselves."""

    def merge(self, visitor: str, into: str) -> int:
        """Give everything of one person to another."""
        self._disturb()
        one, other = self._somebody(visitor), self._somebody(into)
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
        record = record_of(map(_kept, self._do(_OF_PERSON, (other,))), self._rules)
        state = (None, None) if record is NOTHING else (record.touched, ENCODE(record))
        self._do("UPDATE people SET touched = ?, record = ? WHERE person = ?", (*state, other))
        return moved

    def erase(self, visitor: str, now: int) -> Receipt:
        """Remove a person from every table, and leave a tombstone for each of the ids."""
        self._disturb()
        row = self._do("SELECT person FROM visitors WHERE visitor = ?", (visitor,)).fetchone()
        identities, events, shown = [visitor], 0, 0
        if row is not None:
            person = row[0]
            identities = [i for (i,) in self._do("SELECT visitor FROM visitors WHERE person = ?", (person,))]
            events = self._do("DELETE FROM events WHERE person = ?", (person,)).rowcount
            shown = self._do("DELETE FROM shown WHERE person = ?", (person,)).rowcount
            self._do("DELETE FROM visitors WHERE person = ?", (person,))
            self._do("DELETE FROM people WHERE person = ?", (person,))
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
        self._disturb()
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
        """Make all records again from the log.

        SQLite sorts the log by person, beside memory, and hands over what is of one person as one text: a tenth
        of the rows, and nothing is held but the person at hand.
        """
        self._disturb()
        self._do(
            "UPDATE people SET touched = NULL, record = NULL WHERE record IS NOT NULL AND NOT EXISTS "
            "(SELECT 1 FROM events WHERE events.person = people.person AND action <> 'shown')"
        )
        made = (self._made(person, told) for person, told in self._do(_OF_EACH))
        done = self._connection.executemany("UPDATE people SET touched = ?, record = ? WHERE person = ?", made)
        return max(0, done.rowcount)  # -1 if there was nobody

    def _made(self, person: int, told: str) -> tuple[int, bytes, int]:
        """Return the record of a person's events, written as a `Record` is, and when the latest arrived."""
        events = sorted(_TOLD(told))  # as they stand in the log; SQLite promises no order
        run, touched = latest(events, self._rules, _RECEIVED, _PLACE)
        rows = [(time, seq, key_of(name), item, action, label) for seq, time, _, name, item, action, label in run]
        return touched, ENCODE((touched, rows)), person

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

    def _disturb(self) -> None:
        """Forget what is remembered: what follows makes it wrong."""
        self._upset, self._recent, self._last = True, None, None
        self._people, self._records = {}, {}

    def _somebody(self, visitor: str) -> int:
        """Return whose id it is; somebody new if nobody's."""
        found = self._do("SELECT person FROM visitors WHERE visitor = ?", (visitor,)).fetchone()
        if found is not None:
            return int(found[0])
        made = self._do("INSERT INTO people (name) VALUES (?)", (visitor,)).lastrowid
        assert made is not None
        self._do("INSERT INTO visitors VALUES (?, ?)", (visitor, made))
        return made


def _kept(row: Any) -> tuple[Kept, int]:
    seq, event_id, item, time, received, action, label, *_ = row
    return Kept(time, seq, key_of(event_id), item, action, label), received
