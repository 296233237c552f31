"""A store in Redis: durable as that Redis is, shared by the servers of several machines.

One thread of each process writes.  What waits for it goes out together and is acknowledged when Redis
has answered, which under `appendfsync always` is when it is on the disk.  Every call runs a script
inside Redis (`redis.lua`), so that duplicates are noticed and records follow their log in one trip.

When Redis does not answer, nothing waits for it: events are refused at once, records are not asked
for, and the thread that writes tries until all is well again.
"""

import contextlib
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import islice
from typing import Any

import msgspec

from nextsession.errors import StoreError
from nextsession.serving.events import (
    ACCEPTED,
    DUPLICATE,
    NOTHING,
    SHOWN,
    Event,
    Kept,
    Outcome,
    Receipt,
    Record,
    Rules,
    Shown,
    Stored,
    Tombstone,
    alive,
    digest_of,
    key_of,
    refusal,
)
from nextsession.serving.groups import Groups, Job
from nextsession.serving.redis_link import DURABLE, Link, Raw
from nextsession.serving.store import Known, Store

_AGAIN = 0.25
"""Seconds between two tries to reach a Redis that does not answer."""
_SLICE = 1000
"""People or entries that are looked through in one call, so that Redis answers others in between."""

_EVENT = struct.Struct(">QddBI")
_LIST = struct.Struct(">Qd")
_RECORD = struct.Struct(">dI")
_LENGTH = struct.Struct(">I")
_KEY = struct.Struct(">BQ")


class _Entry(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An event of a record, as the script joins it of its place and of what Python wrote."""

    seq: int
    key: int
    time: int
    item: str
    action: str
    label: int


_pack = msgspec.msgpack.Encoder().encode
_entries = msgspec.msgpack.Decoder(list[_Entry])
_packed_event = msgspec.msgpack.Decoder(tuple[int, int, str, str, int])
_packed_list = msgspec.msgpack.Decoder(tuple[str, str, str, tuple[str, ...], bool, dict[str, float]])


class RedisStore(Store):
    """Keeps everything in one database of a Redis.

    Args:
        url: `redis://[[user]:password@]host:port/database`, `rediss://…` for TLS, or `unix:///socket`.
        rules: How much is remembered.
        patience: How long (s) a write waits for Redis.
        waiting: More events than this waiting to be written are refused.
        namespace: What all keys begin with, so that several stores may share a database.

    An event whose future holds an error may have been recorded, if the connection broke in between:
    whoever sends it again is told `duplicate`.
    """

    def __init__(
        self,
        url: str,
        rules: Rules | None = None,
        *,
        patience: float = 5.0,
        waiting: int = 20_000,
        namespace: str = "nextsession",
    ) -> None:
        """Connect.

        Raises:
            StoreError: It cannot be reached, holds another format, or may throw keys away.
            ConfigError: That is no address of a Redis.
        """
        self.rules = rules or Rules()
        self._link = Link(url, patience=patience, namespace=namespace)
        self._groups = Groups(self._link.where, waiting)
        self._counts = {"groups": 0, "events": 0}
        self._thread = threading.Thread(target=self._write, name="store", daemon=True)
        self._thread.start()

    # -- writing --------------------------------------------------------------------------------

    def submit(self, events: Sequence[Event], now: int) -> "Future[list[Outcome]]":
        """Add events; the future is done when Redis has acknowledged them."""
        refused = {place: wrong for place, event in enumerate(events) if (wrong := refusal(event, now, None))}
        told: Raw = [now, self.rules.ttl, self.rules.keep]
        for place, event in enumerate(events):
            if place not in refused:
                told += _told(event, now)

        def outcomes(found: list[bytes]) -> list[Outcome]:
            rest = iter(found)
            return [refused[i] if i in refused else _outcome(next(rest), e, now) for i, e in enumerate(events)]

        return self._submit("add", told, outcomes, len(events))

    def submit_shown(self, shown: Shown) -> None:
        """Add a list that was shown."""
        packed = _pack((shown.request, shown.arm, shown.version, shown.items, shown.shadow, shown.explored))
        with contextlib.suppress(StoreError):  # an answer is worth more than the note that it was given
            self._submit("list", [*_named(shown.visitor), shown.time, packed])

    def merge(self, visitor: str, into: str, now: int) -> int:
        """Make two ids one person."""
        told: Raw = [self.rules.ttl, self.rules.keep, *_named(visitor), *_named(into)]
        return int(self._submit("merge", told).result())

    def erase(self, visitor: str, now: int) -> Receipt:
        """Remove everything about a visitor; Redis then writes its file anew, in the background."""
        events, shown, identities = self._submit("erase", [*_named(visitor), now], after=True).result()
        return Receipt(digest_of(visitor), now, events, shown, identities)

    def sweep(self, now: int, *, retention: int | None = None) -> int:
        """Drop the records of visitors that have been silent too long, some people at a time."""
        before = now - self.rules.ttl
        silent = sum(self._submit("forget", [a, a + _SLICE, before]).result() for a in self._people())
        if retention is not None:
            self._trim(now, retention)
        return int(silent)

    def rebuild(self) -> int:
        """Make all records again from the log, some people at a time."""
        rules: Raw = [self.rules.ttl, self.rules.keep]
        return sum(self._submit("rebuild", [*rules, a, a + _SLICE]).result() for a in self._people())

    def note(self, name: str, value: str | None) -> None:
        """Keep a small text under a name."""
        key = self._link.key("notes")
        self._submit(None, ["HDEL", key, name] if value is None else ["HSET", key, name, value]).result()

    def flush(self) -> None:
        """Wait until everything submitted is durable."""
        self._groups.promised(Job(None, 0)).result()

    def close(self) -> None:
        """Write what waits, and disconnect."""
        if not self._groups.closed:
            self._groups.close()
            self._thread.join()
            self._link.close()

    # -- reading --------------------------------------------------------------------------------

    def record(self, visitor: str, now: int) -> Record:
        """Return what is remembered of a visitor."""
        found = self._run("record", [_raw(visitor)], quick=True)
        if found is None:
            return NOTHING
        touched, number = _RECORD.unpack_from(found)
        entries = _entries.decode(b"\xdd" + _LENGTH.pack(number) + found[_RECORD.size :])
        events = tuple([Kept(e.time, e.seq, e.key, e.item, e.action, e.label) for e in entries])
        return alive(Record(int(touched), events), now, self.rules.ttl)

    def known(self, visitor: str) -> Known | None:
        """Return everything that is held of a visitor."""
        found = self._run("known", [_raw(visitor)])
        if found is None:
            return None
        name, names, events, shown = found
        told = sorted(_stored(seq, name, entry) for seq, entry in _pairs(events))
        listed = sorted((_shown(seq, name, entry) for seq, entry in _pairs(shown)), key=lambda row: row[0])
        return Known(_id(name), tuple(sorted(map(_id, names))), tuple(told), tuple(one for _, one in listed))

    def standing(self, visitor: str) -> dict[str, int | None]:
        """Return the ids that a visitor goes by, and when each was erased."""
        pairs = _pairs(self._run("standing", _named(visitor), quick=True))
        return {_id(name): None if when is None else int(when) for name, when in sorted(pairs)}

    def events(self, after: int = 0, limit: int | None = None) -> Iterator[Stored]:
        """Give the log in the order of arrival."""
        return islice((_stored(*row) for row in self._pages("events", after)), limit)

    def shown(self, after: int = 0, limit: int | None = None) -> Iterator[tuple[int, Shown]]:
        """Give the lists that were shown."""
        return islice((_shown(*row) for row in self._pages("shown", after)), limit)

    def tombstones(self) -> list[Tombstone]:
        """Return who was erased and when."""
        found = self._read(lambda redis: redis.hgetall(self._link.key("tombstones")))
        return sorted(Tombstone(digest.decode(), int(when)) for digest, when in found.items())

    def last(self) -> int:
        """Return the place of the newest entry."""
        return self._numbers("seq")[0]

    def rewritten(self) -> int:
        """Return how often what stands in the log was changed or removed."""
        return self._numbers("rewritten")[0]

    def noted(self, name: str) -> str | None:
        """Return what was kept under a name."""
        found = self._read(lambda redis: redis.hget(self._link.key("notes"), name))
        return None if found is None else str(found, "utf-8")

    def health(self) -> dict[str, Any]:
        """Return counts (of this process where it writes), sizes and the last error; it never fails."""
        facts: dict[str, Any] = {"kind": "redis", "waiting": self._groups.waiting, **self._counts}
        with contextlib.suppress(StoreError):
            facts["entries"], facts["visitors"] = self._numbers("seq", "people")
            facts["bytes"] = self._read(lambda redis: redis.info("memory"))["used_memory"]
        error, durable = self._link.error, self._link.durable
        return {**facts, "ok": not error, "error": error or None, "durable": f"{durable}: {DURABLE[durable]}"}

    # -- inside ---------------------------------------------------------------------------------

    def _trim(self, now: int, retention: int) -> None:
        """Remove what arrived more than so long (ms) before the newest event and the instant, from the oldest on."""
        first, last = self._numbers("first", "seq")
        slices = [(start, min(start + _SLICE, last + 1)) for start in range(max(first, 1), last + 1, _SLICE)]
        pages = (self._run("page", ["events", *ends]) for ends in reversed(slices))
        newest = next((rows for rows in pages if rows), None)
        if newest is None:
            return
        before = min(now, max(_EVENT.unpack_from(entry)[1] for entry in newest[2::3])) - retention
        entries = ((int(seq), _EVENT.unpack_from(entry)[1]) for seq, _, entry in self._pages("events", 0))
        until = next((seq for seq, received in entries if before <= received <= now), 0)
        kept = False
        for start, stop in ((a, min(b, until)) for a, b in slices if a < until):
            kept = bool(self._submit("trim", [start, stop, before]).result()) or kept
            if not kept:
                self._submit(None, ["SET", self._link.key("first"), stop]).result()

    def _numbers(self, *names: str) -> list[int]:
        """Return some of the counters; those that nobody set are 0."""
        keys = [self._link.key(name) for name in names]
        return [int(number or 0) for number in self._read(lambda redis: redis.mget(keys))]

    def _people(self) -> range:
        """Return the first number of each slice of people."""
        return range(1, self._numbers("people")[0] + 1, _SLICE)

    def _pages(self, kind: str, after: int) -> Iterator[tuple[bytes, bytes, bytes]]:
        """Give the place, the name of the person and the entry, for each entry of a log."""
        first, last = self._numbers("first", "seq")
        for start in range(max(after + 1, first), last + 1, _SLICE):
            rows = self._run("page", [kind, start, min(start + _SLICE, last + 1)])
            yield from zip(rows[::3], rows[1::3], rows[2::3], strict=True)

    def _run(self, what: str, told: Raw, *, quick: bool = False) -> Any:
        return self._asked(lambda: self._link.run(what, told, quick=quick))

    def _read(self, ask: Callable[[Any], Any]) -> Any:
        return self._asked(lambda: self._link.read(ask))

    def _asked(self, ask: Callable[[], Any]) -> Any:
        if self._groups.closed:
            raise StoreError(f"{self._link.where} has been closed; open it again to read from it.")
        blind = self._link.blind
        try:
            return ask()
        except StoreError:
            if self._link.blind and not blind:
                self._groups.put(Job(None, 0))  # wakes the thread that writes, which tries again
            raise

    def _submit(
        self,
        what: str | None,
        told: Raw,
        made: Callable[[Any], Any] = lambda found: found,
        weight: int = 1,
        *,
        after: bool = False,
    ) -> "Future[Any]":
        link = self._link
        if link.down:
            raise StoreError(f"{link.where} does not answer: {link.error}. Nothing was recorded; send it again.")
        return self._groups.promised(Job(((what, told), made), weight, after=after))

    def _write(self) -> None:
        link, running = self._link, True
        while running:
            trying = link.down or link.blind
            jobs, running = self._groups.taken(_AGAIN if trying else 1.0 if link.rewrite else None)
            work = [job for job in jobs if job.work is not None]
            if work:
                self._send(work)
            elif trying and running:
                link.try_again()
            self._groups.settle([job for job in jobs if job.work is None], [None] * (len(jobs) - len(work)))
            link.rewrite = link.rewrite or any(job.after for job in work)
            link.rewrite_file()

    def _send(self, jobs: list[Job]) -> None:
        """Send all jobs at once; each is done or fails alone."""
        found = self._link.replies([job.work[0] for job in jobs])
        if not any(isinstance(one, Exception) for one in found):
            self._counts["groups"] += 1
            self._counts["events"] += sum(job.weight for job in jobs)
        self._groups.settle(jobs, [self._result(job, one) for job, one in zip(jobs, found, strict=True)])

    def _result(self, job: Job, found: Any) -> Any:
        if not isinstance(found, Exception):
            return job.work[1](found)
        failure = StoreError(f"{self._link.where} cannot be written: {found}. Send it again, with the same ids.")
        failure.__cause__ = found
        return failure


# -- bytes: see `redis.lua` ---------------------------------------------------------------------


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _id(text: bytes) -> str:
    return text.decode("utf-8", "surrogatepass")


def _named(visitor: str) -> Raw:
    return [_raw(visitor), digest_of(visitor)]


def _pairs(flat: list[Any]) -> Iterator[tuple[Any, Any]]:
    return zip(flat[::2], flat[1::2], strict=True)


def _told(event: Event, now: int) -> Raw:
    """Return an event as the script takes it."""
    at = min(event.time, now)
    try:
        packed = _KEY.pack(0xCF, key_of(event.id)) + b"".join(map(_pack, (at, event.item, event.action, event.label)))
    except UnicodeEncodeError as error:
        raise StoreError(f"An event of {event.item!r} cannot be written: {error}. Nothing was recorded.") from error
    return [*_named(event.visitor), at, int(event.action != SHOWN), _raw(event.id), packed, _raw(event.request)]


def _outcome(status: bytes, event: Event, now: int) -> Outcome:
    if status == b"refused":
        wrong = refusal(event, now, now)
        assert wrong is not None
        return wrong
    return ACCEPTED if status == b"accepted" else DUPLICATE


def _stored(seq: bytes, name: bytes, entry: bytes) -> Stored:
    _, received, _, _, length = _EVENT.unpack_from(entry)
    end = _EVENT.size + length
    packed = end + _LENGTH.size
    request = packed + _LENGTH.unpack_from(entry, end)[0]
    _, at, item, action, label = _packed_event.decode(b"\x95" + entry[packed:request])
    event = Event(_id(entry[_EVENT.size : end]), _id(name), item, at, action, label, _id(entry[request:]))
    return Stored(int(seq), event, int(received))


def _shown(seq: bytes, name: bytes, entry: bytes) -> tuple[int, Shown]:
    _, at = _LIST.unpack_from(entry)
    request, arm, version, items, shadow, explored = _packed_list.decode(entry[_LIST.size :])
    return int(seq), Shown(request, _id(name), int(at), arm, version, items, shadow, explored)
