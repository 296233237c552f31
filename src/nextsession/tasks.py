"""Tasks: which events a question may see, and which events answer it.

A `Plan` holds two ranges of events for every question and builds `Cases` from them block by block,
so that any number of questions costs a few numbers each until it is put.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nextsession.compiled import compiled
from nextsession.data.cases import Cases
from nextsession.data.log import SessionLog

_QUESTIONS = 4096  # most questions of a block
_EVENTS = 2_000_000  # events of a block, unless one question alone has more
_NONE = np.zeros(0, np.int64)

History = Literal["user", "session"]
"""What a question may look back on: all its user did before, or only the open session."""


@dataclass(frozen=True, eq=False)
class Plan:
    """Questions on one log; call it for `Cases`, block by block.

    Question `q` sees the events `order[seen_from[q]:seen_to[q]]` and is answered by the wanted ones
    among the events `asked_from[q]..asked_to[q]`.
    """

    log: SessionLog
    order: NDArray[np.int64] | None  # (N,) the events of each user by time; none: in the order of the log
    seen_from: NDArray[np.int64]  # (Q,) in order
    seen_to: NDArray[np.int64]  # (Q,)
    asked_from: NDArray[np.int64]  # (Q,) events
    asked_to: NDArray[np.int64]  # (Q,)
    asked_at: NDArray[np.int64]  # (Q,) ms
    groups: NDArray[np.int64]  # (Q,) the row of the log whose user asks
    positions: NDArray[np.int64]  # (Q,) events of the asked session that came before the answer

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.asked_at)

    def __call__(self) -> Iterator[Cases]:
        """Give the questions in blocks."""
        yield from self.blocks(0, len(self))

    def blocks(
        self, start: int, stop: int, *, news: SessionLog | None = None, held: SessionLog | None = None
    ) -> Iterator[Cases]:
        """Give questions `start..stop` in blocks; `news`, or what was `held` back, go with the first."""
        sizes = np.cumsum(self.seen_to[start:stop] - self.seen_from[start:stop])
        told = 0
        while start < stop:
            room = int(np.searchsorted(sizes, told + _EVENTS, side="right"))
            end = min(stop, start + _QUESTIONS, max(start + 1, stop - len(sizes) + room))
            yield replace(self.cases(start, end), news=news, held=held)
            news = held = None
            told, start = int(sizes[end - stop + len(sizes) - 1]), end

    def cases(self, start: int, stop: int) -> Cases:
        """Build questions `start..stop`."""
        log = self.log
        histories = log.gather(
            *_histories(_listed(self.order), self.seen_from[start:stop], self.seen_to[start:stop], log.session_offsets),
            users=log.users[self.groups[start:stop]],
        )
        targets, target_offsets, ignored, ignored_offsets = _answers(
            log.items, log.labels, self.asked_from[start:stop], self.asked_to[start:stop]
        )
        return Cases(
            histories=histories,
            asked_at=self.asked_at[start:stop],
            targets=targets,
            target_offsets=target_offsets,
            groups=self.groups[start:stop],
            ignored=ignored,
            ignored_offsets=ignored_offsets,
            positions=self.positions[start:stop],
        )

    def take(self, questions: NDArray[np.int64]) -> "Plan":
        """Return these questions, in this order."""
        names = ("seen_from", "seen_to", "asked_from", "asked_to", "asked_at", "groups", "positions")
        return replace(self, **{name: getattr(self, name)[questions] for name in names})

    def recent(self, events: int | None) -> "Plan":
        """Return the questions with only the latest `events` events of each history; all with None."""
        if events is None:
            return self
        return replace(self, seen_from=np.maximum(self.seen_from, self.seen_to - events))

    def sampled(self, groups: int | None, seed: int) -> "Plan":
        """Return the questions of at most so many groups, drawn at random; all with None."""
        known = np.unique(self.groups)
        if groups is None or groups >= len(known):
            return self
        drawn = np.random.default_rng(seed).choice(known, groups, replace=False)
        return self.take(np.flatnonzero(np.isin(self.groups, drawn)))


@dataclass(frozen=True, eq=False)
class Replay:
    """The test period in time order: before each step, what everybody did since the step before.

    The first block of a step carries all events from the step before, strictly earlier than the
    step begins.  A session that goes on into the next step is told in two parts.
    """

    plan: Plan
    """Sorted by step."""
    told_to: int
    """What happened before was learnt from."""
    since: int
    step: int

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.plan)

    def __call__(self) -> Iterator[Cases]:
        """Give the questions step by step."""
        log = self.plan.log
        by_time = np.argsort(log.times, kind="stable")
        times = log.times[by_time]
        steps = (self.plan.asked_at - self.since) // self.step
        begins = np.flatnonzero(np.diff(steps, prepend=-1))
        told = self.told_to
        for start, stop in zip(begins.tolist(), [*begins[1:].tolist(), len(steps)], strict=True):
            now = self.since + int(steps[start]) * self.step
            a, z = np.searchsorted(times, (told, now))
            yield from self.plan.blocks(start, stop, news=excerpt(log, by_time[a:z]))
            told = now


@dataclass(frozen=True, eq=False)
class Told:
    """Questions, and what was held back from training: a running site would know what of it happened before each.

    The first block carries all of it, the asked sessions too, so it is only for models that look at
    nothing that happened after a question.
    """

    plan: Plan
    held: SessionLog

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.plan)

    def __call__(self) -> Iterator[Cases]:
        """Give the questions in blocks."""
        yield from self.plan.blocks(0, len(self.plan), held=self.held)


@dataclass(frozen=True, eq=False)
class Given:
    """Prepared questions, in blocks."""

    cases: Cases

    def __len__(self) -> int:
        """Return the number of questions."""
        return len(self.cases)

    def __call__(self) -> Iterator[Cases]:
        """Give the questions in blocks."""
        for start in range(0, len(self.cases), _QUESTIONS):
            yield self.cases.rows(start, min(start + _QUESTIONS, len(self.cases)))


def next_item(log: SessionLog, since: int, history: History = "user") -> Plan:
    """Ask for every wanted event at or after `since`, given what its user (or session) did before it.

    It is asked at the time of the event; of events of that very time only earlier ones are seen.
    """
    events = np.flatnonzero((log.times >= since) & (log.labels == 1))
    order = time_order(log) if history == "user" else None
    return item_questions(log, order, events, history)


def item_questions(
    log: SessionLog, order: NDArray[np.int64] | None, events: NDArray[np.int64], history: History
) -> Plan:
    """Ask for each of these events."""
    sessions = log.sessions_of(events)
    users = log.user_of_session[sessions]
    begins = log.session_offsets[:-1][sessions]
    return Plan(
        log=log,
        order=order,
        seen_from=begins if history == "session" else log.event_offsets[:-1][users],
        seen_to=places(order, events),
        asked_from=events,
        asked_to=events + 1,
        asked_at=log.times[events],
        groups=users,
        positions=events - begins,
    )


def next_session(log: SessionLog, since: int) -> Plan:
    """Ask for the wanted items of every session begun at or after `since`, given all its user did before."""
    sessions = np.flatnonzero((log.session_starts >= since) & (wanted_events(log) > 0))
    return session_questions(log, time_order(log), sessions)


def session_questions(log: SessionLog, order: NDArray[np.int64] | None, sessions: NDArray[np.int64]) -> Plan:
    """Ask for each of these sessions, at its start."""
    users = log.user_of_session[sessions]
    begins = log.session_offsets[:-1][sessions]
    return Plan(
        log=log,
        order=order,
        seen_from=log.event_offsets[:-1][users],
        seen_to=places(order, begins),
        asked_from=begins,
        asked_to=log.session_offsets[1:][sessions],
        asked_at=log.session_starts[sessions],
        groups=users,
        positions=np.zeros(len(sessions), np.int64),
    )


def excerpt(log: SessionLog, events: NDArray[np.int64]) -> SessionLog:
    """Return these events, given in time order, as a log of their users; sessions go by their first event chosen."""
    users = log.user_of_session[log.sessions_of(events)]
    order = np.argsort(users, kind="stable")
    chosen = events[order]
    rows, begins = np.unique(users[order], return_index=True)
    found, session_offsets, user_offsets = _histories(
        chosen, begins, np.append(begins[1:], len(chosen)), log.session_offsets
    )
    return replace(log.gather(found, session_offsets, user_offsets), users=log.users[rows])


def wanted_events(log: SessionLog) -> NDArray[np.int64]:
    """Return the number of wanted events of each session, `(S,)`."""
    return np.add.reduceat(log.labels == 1, log.session_offsets[:-1], dtype=np.int64) if log.n_sessions else _NONE


def time_order(log: SessionLog) -> NDArray[np.int64] | None:
    """Return the events of each user by time, ties in the order of the log, `(N,)`; none if the log has that order.

    It differs only where sessions given by id overlap.
    """
    same = log.user_of_session[1:] == log.user_of_session[:-1]
    if not np.any(same & (log.session_starts[1:] < log.session_ends[:-1])):
        return None
    return np.lexsort((log.times, log.user_of_session[log.session_of_event]))


def places(order: NDArray[np.int64] | None, events: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return where these events stand in `order`."""
    if order is None:
        return events
    found = np.empty(len(order), np.int64)
    found[order] = np.arange(len(order))
    return found[events]


def _listed(order: NDArray[np.int64] | None) -> NDArray[np.int64]:
    """Return the order for compiled code: empty if it is that of the log."""
    return _NONE if order is None else order


@compiled
def _histories(
    order: NDArray[np.int64], starts: NDArray[np.int64], stops: NDArray[np.int64], session_offsets: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Gather histories: events session by session, sessions by their first event seen; and the offsets.

    An empty `order` is that of the log.
    """
    total = 0
    for q in range(len(starts)):
        total += stops[q] - starts[q]
    events = np.empty(total, np.int64)
    found_offsets = np.empty(total + 1, np.int64)
    user_offsets = np.zeros(len(starts) + 1, np.int64)
    n, sessions = 0, 0
    for q in range(len(starts)):
        a = n
        for i in range(starts[q], stops[q]):
            events[n] = order[i] if len(order) else i
            n += 1
        mine = events[a:n]
        in_turn = True
        for i in range(1, len(mine)):
            in_turn = in_turn and mine[i] > mine[i - 1]
        if not in_turn:
            _by_session(mine, session_offsets)
        end, begin = -1, 0  # of the session of the event before
        for i in range(len(mine)):
            if not begin <= mine[i] < end:
                session = np.searchsorted(session_offsets, mine[i], side="right")
                begin, end = session_offsets[session - 1], session_offsets[session]
                found_offsets[sessions] = a + i
                sessions += 1
        user_offsets[q + 1] = sessions
    found_offsets[sessions] = n
    return events, found_offsets[: sessions + 1].copy(), user_offsets


@compiled
def _by_session(events: NDArray[np.int64], session_offsets: NDArray[np.int64]) -> None:
    """Put events, in place, session by session, sessions by their first event here."""
    session = np.searchsorted(session_offsets, events, side="right")
    first = np.empty(len(events), np.int64)  # of each event, the place of the first one of its session
    together = np.argsort(session, kind="mergesort")
    for k in range(len(together)):
        same = k > 0 and session[together[k]] == session[together[k - 1]]
        first[together[k]] = first[together[k - 1]] if same else together[k]
    events[:] = events[np.argsort(first, kind="mergesort")]


@compiled
def _answers(
    items: NDArray[np.int32], labels: NDArray[np.int8], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32], NDArray[np.int64]]:
    """Gather the distinct wanted items of each range, and the distinct others."""
    total = 0
    for q in range(len(starts)):
        total += stops[q] - starts[q]
    wanted, others = np.empty(total, np.int32), np.empty(total, np.int32)
    wanted_offsets, other_offsets = np.zeros(len(starts) + 1, np.int64), np.zeros(len(starts) + 1, np.int64)
    n, m = 0, 0
    for q in range(len(starts)):
        for e in range(starts[q], stops[q]):
            new = labels[e] == 1
            for i in range(wanted_offsets[q], n):
                new = new and wanted[i] != items[e]
            if new:
                wanted[n] = items[e]
                n += 1
        wanted_offsets[q + 1] = n
        for e in range(starts[q], stops[q]):
            new = labels[e] != 1
            for i in range(wanted_offsets[q], n):
                new = new and wanted[i] != items[e]
            for i in range(other_offsets[q], m):
                new = new and others[i] != items[e]
            if new:
                others[m] = items[e]
                m += 1
        other_offsets[q + 1] = m
    return wanted[:n].copy(), wanted_offsets, others[:m].copy(), other_offsets
