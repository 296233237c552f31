"""Where sessions begin and end: the rule, in bulk, one obvious step at a time, and as a stream.

Events of a user are taken in the order of (time, position, row), by a stable sort, whatever the
order of the file.  A session ends

- `gap`: where the next event comes more than `gap` after the last (exactly `gap` is still inside);
- `time`: where the time changes, so events of one instant are one session;
- `user`: never;
- `id`: sessions are given; an id counts within its user only, sessions may overlap in time, and
  are put in the order of their first events.

Sessions never cross users.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextsession.compiled import compiled
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Id, Vocabulary
from nextsession.errors import DataError

NEVER = np.iinfo(np.int64).max
"""A gap that no silence exceeds."""


@dataclass(frozen=True, eq=False)
class Arrangement:
    """Rows of a raw log in the order of a `SessionLog`, and where its sessions and users begin."""

    rows: NDArray[np.int64]  # (N,) row of the raw log at each place
    session_offsets: NDArray[np.int64]  # (S+1,) into events
    user_offsets: NDArray[np.int64]  # (B+1,) into sessions


def arrange(
    users: NDArray[np.int32],
    times: NDArray[np.int64],
    *,
    n_users: int,
    gap: int = NEVER,
    positions: NDArray[np.float64] | None = None,
    sessions: NDArray[np.int32] | None = None,
) -> Arrangement:
    """Put coded rows in order and cut them into sessions.

    Args:
        users: The code of the user of each row, `0..n_users-1`, `(N,)`.
        times: Milliseconds, `(N,)`.
        n_users: The number of users.
        gap: The silence that ends a session (ms); 0 makes each instant a session.
        positions: Break ties of time, `(N,)`; none: the order of the rows does.
        sessions: Codes of given sessions, `(N,)`; they take the place of `gap`.
    """
    ties = np.zeros(0, np.float64) if positions is None else positions
    rows, starts = _ordered(users, times, ties, n_users)
    if sessions is None:
        begins = _cut(rows, starts, times, gap)
    else:
        rows, begins = _gathered(rows, starts, sessions, int(sessions.max()) + 1 if len(sessions) else 0)
    session_offsets = np.append(np.flatnonzero(begins), len(rows)).astype(np.int64)
    return Arrangement(rows, session_offsets, np.searchsorted(session_offsets, starts).astype(np.int64))


def sessionise(users: ArrayLike, items: ArrayLike, times: ArrayLike, *, gap: int) -> SessionLog:
    """Cut events into sessions by silence.

    Args:
        users: Ids of users, `(N,)`.
        items: Ids of items, `(N,)`.
        times: Milliseconds since 1970 UTC, `(N,)`, in any order.
        gap: The silence that ends a session, in milliseconds.

    Raises:
        DataError: The columns differ in length, or ids are mixed.

    >>> log = sessionise(["u", "u", "v"], [7, 8, 7], [0, 10, 5], gap=5)
    >>> log.session_offsets, log.user_offsets
    (array([0, 1, 2, 3]), array([0, 2, 3]))
    """
    people, things = Vocabulary.of(users), Vocabulary.of(items)
    who, what, when = people.encode(users), things.encode(items), np.asarray(times, dtype=np.int64)
    if not len(who) == len(what) == len(when):
        raise DataError(
            f"Users, items and times must be of one length; they have {len(who)}, {len(what)} and {len(when)}."
        )
    order = arrange(who, when, n_users=len(people), gap=gap)
    return SessionLog(
        items=what[order.rows],
        times=when[order.rows],
        session_offsets=order.session_offsets,
        user_offsets=order.user_offsets,
        vocabulary=things,
        users=people.ids,
    )


def sessionise_slowly(events: Iterable[tuple[Id, Id, int]], *, gap: int) -> dict[Id, list[list[Id]]]:
    """Do what `sessionise` does, one obvious step at a time.  For tests, and for reading.

    Args:
        events: `(user, item, time)`.
        gap: The silence that ends a session, in the unit of `time`.

    >>> sessionise_slowly([("u", 7, 0), ("u", 8, 10), ("v", 7, 5)], gap=5)
    {'u': [[7], [8]], 'v': [[7]]}
    """
    sessions: dict[Id, list[list[Id]]] = {}
    last: dict[Id, int] = {}
    for user, item, time in sorted(events, key=lambda event: event[2]):  # stable: ties stay in row order
        mine = sessions.setdefault(user, [])
        if not mine or time - last[user] > gap:
            mine.append([])
        mine[-1].append(item)
        last[user] = time
    return sessions


class Event(NamedTuple):
    """One event of one user, as it arrives."""

    item: Id
    time: int


@dataclass(frozen=True)
class SessionState:
    """The open session of one user in a stream; `step` gives the next state and leaves this one as it is."""

    gap: int
    """The silence that ends a session, in the unit of the events' times."""
    open: tuple[Event, ...] = ()
    """The events of the session that has not ended."""

    def step(self, event: Event) -> tuple["SessionState", tuple[Event, ...] | None]:
        """Take the next event; return the new state, and the session that it closed, if it did.

        Raises:
            DataError: The event is earlier than the one before it.

        >>> state, closed = SessionState(gap=5).step(Event("milk", 0))
        >>> state.step(Event("soap", 6))[1]
        (Event(item='milk', time=0),)
        """
        if self.open and event.time < self.open[-1].time:
            raise DataError(
                f"Events of a stream must come in the order of time; {event.time} came after {self.open[-1].time}."
            )
        if self.open and event.time - self.open[-1].time > self.gap:
            return SessionState(self.gap, (event,)), self.open
        return SessionState(self.gap, (*self.open, event)), None


@compiled
def _ordered(users: NDArray[Any], times: NDArray[Any], ties: NDArray[Any], n_users: int) -> Any:
    starts = np.zeros(n_users + 1, np.int64)
    for user in users:
        starts[user + 1] += 1
    for u in range(n_users):
        starts[u + 1] += starts[u]
    rows = np.empty(len(users), np.int64)
    place = starts[:-1].copy()
    for row in range(len(users)):
        rows[place[users[row]]] = row
        place[users[row]] += 1
    for u in range(n_users):
        mine = rows[starts[u] : starts[u + 1]]
        ordered = True
        for k in range(1, len(mine)):
            a, b = mine[k - 1], mine[k]
            if times[a] > times[b] or (len(ties) and times[a] == times[b] and ties[a] > ties[b]):
                ordered = False
                break
        if not ordered:  # a stable sort by the lesser key, then one by the greater
            if len(ties):
                mine[:] = mine[np.argsort(ties[mine], kind="mergesort")]
            mine[:] = mine[np.argsort(times[mine], kind="mergesort")]
    return rows, starts


@compiled
def _cut(rows: NDArray[Any], starts: NDArray[Any], times: NDArray[Any], gap: int) -> Any:
    begins = np.zeros(len(rows), np.bool_)
    for u in range(len(starts) - 1):
        for k in range(starts[u], starts[u + 1]):
            begins[k] = k == starts[u] or times[rows[k]] - times[rows[k - 1]] > gap
    return begins


@compiled
def _gathered(rows: NDArray[Any], starts: NDArray[Any], sessions: NDArray[Any], n_sessions: int) -> Any:
    gathered = np.empty_like(rows)
    begins = np.zeros(len(rows), np.bool_)
    owner = np.full(n_sessions, -1, np.int64)  # the user that the number of the session below is of
    number = np.empty(n_sessions, np.int64)
    place = np.zeros(len(rows) + 1, np.int64)
    for u in range(len(starts) - 1):
        a, b = starts[u], starts[u + 1]
        found = 0
        for k in range(a, b):  # number this user's sessions by first event, and count them
            s = sessions[rows[k]]
            if owner[s] != u:
                owner[s] = u
                number[s] = found
                place[found] = 0
                found += 1
            place[number[s]] += 1
        end = a
        for n in range(found):
            size = place[n]
            place[n] = end
            begins[end] = True
            end += size
        for k in range(a, b):
            n = number[sessions[rows[k]]]
            gathered[place[n]] = rows[k]
            place[n] += 1
    return gathered, begins
