"""SessionLog: the one structure, from file to request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nextsession.compiled import compiled
from nextsession.data.items import ItemTable
from nextsession.data.vocabulary import Id, Vocabulary
from nextsession.errors import DataError

_WANTED = np.broadcast_to(np.int8(1), 10_000)
_USERS, _NEVER = np.arange(256), np.full(1, np.iinfo(np.int64).min)


@dataclass(frozen=True, eq=False)
class SessionLog:
    """Events of many users, cut into sessions; columnar, encoded and immutable.

    Two levels of offsets say where sessions and users begin:

        items            4 9 9 | 1 2 | 7
        session_offsets  0       3     5   6
        user_offsets     0             2   3

    A log is also the batch of histories that a model is asked about: one user, one question.
    Events of a session are in time order, and sessions of a user in the order of their first
    events (sessions given by id may overlap).  Letters in shapes: `N` events, `S` sessions, `B`
    users, `V` items.
    """

    items: NDArray[np.int32]  # (N,)   codes, never negative
    times: NDArray[np.int64]  # (N,)   ms since 1970 UTC
    session_offsets: NDArray[np.int64]  # (S+1,) into events
    user_offsets: NDArray[np.int64]  # (B+1,) into sessions
    vocabulary: Vocabulary
    labels: NDArray[np.int8] = field(default=None)  # type: ignore[arg-type]  # (N,) 1 wanted, 0 shown and ignored
    actions: NDArray[np.int16] | None = None  # (N,) places in action_names
    action_names: tuple[str, ...] = ()
    features: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # (N,) each: context of the event
    users: NDArray[Any] = field(default=None)  # type: ignore[arg-type]  # (B,) ids of the rows
    item_table: ItemTable | None = None
    timed: bool = True
    """False: only the order of events is known, and `times` count events."""

    def __post_init__(self) -> None:
        """Check every rule once, so that nobody downstream checks again."""
        n, s = len(self.items), len(self.session_offsets) - 1
        if self.labels is None:
            object.__setattr__(self, "labels", np.broadcast_to(np.int8(1), n))
        if self.users is None:
            object.__setattr__(self, "users", np.arange(len(self.user_offsets) - 1))
        columns: dict[str, NDArray[Any]] = {"times": self.times, "labels": self.labels, **self.features}
        if self.actions is not None:
            columns["actions"] = self.actions
        for name, column in columns.items():
            if len(column) != n:
                raise DataError(f"Column {name!r} must have one value an event ({n}), it has {len(column)}.")
        for name, offsets, end in (
            ("session_offsets", self.session_offsets, n),
            ("user_offsets", self.user_offsets, s),
        ):
            if len(offsets) == 0 or offsets[0] != 0 or offsets[-1] != end or np.any(offsets[1:] < offsets[:-1]):
                raise DataError(f"{name} must rise from 0 to {end}.")
        if len(self.users) != len(self.user_offsets) - 1:
            raise DataError(f"There must be one user id a row ({len(self.user_offsets) - 1}), got {len(self.users)}.")
        if n and (self.items.min() < 0 or self.items.max() >= len(self.vocabulary)):
            raise DataError(f"Item codes must be in 0..{len(self.vocabulary) - 1}.")
        if n and self.labels.strides != (0,) and (self.labels.min() < 0 or self.labels.max() > 1):
            raise DataError("Labels must be 1 (wanted) or 0 (ignored).")
        if (
            n
            and self.actions is not None
            and not 0 <= self.actions.min() <= self.actions.max() < len(self.action_names)
        ):
            raise DataError(f"Actions must be places in action_names, 0..{len(self.action_names) - 1}.")
        if np.any(self.session_offsets[1:] == self.session_offsets[:-1]):
            raise DataError("A session must have at least one event.")
        if n and not _in_order(self.times, self.session_offsets, self.user_offsets):
            raise DataError("Events of a session, and first events of a user's sessions, must be in time order.")
        if self.item_table is not None:
            self.item_table.check(len(self.vocabulary))

    @classmethod
    def from_lists(
        cls,
        users: Sequence[Sequence[Sequence[Id]]],
        *,
        vocabulary: Vocabulary | None = None,
        times: Sequence[Sequence[Sequence[int]]] | None = None,
    ) -> Self:
        """Build from nested lists: users, their sessions, the ids in each.

        Without `times` events are one second apart and sessions of a user one hour apart.  Items
        that a given vocabulary does not know are left out.

        Raises:
            DataError: `times` are not nested as the items are, or not in order.

        >>> log = SessionLog.from_lists([[["a", "b"], ["a"]], [["c"]]])
        >>> log.items, log.session_offsets, log.user_offsets
        (array([0, 1, 0, 2], dtype=int32), array([0, 2, 3, 4]), array([0, 2, 3]))
        """
        rows = [(u, s, session) for u, user in enumerate(users) for s, session in enumerate(user)]
        flat = [item for _, _, session in rows for item in session]
        if times is None:
            stamps = [3_600_000 * s + 1000 * e for _, s, session in rows for e in range(len(session))]
        else:
            stamps = [t for user in times for session in user for t in session]
            if [[len(s) for s in user] for user in times] != [[len(s) for s in user] for user in users]:
                raise DataError("times must be nested as the items are: one time an event.")
        own = Vocabulary.of(flat) if vocabulary is None else vocabulary
        codes = own.encode(flat)
        known = codes >= 0
        run = np.repeat(np.arange(len(rows)), [len(session) for _, _, session in rows])
        lengths = np.bincount(run[known], minlength=len(rows))
        of_user = np.array([u for u, _, _ in rows], dtype=np.int64)
        return cls(
            items=codes[known],
            times=np.array(stamps, dtype=np.int64)[known],
            session_offsets=offsets_of(lengths[lengths > 0]),
            user_offsets=offsets_of(np.bincount(of_user[lengths > 0], minlength=len(users))),
            vocabulary=own,
        )

    @classmethod
    def of_rows(
        cls,
        items: NDArray[np.int32],
        times: NDArray[np.int64],
        session_offsets: NDArray[np.int64],
        user_offsets: NDArray[np.int64],
        vocabulary: Vocabulary,
        *,
        labels: NDArray[np.int8] | None = None,
        actions: NDArray[np.int16] | None = None,
        action_names: tuple[str, ...] = (),
    ) -> "SessionLog":
        """Build a log without checking it: for servers, to which the checks would cost as much as answers.

        The caller answers for every rule of a log, and gives times in order within each row.
        """
        one = object.__new__(cls)
        n, rows = len(items), len(user_offsets) - 1
        event_offsets = session_offsets[user_offsets]
        starts, stops = event_offsets[:-1], event_offsets[1:]
        some = stops > starts
        if n and some.all():
            last_times, last_sessions = times[stops - 1], (session_offsets[user_offsets[1:] - 1], stops)
        else:
            last_times = np.where(some, times[stops - 1], _NEVER) if n else np.repeat(_NEVER, rows)
            zero = np.zeros(rows, np.int64)
            last_sessions = (
                np.where(some, session_offsets[user_offsets[1:] - 1], zero),
                np.where(some, stops, zero),
            )
        one.__dict__.update(
            items=items,
            times=times,
            session_offsets=session_offsets,
            user_offsets=user_offsets,
            vocabulary=vocabulary,
            labels=(_WANTED[:n] if n <= len(_WANTED) else np.broadcast_to(np.int8(1), n)) if labels is None else labels,
            actions=actions,
            action_names=action_names,
            features={},
            users=_USERS[:rows] if rows <= len(_USERS) else np.arange(rows),
            item_table=None,
            timed=True,
            event_offsets=event_offsets,
            last_times=last_times,
            last_sessions=last_sessions,
        )
        return one

    # -- sizes ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        """Return the number of users (rows)."""
        return len(self.user_offsets) - 1

    @property
    def n_events(self) -> int:
        """The number of events, `N`."""
        return len(self.items)

    @property
    def n_sessions(self) -> int:
        """The number of sessions, `S`."""
        return len(self.session_offsets) - 1

    @property
    def n_items(self) -> int:
        """The number of items the vocabulary knows, `V`."""
        return len(self.vocabulary)

    def __repr__(self) -> str:
        """Show the sizes."""
        return (
            f"SessionLog({len(self)} users, {self.n_sessions} sessions, {self.n_events} events, {self.n_items} items)"
        )

    # -- derived columns ------------------------------------------------------------------------

    @cached_property
    def event_offsets(self) -> NDArray[np.int64]:
        """Where the events of each user begin, `(B+1,)`."""
        return self.session_offsets[self.user_offsets]

    @cached_property
    def session_of_event(self) -> NDArray[np.int64]:
        """The session of each event, `(N,)`."""
        return np.repeat(np.arange(self.n_sessions), np.diff(self.session_offsets))

    def sessions_of(self, events: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the sessions of these events, without a column for all."""
        return np.searchsorted(self.session_offsets, events, side="right") - 1

    @cached_property
    def user_of_session(self) -> NDArray[np.int64]:
        """The row of each session, `(S,)`."""
        return np.repeat(np.arange(len(self)), np.diff(self.user_offsets))

    @cached_property
    def session_starts(self) -> NDArray[np.int64]:
        """The time of the first event of each session, `(S,)` ms."""
        return self.times[self.session_offsets[:-1]]

    @cached_property
    def session_ends(self) -> NDArray[np.int64]:
        """The time of the last event of each session, `(S,)` ms."""
        return self.times[self.session_offsets[1:] - 1]

    @cached_property
    def last_times(self) -> NDArray[np.int64]:
        """The time of the latest event of each user, `(B,)` ms; the least int64 for an empty row."""
        latest = np.full(len(self), np.iinfo(np.int64).min)
        np.maximum.at(latest, self.user_of_session, self.session_ends)
        return latest

    @cached_property
    def last_sessions(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where the last session of each user begins and ends among the events, `(B,)` each; 0, 0 for an empty row."""
        some = np.diff(self.user_offsets) > 0
        starts, stops = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        last = self.user_offsets[1:][some] - 1
        starts[some], stops[some] = self.session_offsets[last], self.session_offsets[last + 1]
        return starts, stops

    # -- parts ----------------------------------------------------------------------------------

    def take(self, users: ArrayLike) -> "SessionLog":
        """Return these rows, in this order; a row may be named twice.

        Raises:
            DataError: A number is no row's, or a mask is given.
        """
        rows = np.asarray(users)
        if rows.dtype == np.bool_:
            raise DataError("take needs the numbers of rows, got a mask; use np.flatnonzero(mask).")
        rows = rows.astype(np.int64)
        if rows.size and (rows.min() < 0 or rows.max() >= len(self)):
            raise DataError(f"Rows must be in 0..{len(self) - 1}; got {rows.min()}..{rows.max()}.")
        sessions, user_offsets = _ranges(self.user_offsets, rows)
        events, session_offsets = _ranges(self.session_offsets, sessions)
        return self._at(events, session_offsets, user_offsets, self.users[rows])

    def rows(self, start: int, stop: int) -> "SessionLog":
        """Return rows `start..stop`, without copying a column."""
        a, b = self.user_offsets[start], self.user_offsets[min(stop, len(self))]
        events = slice(int(self.session_offsets[a]), int(self.session_offsets[b]))
        return self._at(
            events,
            self.session_offsets[a : b + 1] - self.session_offsets[a],
            self.user_offsets[start : stop + 1] - a,
            self.users[start:stop],
        )

    def sessions(self, chosen: ArrayLike, *, keep_users: bool = False) -> "SessionLog":
        """Return only the sessions chosen by a `(S,)` mask; rows left empty go unless `keep_users`."""
        mask = np.asarray(chosen, dtype=bool)
        events, session_offsets = _ranges(self.session_offsets, np.flatnonzero(mask))
        counts = np.bincount(self.user_of_session[mask], minlength=len(self))
        kept = np.ones(len(self), bool) if keep_users else counts > 0
        return self._at(events, session_offsets, offsets_of(counts[kept]), self.users[kept])

    def events(self, chosen: ArrayLike, *, keep_users: bool = False) -> "SessionLog":
        """Return only the events chosen by a `(N,)` mask; sessions left empty go, rows too unless `keep_users`."""
        mask = np.asarray(chosen, dtype=bool)
        part = self if mask.all() else self._where(mask)
        if keep_users or not np.any(part.user_offsets[1:] == part.user_offsets[:-1]):
            return part
        kept = np.diff(part.user_offsets) > 0
        return replace(part, user_offsets=offsets_of(np.diff(part.user_offsets)[kept]), users=part.users[kept])

    def before(self, instant: int, *, keep_users: bool = False) -> "SessionLog":
        """Return the events strictly earlier than `instant`."""
        return self.events(self.times < instant, keep_users=keep_users)

    def gather(
        self,
        events: NDArray[np.int64],
        session_offsets: NDArray[np.int64],
        user_offsets: NDArray[np.int64],
        users: NDArray[Any] | None = None,
    ) -> "SessionLog":
        """Return rows made of chosen events, cut as the offsets say; the caller answers for their order."""
        ids = np.arange(len(user_offsets) - 1) if users is None else users
        return self._at(events, session_offsets, user_offsets, ids)

    def positives(self) -> "SessionLog":
        """Return the events that were wanted; every row stays, even if nothing is left of it."""
        if self.labels.strides == (0,) or np.all(self.labels == 1):
            return self
        return self.events(self.labels == 1, keep_users=True)

    def as_sessions(self) -> "SessionLog":
        """Return the log in which each session is a row of its own: anonymous visitors."""
        return replace(self, user_offsets=np.arange(self.n_sessions + 1), users=np.arange(self.n_sessions))

    # -- vocabularies ---------------------------------------------------------------------------

    def recode(self, vocabulary: Vocabulary) -> "SessionLog":
        """Return the log in the codes of another vocabulary; items it does not know are left out."""
        if vocabulary is self.vocabulary:
            return self
        codes = vocabulary.translate(self.vocabulary)
        if len(codes) == len(vocabulary) and np.array_equal(codes, np.arange(len(codes))):
            return replace(self, vocabulary=vocabulary)
        known = codes[self.items] >= 0
        part = self if known.all() else self._where(known)
        table = None
        if self.item_table is not None:
            table = self.item_table.take(self.vocabulary.translate(vocabulary))
        return replace(part, items=codes[part.items], vocabulary=vocabulary, item_table=table)

    def compact(self) -> "SessionLog":
        """Return the log with a vocabulary of only the items that occur, in the same order."""
        seen = np.bincount(self.items, minlength=self.n_items) > 0
        if seen.all():
            return self
        codes = (np.cumsum(seen) - 1).astype(np.int32)
        table = None if self.item_table is None else self.item_table.take(np.flatnonzero(seen))
        kept = Vocabulary(self.vocabulary.ids[seen])
        return replace(self, items=codes[self.items], vocabulary=kept, item_table=table)

    # -- inside ---------------------------------------------------------------------------------

    def _at(
        self,
        events: NDArray[np.int64] | NDArray[np.bool_] | slice,
        session_offsets: NDArray[np.int64],
        user_offsets: NDArray[np.int64],
        users: NDArray[Any],
    ) -> "SessionLog":
        everywhere = self.labels.strides == (0,)
        items = self.items[events]
        part = object.__new__(SessionLog)  # a part of a log that keeps the rules keeps them too
        columns = {
            "items": items,
            "times": self.times[events],
            "session_offsets": session_offsets,
            "user_offsets": user_offsets,
            "vocabulary": self.vocabulary,
            "labels": np.broadcast_to(np.int8(1), len(items)) if everywhere else self.labels[events],
            "actions": None if self.actions is None else self.actions[events],
            "action_names": self.action_names,
            "features": {name: column[events] for name, column in self.features.items()},
            "users": users,
            "item_table": self.item_table,
            "timed": self.timed,
        }
        part.__dict__.update(columns)
        return part

    def _where(self, mask: NDArray[np.bool_]) -> "SessionLog":
        left = np.add.reduceat(mask, self.session_offsets[:-1], dtype=np.int64) if self.n_sessions else np.zeros(0, int)
        sessions = np.flatnonzero(left)
        users = self.user_of_session[sessions]
        offsets = offsets_of(left[sessions])
        # Numbers of events are faster where few are left, and take eight times the memory of a mask where most are.
        events: NDArray[Any] = np.flatnonzero(mask) if 4 * offsets[-1] < len(mask) else mask
        order = session_order(self.times[events][offsets[:-1]], users)
        if order is not None:
            places, offsets = _ranges(offsets, order)
            events = np.flatnonzero(mask)[places]
        return self._at(events, offsets, offsets_of(np.bincount(users, minlength=len(self))), self.users)


def offsets_of(counts: ArrayLike) -> NDArray[np.int64]:
    """Return where runs of these lengths begin and the last one ends.

    >>> offsets_of([3, 2])
    array([0, 3, 5])
    """
    lengths = np.asarray(counts, dtype=np.int64)
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def session_order(starts: NDArray[np.int64], users: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the order that puts each user's sessions by start, ties as they are; none if they stand so already.

    Sessions given by id may overlap: when one loses its first events, another may come to begin before it.

    >>> session_order(np.array([5, 3, 4]), np.array([0, 0, 1]))
    array([1, 0, 2])
    """
    if np.any((starts[1:] < starts[:-1]) & (users[1:] == users[:-1])):
        return np.lexsort((starts, users))
    return None


def _ranges(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places inside the given rows, end to end, and the offsets of the result."""
    counts = offsets[rows + 1] - offsets[rows]
    ends = offsets_of(counts)
    return np.arange(ends[-1]) + np.repeat(offsets[rows] - ends[:-1], counts), ends


@compiled
def _in_order(times: NDArray[np.int64], session_offsets: NDArray[np.int64], user_offsets: NDArray[np.int64]) -> bool:
    for u in range(len(user_offsets) - 1):
        for s in range(user_offsets[u], user_offsets[u + 1]):
            a, b = session_offsets[s], session_offsets[s + 1]
            if s > user_offsets[u] and times[a] < times[session_offsets[s - 1]]:
                return False
            for e in range(a + 1, b):
                if times[e] < times[e - 1]:
                    return False
    return True
