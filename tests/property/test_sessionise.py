"""Cutting into sessions and filtering against loops over lists and dictionaries."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nextsession.data.filters import filtered, keep_of
from nextsession.data.format import Filters
from nextsession.data.log import SessionLog, offsets_of
from nextsession.data.sessions import Event, SessionState, arrange, sessionise, sessionise_slowly
from nextsession.data.vocabulary import Vocabulary

GAPS = st.integers(0, 12)
EVENTS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 40)), max_size=40)
ROWS = st.lists(  # user, time, position, session
    st.tuples(st.integers(0, 3), st.integers(0, 12), st.integers(0, 2), st.integers(0, 4)), min_size=1, max_size=40
)


def lists(log):
    """{user: its sessions, as lists of ids}."""
    ids = log.vocabulary.ids[log.items].tolist()
    sessions = [ids[a:b] for a, b in zip(log.session_offsets[:-1], log.session_offsets[1:], strict=True)]
    bounds = zip(log.users.tolist(), log.user_offsets[:-1], log.user_offsets[1:], strict=True)
    return {user: sessions[a:b] for user, a, b in bounds}


@given(EVENTS, GAPS)
def test_fast_and_slow_agree(events, gap):
    users, items, times = ([event[k] for event in events] for k in range(3))
    assert lists(sessionise(users, items, times, gap=gap)) == sessionise_slowly(events, gap=gap)


@given(st.lists(st.integers(0, 40), max_size=30), GAPS)
def test_a_stream_gives_the_sessions_of_the_whole(times, gap):
    state, sessions = SessionState(gap), []
    for place, time in enumerate(sorted(times)):
        state, closed = state.step(Event(place, time))
        sessions += [] if closed is None else [closed]
    sessions += [state.open] if state.open else []
    whole = sessionise(["u"] * len(times), list(range(len(times))), sorted(times), gap=gap)
    assert [[event.item for event in session] for session in sessions] == lists(whole).get("u", [])


@given(EVENTS, GAPS, st.randoms())
def test_rows_in_any_order_give_the_same_log_if_times_differ(events, gap, random):
    events = [(user, item, 3 * place) for place, (user, item, _) in enumerate(events)]
    mixed = random.sample(events, len(events))
    logs = [sessionise(*([e[k] for e in rows] for k in range(3)), gap=gap) for rows in (events, mixed)]
    for column in ("items", "times", "session_offsets", "user_offsets", "users"):
        np.testing.assert_array_equal(getattr(logs[0], column), getattr(logs[1], column))


def arranged(rows, **rule):
    users, times, positions, sessions = (np.array(column) for column in zip(*rows, strict=True))
    given = sessions.astype(np.int32) if rule.pop("by_id", False) else None
    order = arrange(users.astype(np.int32), times, n_users=4, positions=positions.astype(float), sessions=given, **rule)
    cut = [part.tolist() for part in np.split(order.rows, order.session_offsets[1:-1])]
    return [cut[a:b] for a, b in zip(order.user_offsets[:-1], order.user_offsets[1:], strict=True)]


@given(ROWS)
def test_given_sessions_against_dictionaries(rows):
    users = [{} for _ in range(4)]
    for row in sorted(range(len(rows)), key=lambda r: (rows[r][1], rows[r][2], r)):
        users[rows[row][0]].setdefault(rows[row][3], []).append(row)
    assert arranged(rows, by_id=True) == [list(sessions.values()) for sessions in users]


@given(ROWS, GAPS)
def test_gaps_with_positions_against_lists(rows, gap):
    users = [[] for _ in range(4)]
    for row in sorted(range(len(rows)), key=lambda r: (rows[r][1], rows[r][2], r)):
        mine = users[rows[row][0]]
        if not mine or rows[row][1] - rows[mine[-1][-1]][1] > gap:
            mine.append([])
        mine[-1].append(row)
    assert arranged(rows, gap=gap) == users


LOGS = st.lists(  # users of sessions of (item, label)
    st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), min_size=1, max_size=6), max_size=5), max_size=6
)
FILTERS = st.builds(
    Filters,
    item_events=st.integers(0, 3),
    user_events=st.integers(0, 4),
    user_sessions=st.integers(0, 3),
    session_events=st.integers(0, 3),
    session_positives=st.integers(0, 2),
    longest_session=st.sampled_from([0, 0, 4]),
    repeats=st.sampled_from(["keep", "drop"]),
    passes=st.sampled_from([None, None, 1, 2]),
)


def filter_slowly(users, rule):
    """What the filters leave, by lists: users of sessions of (item, label, place)."""
    users, rounds = [[list(s) for s in user] for user in users], 0
    while rule.passes is None or rounds < rule.passes:
        before, rounds = repr(users), rounds + 1
        if rule.repeats == "drop":
            users = [[[e for k, e in enumerate(s) if k == 0 or s[k - 1][0] != e[0]] for s in user] for user in users]
        support = Counter(e[0] for user in users for s in user for e in s)
        users = [[[e for e in s if support[e[0]] >= rule.item_events] for s in user] for user in users]
        users = [user if sum(map(len, user)) >= rule.user_events else [] for user in users]
        users = [[s for s in user if s and len(s) <= (rule.longest_session or 99)] for user in users]
        users = [[s for s in user if len(s) >= rule.session_events] for user in users]
        users = [[s for s in user if sum(e[1] for e in s) >= rule.session_positives] for user in users]
        users = [user if len(user) >= rule.user_sessions else [] for user in users]
        if repr(users) == before:
            break
    return users


@given(LOGS, FILTERS)
def test_filters_against_lists(users, rule):
    place = iter(range(1000))
    users = [[[(item, label, next(place)) for item, label in s] for s in user] for user in users]
    flat = [e for user in users for s in user for e in s]
    session_offsets = offsets_of([len(s) for user in users for s in user])
    keep, account = keep_of(
        np.array([e[0] for e in flat], np.int32),
        np.array([e[1] for e in flat], np.int8),
        session_offsets,
        offsets_of([len(user) for user in users]),
        6,
        rule,
    )
    left = [e for user in filter_slowly(users, rule) for s in user for e in s]
    assert np.flatnonzero(keep).tolist() == [e[2] for e in left]
    assert account.after.events == len(left)
    assert account.after.items == len({e[0] for e in left})
    for size in ("events", "sessions", "users", "items"):
        lost = sum(getattr(removal.removed, size) for removal in account.removals)
        assert lost == getattr(account.before - account.after, size)


@given(LOGS, FILTERS)
def test_filtering_what_is_filtered_changes_nothing(users, rule):
    log = SessionLog.from_lists([[[e[0] for e in s] for s in user] for user in users], vocabulary=Vocabulary(range(6)))
    rule = rule.model_copy(update={"passes": None})
    once, account = filtered(log, rule)
    twice, again = filtered(once, rule)
    assert account.settled
    assert twice.items.tolist() == once.items.tolist()
    assert all(removal.removed.events == 0 for removal in again.removals)
