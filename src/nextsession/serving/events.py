"""What a server remembers of a visitor: events, the record that answers need, tombstones.

Pure values and functions: no file, no clock.  Stores share them, so that all follow the same rules:

* an event is known by its visitor and its id; a second arrival changes nothing;
* events stand in the order of their times, whatever the order of arrival; ties in that of arrival;
* no event is later than its arrival: clocks of visitors that run ahead are set to ours, and one that
  is a day ahead is taken for broken;
* what happened up to the erasure of a visitor is refused for ever, however often it is sent again.
"""

import bisect
import hashlib
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Literal, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

T = TypeVar("T")

DAY = 86_400_000

_PLACE = attrgetter("time", "seq")

SHOWN = "shown"
"""The action of an item that was shown: it is kept in the log for training, never in a record."""


class Event(msgspec.Struct, frozen=True, gc=False):
    """One thing one visitor did with one item at one time."""

    id: str
    """The key by which a second arrival is noticed."""
    visitor: str
    item: str
    time: int
    """Milliseconds since 1970 UTC, by the clock of whoever saw it happen."""
    action: str = "click"
    label: int = 1
    """1: wanted; 0: shown and ignored, or disliked."""
    request: str = ""
    """The answer that showed the item, if the event came of one."""


class Kept(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An event as it stands in a record."""

    time: int
    seq: int
    """Its place in the log of all events."""
    key: int
    """What is left of its id: 63 bits of a hash."""
    item: str
    action: str
    label: int


class Record(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The latest events of a visitor, oldest first: all that an answer needs."""

    touched: int = 0
    """When the latest event arrived (ms)."""
    events: tuple[Kept, ...] = ()


NOTHING = Record()


class Stored(NamedTuple):
    """An event as it stands in the log."""

    seq: int
    event: Event
    received: int


class Shown(msgspec.Struct, frozen=True):
    """A list that was shown: the impressions of one answer, in the order of their positions."""

    request: str
    visitor: str
    time: int
    arm: str
    version: str
    items: tuple[str, ...]
    shadow: bool = False
    """It was not shown: it is what a model that answers nobody would have listed.  No impression, no negative."""
    explored: dict[str, float] = {}
    """Items that were tried out, each with its propensity: the probability that it would stand where it stood."""


class Outcome(msgspec.Struct, frozen=True, gc=False):
    """What became of an event."""

    status: Literal["accepted", "duplicate", "refused"]
    reason: str = ""


ACCEPTED, DUPLICATE = Outcome("accepted"), Outcome("duplicate")


class Receipt(msgspec.Struct, frozen=True):
    """What an erasure removed, and the name under which it can be proved."""

    tombstone: str
    """The SHA-256 of the visitor's id: training leaves out whoever has one."""
    erased_at: int
    events: int
    impressions: int
    identities: int
    """Ids of visitors that were erased together: those merged into one."""


class Tombstone(NamedTuple):
    """Says that everything a visitor did up to an instant was erased."""

    digest: str
    erased_at: int


class Rules(msgspec.Struct, frozen=True):
    """How much is remembered and for how long."""

    ttl: int = 30 * DAY
    """A visitor silent for longer than this (ms) is unknown; the log keeps the events for training."""
    keep: int = 200
    """Only so many latest events are in a record."""


def digest_of(visitor: str) -> str:
    """Return the SHA-256 of an id, under which its tombstone stands."""
    return hashlib.sha256(visitor.encode("utf-8", "surrogatepass")).hexdigest()


def key_of(event_id: str) -> int:
    """Return 63 bits of a hash of an event's id.

    >>> key_of("a") == key_of("a") != key_of("b")
    True
    """
    hashed = hashlib.blake2b(event_id.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(hashed, "big") >> 1


def refusal(event: Event, now: int, erased_at: int | None) -> Outcome | None:
    """Return why an event cannot be taken, or None."""
    if event.time > now + DAY:
        return Outcome("refused", f"time must be at most a day ahead of the server's {now}, got {event.time}")
    if erased_at is not None and min(event.time, now) <= erased_at:
        return Outcome("refused", "the visitor was erased after this event; send only what happened since")
    return None


def taken(event: Event, now: int) -> Event:
    """Return an event as the log holds it: never later than its arrival."""
    return event if event.time <= now else replace(event, time=now)


def kept(event: Event, seq: int, now: int) -> Kept:
    """Return an event as a record holds it."""
    return Kept(min(event.time, now), seq, key_of(event.id), event.item, event.action, event.label)


def with_event(record: Record, one: Kept, received: int, rules: Rules) -> Record:
    """Return the record with an event in its place; the same record if it is there already.

    >>> early, late = Kept(1, 2, 7, "tea", "click", 1), Kept(5, 1, 8, "milk", "click", 1)
    >>> [e.item for e in with_event(with_event(NOTHING, late, 5, Rules()), early, 6, Rules()).events]
    ['tea', 'milk']
    """
    if one.action == SHOWN:
        return record
    events = alive(record, received, rules.ttl).events
    if any(e.key == one.key for e in events):
        return record
    touched = max(record.touched, received)
    if not events or (events[-1].time, events[-1].seq) < (one.time, one.seq):
        return Record(touched, (*events, one)[-rules.keep :])
    place = bisect.bisect_right(events, (one.time, one.seq), key=lambda e: (e.time, e.seq))
    if place == 0 and len(events) >= rules.keep:  # older than all that is kept
        return Record(touched, events)
    return Record(touched, (*events[:place], one, *events[place:])[-rules.keep :])


def latest(
    events: Sequence[T], rules: Rules, received: Callable[[T], int], place: Callable[[T], Any]
) -> tuple[list[T], int]:
    """Return which events a record holds, oldest first, and when the last of them arrived.

    Args:
        events: All of a visitor, in the order of the log, but for what was only shown.
        rules: How much is remembered.
        received: When an event arrived.
        place: Where it stands: its time, and its place in the log.
    """
    arrivals = list(map(received, events))
    first, touched = 0, max(arrivals, default=0)
    if arrivals and touched - min(arrivals) > rules.ttl:  # else there was no such silence
        before = 0
        for number, now in enumerate(arrivals):
            if now - before > rules.ttl:
                first = number
            before = max(before, now)
    return sorted(events[first:], key=place)[-rules.keep :], max(touched, 0)


def record_of(events: Iterable[tuple[Kept, int]], rules: Rules) -> Record:
    """Return the record of events, each with when it arrived, in the order of the log: what a rebuild makes of it."""
    wanted = [event for event in events if event[0].action != SHOWN]
    run, touched = latest(wanted, rules, itemgetter(1), lambda event: _PLACE(event[0]))
    return Record(touched, tuple(one for one, _ in run)) if run else NOTHING


def alive(record: Record, now: int, ttl: int) -> Record:
    """Return the record, or an empty one if the visitor has been silent for too long."""
    return record if now - record.touched <= ttl else NOTHING
