"""A store in memory: for tests, and to try things out; it forgets everything when the process ends."""

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from msgspec.structs import replace

from nextsession.serving.events import (
    ACCEPTED,
    DUPLICATE,
    NOTHING,
    Event,
    Outcome,
    Receipt,
    Record,
    Rules,
    Shown,
    Stored,
    Tombstone,
    alive,
    digest_of,
    kept,
    record_of,
    refusal,
    taken,
    with_event,
)
from nextsession.serving.store import Known, Store


@dataclass
class _Person:
    """Somebody, under one id or several."""

    name: str
    """The id that the others were merged into."""
    identities: set[str]
    ids: set[str] = field(default_factory=set)
    record: Record = NOTHING


class MemoryStore(Store):
    """Keeps the log in a list; the obvious form of what other stores must do."""

    def __init__(self, rules: Rules | None = None) -> None:
        """Start with nothing."""
        self.rules = rules or Rules()
        self._people: dict[str, _Person] = {}
        self._log: list[tuple[_Person, Stored]] = []
        self._shown: list[tuple[_Person, int, Shown]] = []
        self._tombstones: dict[str, int] = {}
        self._notes: dict[str, str] = {}
        self._seq = 0
        self._rewritten = 0
        self._lock = threading.RLock()

    def submit(self, events: Sequence[Event], now: int) -> "Future[list[Outcome]]":
        """Add events at once."""
        done: Future[list[Outcome]] = Future()
        with self._lock:
            done.set_result([self._add(event, now) for event in events])
        return done

    def _add(self, event: Event, now: int) -> Outcome:
        wrong = refusal(event, now, self._tombstones.get(digest_of(event.visitor)))
        if wrong is not None:
            return wrong
        person = self._person(event.visitor)
        if event.id in person.ids:
            return DUPLICATE
        person.ids.add(event.id)
        self._seq += 1
        self._log.append((person, Stored(self._seq, taken(event, now), now)))
        person.record = with_event(person.record, kept(event, self._seq, now), now, self.rules)
        return ACCEPTED

    def submit_shown(self, shown: Shown) -> None:
        """Add a list that was shown."""
        with self._lock:
            if shown.time > self._tombstones.get(digest_of(shown.visitor), -1):
                self._seq += 1
                self._shown.append((self._person(shown.visitor), self._seq, shown))

    def merge(self, visitor: str, into: str, now: int) -> int:
        """Make two ids one person."""
        with self._lock:
            one, other = self._person(visitor), self._person(into)
            if one is other:
                return 0
            twice = {s.event.id for p, s in self._log if p is one} & other.ids
            self._log = [(p, s) for p, s in self._log if not (p is one and s.event.id in twice)]
            moved = sum(p is one for p, _ in self._log)
            self._rewritten += bool(twice or moved or any(p is one for p, _, _ in self._shown))
            self._log = [(other if p is one else p, s) for p, s in self._log]
            self._shown = [(other if p is one else p, seq, s) for p, seq, s in self._shown]
            other.ids |= one.ids
            other.identities |= one.identities
            for identity in one.identities:
                self._people[identity] = other
            other.record = self._record_of(other)
            return moved

    def erase(self, visitor: str, now: int) -> Receipt:
        """Remove everything about a visitor."""
        with self._lock:
            person = self._people.get(visitor) or _Person(visitor, {visitor})
            events, shown = len(self._log), len(self._shown)
            self._log = [(p, s) for p, s in self._log if p is not person]
            self._shown = [row for row in self._shown if row[0] is not person]
            for identity in person.identities:
                self._people.pop(identity, None)
                self._tombstones[digest_of(identity)] = max(now, self._tombstones.get(digest_of(identity), now))
            self._rewritten += events + shown > len(self._log) + len(self._shown)
            return Receipt(
                digest_of(visitor),
                now,
                events - len(self._log),
                shown - len(self._shown),
                len(person.identities),
            )

    def sweep(self, now: int, *, retention: int | None = None) -> int:
        """Drop the records of visitors that have been silent too long."""
        with self._lock:
            people = self._everybody()
            silent = [p for p in people if p.record is not NOTHING and now - p.record.touched > self.rules.ttl]
            for person in silent:
                person.record = NOTHING
            if retention is not None and self._log:
                oldest = min(now, max(s.received for _, s in self._log)) - retention
                before = len(self._log) + len(self._shown)
                until = next((s.seq for _, s in self._log if oldest <= s.received <= now), 0)
                self._log = [(p, s) for p, s in self._log if s.seq >= until or s.received >= oldest]
                self._shown = [row for row in self._shown if row[1] >= until or row[2].time >= oldest]
                self._rewritten += before > len(self._log) + len(self._shown)
                for person in people:
                    person.ids = {s.event.id for p, s in self._log if p is person}
            return len(silent)

    def rebuild(self) -> int:
        """Make all records again from the log."""
        with self._lock:
            people = self._everybody()
            for person in people:
                person.record = self._record_of(person)
            return sum(person.record is not NOTHING for person in people)

    def _record_of(self, person: _Person) -> Record:
        mine = [s for p, s in self._log if p is person]
        return record_of([(kept(s.event, s.seq, s.received), s.received) for s in mine], self.rules)

    def flush(self) -> None:
        """Do nothing: all is as durable as it gets."""

    def close(self) -> None:
        """Do nothing."""

    def record(self, visitor: str, now: int) -> Record:
        """Return what is remembered of a visitor."""
        person = self._people.get(visitor)
        return NOTHING if person is None else alive(person.record, now, self.rules.ttl)

    def known(self, visitor: str) -> Known | None:
        """Return everything that is held of a visitor."""
        with self._lock:
            person = self._people.get(visitor)
            if person is None:
                return None
            events = tuple(_named(s, person) for p, s in self._log if p is person)
            shown = tuple(replace(s, visitor=person.name) for p, _, s in self._shown if p is person)
            return Known(person.name, tuple(sorted(person.identities)), events, shown)

    def standing(self, visitor: str) -> dict[str, int | None]:
        """Return the ids that a visitor goes by, and when each was erased."""
        person = self._people.get(visitor)
        identities = [visitor] if person is None else sorted(person.identities)
        return {identity: self._tombstones.get(digest_of(identity)) for identity in identities}

    def events(self, after: int = 0, limit: int | None = None) -> Iterator[Stored]:
        """Give the log in the order of arrival."""
        with self._lock:
            found = [_named(s, person) for person, s in self._log if s.seq > after]
        return islice(found, limit)

    def shown(self, after: int = 0, limit: int | None = None) -> Iterator[tuple[int, Shown]]:
        """Give the lists that were shown."""
        with self._lock:
            found = [(seq, replace(s, visitor=person.name)) for person, seq, s in self._shown if seq > after]
        return islice(found, limit)

    def tombstones(self) -> list[Tombstone]:
        """Return who was erased and when."""
        return sorted(Tombstone(digest, when) for digest, when in self._tombstones.items())

    def last(self) -> int:
        """Return the place of the newest entry."""
        return self._seq

    def rewritten(self) -> int:
        """Return how often what stands in the log was changed or removed."""
        return self._rewritten

    def note(self, name: str, value: str | None) -> None:
        """Keep a small text under a name."""
        if value is None:
            self._notes.pop(name, None)
        else:
            self._notes[name] = value

    def noted(self, name: str) -> str | None:
        """Return what was kept under a name."""
        return self._notes.get(name)

    def health(self) -> dict[str, Any]:
        """Return counts."""
        return {
            "kind": "memory",
            "ok": True,
            "events": len(self._log),
            "shown": len(self._shown),
            "visitors": len(self._everybody()),
            "waiting": 0,
            "error": None,
        }

    def _everybody(self) -> list[_Person]:
        return list({id(person): person for person in self._people.values()}.values())

    def _person(self, visitor: str) -> _Person:
        if visitor not in self._people:
            self._people[visitor] = _Person(visitor, {visitor})
        return self._people[visitor]


def _named(stored: Stored, person: _Person) -> Stored:
    return stored._replace(event=replace(stored.event, visitor=person.name))
