"""Splits agree with slow ones over dictionaries, and no question sees what came after it."""

from dataclasses import dataclass, replace

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import assume, given, settings

from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError
from nextsession.splits import SplitSettings, split

HOUR = 3_600_000


@dataclass(frozen=True)
class Event:
    user: str
    session: int
    item: str
    time: int
    label: int
    row: int  # breaks ties of time


def by_user_and_session(events: list[Event]) -> dict[str, list[list[Event]]]:
    """Group the obvious way: users by name, their sessions by first event, events by time and row."""
    users: dict[str, dict[int, list[Event]]] = {user: {} for user in sorted({e.user for e in events})}
    for e in sorted(events, key=lambda e: (e.time, e.row)):
        users[e.user].setdefault(e.session, []).append(e)
    return {user: list(sessions.values()) for user, sessions in users.items()}


def log_of(events: list[Event]) -> SessionLog:
    users = by_user_and_session(events)
    sessions = [session for mine in users.values() for session in mine]
    flat = [e for session in sessions for e in session]
    vocabulary = Vocabulary.of([e.item for e in events])
    return SessionLog(
        items=vocabulary.encode([e.item for e in flat]),
        times=np.array([e.time for e in flat], np.int64),
        session_offsets=np.cumsum([0, *map(len, sessions)]),
        user_offsets=np.cumsum([0, *map(len, users.values())]),
        vocabulary=vocabulary,
        labels=np.array([e.label for e in flat], np.int8),
        users=np.array(list(users), dtype=object),
    )


def numbered(events: list[Event]) -> list[Event]:
    """Number the rows as a log stores them: of two overlapping sessions the earlier one wins ties of time."""
    flat = [e for mine in by_user_and_session(events).values() for session in mine for e in session]
    return [replace(e, row=row) for row, e in enumerate(flat)]


@st.composite
def histories(draw, *, overlapping: bool = True):
    """Events of a few users at few instants, so that times are often equal; sessions may overlap."""
    events = []
    for u in range(draw(st.integers(1, 4))):
        for s in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, 10)) if overlapping else 4 * s
            for _ in range(draw(st.integers(1, 4))):
                time = start + draw(st.integers(0, 3))
                item = f"i{draw(st.integers(0, 5))}"
                events.append(
                    Event(f"u{u}", 10 * u + s, item, time * HOUR, draw(st.sampled_from([1, 1, 0])), len(events))
                )
    return numbered(events)


def in_order(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda e: (e.time, e.row))


def sessions_of(events: list[Event]) -> dict[tuple[str, int], list[Event]]:
    found: dict[tuple[str, int], list[Event]] = {}
    for e in in_order(events):
        found.setdefault((e.user, e.session), []).append(e)
    return found


def nested(seen: list[Event]) -> list[list[str]]:
    return [[e.item for e in session] for session in sessions_of(seen).values()]


def distinct(items) -> list[str]:
    return list(dict.fromkeys(items))


def answers_of(session: list[Event]) -> tuple[list[str], list[str]]:
    wanted = distinct(e.item for e in session if e.label)
    return wanted, [i for i in distinct(e.item for e in session if not e.label) if i not in wanted]


def question(seen: list[Event], asked: list[Event], at: int):
    wanted, ignored = answers_of(asked)
    return nested(seen), at, sorted(wanted), sorted(ignored)


def put(questions):
    """Read questions back as plain lists."""
    found = []
    for cases in questions():
        h = cases.histories
        ids = h.vocabulary.ids
        for q in range(len(cases)):
            sessions = range(h.user_offsets[q], h.user_offsets[q + 1])
            seen = [ids[h.items[h.session_offsets[s] : h.session_offsets[s + 1]]].tolist() for s in sessions]
            wanted = ids[cases.targets[cases.target_offsets[q] : cases.target_offsets[q + 1]]]
            ignored = ids[cases.ignored[cases.ignored_offsets[q] : cases.ignored_offsets[q + 1]]]
            found.append((seen, int(cases.asked_at[q]), sorted(wanted), sorted(ignored)))
            rows = h.take([q])
            SessionLog(rows.items, rows.times, rows.session_offsets, rows.user_offsets, rows.vocabulary, rows.labels)
    return found


def content(log: SessionLog) -> list[tuple]:
    """Return a log as sorted (user, session's first event, item, time) rows."""
    users = log.users[log.user_of_session[log.session_of_event]]
    return sorted(zip(users.tolist(), log.vocabulary.ids[log.items].tolist(), log.times.tolist(), strict=True))


def rows_of(events: list[Event]) -> list[tuple]:
    return sorted((e.user, e.item, e.time) for e in events)


def asked_or_skip(events, **values):
    try:
        return split(log_of(events), SplitSettings(**values))
    except DataError as error:
        assume("no question" not in str(error) and "to learn from" not in str(error))
        raise


def before(e: Event, other: Event) -> bool:
    return e.user == other.user and (e.time, e.row) < (other.time, other.row)


@given(histories(), st.integers(1, 8), st.sampled_from(["user", "session"]), st.sampled_from([None, 1, 3]))
@settings(max_examples=100, deadline=None)
def test_temporal_next_item_agrees_with_a_loop(events, hours, history, longest):
    cut = max(e.time for e in events) + 1 - hours * HOUR
    found = asked_or_skip(events, test=f"{hours}h", history=history, longest_history=longest)
    expected = []
    for e in in_order(events):
        if e.time >= cut and e.label:
            seen = [x for x in in_order(events) if before(x, e) and (history == "user" or x.session == e.session)]
            expected.append(question(seen if longest is None else seen[-longest:], [e], e.time))
    assert sorted(put(found.test)) == sorted(expected)
    assert content(found.train) == rows_of([e for e in events if e.time < cut])
    assert set(found.train.vocabulary.ids) == {e.item for e in events if e.time < cut}


@given(histories(), st.integers(1, 8))
@settings(max_examples=100, deadline=None)
def test_temporal_next_session_agrees_with_a_loop(events, hours):
    cut = max(e.time for e in events) + 1 - hours * HOUR
    found = asked_or_skip(events, test=f"{hours}h", task="next-session")
    expected = [
        question([x for x in in_order(events) if before(x, session[0])], session, session[0].time)
        for session in sessions_of(events).values()
        if session[0].time >= cut and any(e.label for e in session)
    ]
    assert sorted(put(found.test)) == sorted(expected)


@given(histories(), st.integers(1, 8), st.sampled_from(["miss", "drop"]))
@settings(max_examples=100, deadline=None)
def test_session_events_agree_with_a_loop(events, hours, unseen):
    cut = max(e.time for e in events) + 1 - hours * HOUR
    found = asked_or_skip(events, protocol="session-events", test=f"{hours}h", unseen=unseen)
    known = {e.item for e in events if e.time < cut}
    expected = []
    for session in sessions_of(events).values():
        kept = [e for e in session if unseen == "miss" or e.item in known]
        if kept and kept[0].time >= cut:
            expected += [question(kept[:i], [e], e.time) for i, e in enumerate(kept) if i and e.label]
    assert sorted(put(found.test)) == sorted(expected)
    assert len(found.train) == found.train.n_sessions


def last_sessions(events: list[Event], user: str) -> list[list[Event]]:
    mine = [s for s in sessions_of(events).values() if s[0].user == user]
    return [s for s in mine if any(e.label for e in s)][::-1]


@given(histories(), st.sampled_from([0.0, 1.0]), st.sampled_from(["strict", "paper-like"]))
@settings(max_examples=100, deadline=None)
def test_leave_one_session_out_agrees_with_a_loop(events, share, form):
    found = asked_or_skip(events, protocol="leave-one-session-out", validation_share=share, form=form)
    test, validation, kept = [], [], []
    for user in sorted({e.user for e in events}):
        sessions = [s for s in sessions_of(events).values() if s[0].user == user]
        wanted = last_sessions(events, user)
        first_out = None
        for back, questions in ((0, test), (1, validation)):
            if len(wanted) <= back or (back and (share == 0 or first_out is None)):
                continue
            seen = [x for x in in_order(events) if before(x, wanted[back][0])]
            if seen:
                questions.append(question(seen, wanted[back], wanted[back][0].time))
                first_out = sessions.index(wanted[back])
        kept += [e for s in sessions[:first_out] for e in s]
    assert sorted(put(found.test)) == sorted(test)
    assert sorted(put(found.validation)) == sorted(validation)
    assert content(found.train) == rows_of(kept)
    assert set(found.train.vocabulary.ids) == {e.item for e in (events if form == "paper-like" else kept)}


@given(histories(), st.sampled_from([0.0, 1.0]), st.sampled_from(["strict", "paper-like"]))
@settings(max_examples=100, deadline=None)
def test_leave_one_item_out_agrees_with_a_loop(events, share, form):
    found = asked_or_skip(events, protocol="leave-one-item-out", validation_share=share, form=form)
    test, validation, kept = [], [], []
    for user in sorted({e.user for e in events}):
        mine = [e for e in in_order(events) if e.user == user]
        wanted = [e for e in mine if e.label][::-1]
        cut = None
        for back, questions in ((0, test), (1, validation)):
            if len(wanted) < 3 or (back and (share == 0 or cut is None)):
                continue
            target = wanted[back]
            start = target if form == "paper-like" else sessions_of(mine)[user, target.session][0]
            seen = [e for e in mine if before(e, start)]
            if seen:
                questions.append(question(seen, [target], start.time))
                cut = target
        kept += mine if cut is None else [e for e in mine if before(e, cut)]
    assert sorted(put(found.test)) == sorted(test)
    assert sorted(put(found.validation)) == sorted(validation)
    assert content(found.train) == rows_of(kept)


@given(histories(overlapping=False))
@settings(max_examples=60, deadline=None)
def test_one_wanted_event_a_session_makes_both_leave_one_out_protocols_ask_alike(events):
    ones = [s[0] for s in sessions_of(events).values()]
    ones = [Event(e.user, e.session, e.item, e.time, 1, e.row) for e in ones]
    enough = [u for u in {e.user for e in ones} if sum(e.user == u for e in ones) >= 3]
    ones = [e for e in ones if e.user in enough]
    assume(ones)
    by_session = split(log_of(ones), SplitSettings(protocol="leave-one-session-out"))
    by_item = split(log_of(ones), SplitSettings(protocol="leave-one-item-out"))
    assert put(by_session.test) == put(by_item.test)
    assert content(by_session.train) == content(by_item.train)


@given(
    histories(), st.integers(1, 8), st.integers(0, 3), st.integers(1, 5), st.sampled_from(["next-item", "next-session"])
)
@settings(max_examples=100, deadline=None)
def test_rolling_tells_everything_before_a_step_and_nothing_of_it(events, hours, validation, step, task):
    values = {"test": f"{hours}h", "task": task, "validation": f"{validation}h"}
    temporal = asked_or_skip(events, **values)
    found = asked_or_skip(events, protocol="rolling", step=f"{step}h", **values)
    assert sorted(put(found.test)) == sorted(put(temporal.test))
    test_from = max(e.time for e in events) + 1 - hours * HOUR
    learnt_to = test_from - validation * HOUR
    told: list[tuple] = []
    for cases in found.test():
        if cases.news is not None:
            told += content(cases.news)
        begin = test_from + (int(cases.asked_at.min()) - test_from) // (step * HOUR) * step * HOUR
        assert sorted(told) == rows_of([e for e in events if learnt_to <= e.time < begin])
        assert cases.asked_at.min() >= begin
        assert cases.asked_at.max() < begin + step * HOUR


PROTOCOLS = [
    {"test": "4h", "validation": "2h"},
    {"test": "4h", "validation": "2h", "task": "next-session"},
    {"protocol": "rolling", "test": "4h", "step": "2h"},
    {"protocol": "session-events", "test": "4h", "validation": "2h"},
    {"protocol": "leave-one-session-out", "validation_share": 0.5, "users": 2},
    {"protocol": "leave-one-item-out", "validation_share": 0.5},
]


@pytest.mark.parametrize("values", PROTOCOLS, ids=lambda v: "-".join(map(str, v.values())))
@given(events=histories(), seed=st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_shuffled_rows_of_the_file_give_the_same_split(values, events, seed):
    one = asked_or_skip(events, **values)
    shuffled = [events[i] for i in np.random.default_rng(seed).permutation(len(events))]
    other = split(log_of(shuffled), SplitSettings(**values))
    assert put(one.test) == put(other.test)
    assert put(one.validation) == put(other.validation)
    assert content(one.train) == content(other.train)
    assert one.facts == other.facts
