"""SessionLog against loops over lists, and every rule it refuses to break."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession.data.items import ItemFeature, ItemTable
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import DataError
from nextsession.testing.strategies import logs, nested_ids, vocabularies


def nested(log):
    """Write a log as plain lists: of each row its id and its sessions, of each event all there is to it."""
    rows = []
    for u in range(len(log)):
        sessions = []
        for s in range(log.user_offsets[u], log.user_offsets[u + 1]):
            events = range(log.session_offsets[s], log.session_offsets[s + 1])
            sessions.append([event(log, e) for e in events])
        rows.append((log.users[u], sessions))
    return rows


def event(log, e):
    action = None if log.actions is None else int(log.actions[e])
    context = {name: column[e].item() for name, column in log.features.items()}
    return log.vocabulary.ids[log.items[e]], int(log.times[e]), int(log.labels[e]), action, context


def rows_of(rows, keep, *, keep_users):
    """Keep the events that `keep` says of each row; sessions left empty go, and rows unless `keep_users`.

    A session that lost its first events may now begin after another that overlaps it.
    """
    left = []
    for user, sessions in rows:
        thinned = [[e for e in session if keep(e)] for session in sessions]
        if any(thinned) or keep_users:
            left.append((user, sorted((s for s in thinned if s), key=lambda session: session[0][1])))
    return left


def checked(log):
    """Go through every rule again, which parts of a log are spared."""
    return replace(log)


full = st.one_of(logs(extras=True), logs(extras=True, overlaps=True))


@given(full, st.data())
def test_take(log, data):
    chosen = data.draw(st.lists(st.integers(0, len(log) - 1), max_size=6)) if len(log) else []
    assert nested(checked(log.take(chosen))) == [nested(log)[row] for row in chosen]


@given(full, st.integers(0, 4), st.integers(0, 6))
def test_rows(log, start, stop):
    start = min(start, len(log))
    part = log.rows(start, max(start, stop))
    assert nested(checked(part)) == nested(log)[start:stop]
    assert part.items.base is not None  # a view, not a copy


@given(full, st.booleans(), st.data())
def test_sessions(log, keep_users, data):
    mask = data.draw(st.lists(st.booleans(), min_size=log.n_sessions, max_size=log.n_sessions))
    left, s = [], 0
    for user, sessions in nested(log):
        kept = [session for i, session in enumerate(sessions) if mask[s + i]]
        s += len(sessions)
        if kept or keep_users:
            left.append((user, kept))
    assert nested(checked(log.sessions(np.array(mask, bool), keep_users=keep_users))) == left


@given(full, st.booleans(), st.sets(st.integers(0, 5)))
def test_events(log, keep_users, wanted):
    ids = {x for code, x in enumerate(log.vocabulary.ids.tolist()) if code in wanted}
    part = log.events(np.isin(log.items, list(wanted)), keep_users=keep_users)
    assert nested(checked(part)) == rows_of(nested(log), lambda e: e[0] in ids, keep_users=keep_users)


@given(full, st.booleans(), st.integers(-1, 60))
def test_before(log, keep_users, minutes):
    instant = 1_700_000_000_000 + minutes * 60_000
    expected = rows_of(nested(log), lambda e: e[1] < instant, keep_users=keep_users)
    assert nested(checked(log.before(instant, keep_users=keep_users))) == expected


@given(full)
def test_positives(log):
    assert nested(checked(log.positives())) == rows_of(nested(log), lambda e: e[2] == 1, keep_users=True)


@given(logs(labels=False))
def test_positives_of_a_log_without_labels_is_the_log(log):
    assert log.positives() is log


@given(full, vocabularies())
def test_recode(log, other):
    known = set(other.ids.tolist()) if other.ids.dtype == log.vocabulary.ids.dtype else set()
    part = checked(log.recode(other))
    assert nested(part) == rows_of(nested(log), lambda e: e[0] in known, keep_users=True)
    assert part.vocabulary is other


@given(full)
def test_recode_with_the_same_ids_shares_the_columns(log):
    same = Vocabulary(log.vocabulary.ids.copy())
    assert log.recode(same).items is log.items
    assert log.recode(log.vocabulary) is log


@given(full)
def test_compact(log):
    part = checked(log.compact())
    assert nested(part) == nested(log)
    assert part.vocabulary.ids.tolist() == [x for c, x in enumerate(log.vocabulary.ids.tolist()) if c in set(log.items)]


@given(nested_ids(), st.one_of(st.none(), vocabularies()))
def test_from_lists(users, vocabulary):
    log = SessionLog.from_lists(users, vocabulary=vocabulary)
    known = {x for user in users for session in user for x in session} if vocabulary is None else set(vocabulary.ids)
    expected = []
    for user in users:
        sessions = []
        for s, session in enumerate(user):
            events = [(x, 3_600_000 * s + 1000 * e) for e, x in enumerate(session) if x in known]
            sessions += [events] if events else []
        expected.append(sessions)
    assert [[[e[:2] for e in session] for session in sessions] for _, sessions in nested(log)] == expected
    assert vocabulary is None or log.vocabulary is vocabulary


def test_from_lists_with_times():
    log = SessionLog.from_lists([[["a", "b"]], [["a"]]], times=[[[5, 7]], [[1]]])
    assert log.times.tolist() == [5, 7, 1]
    with pytest.raises(DataError, match="times must be nested as the items are"):
        SessionLog.from_lists([[["a", "b"]], [["a"]]], times=[[[5, 7], [1]]])


@given(full)
def test_as_sessions(log):
    expected = [[session] for _, sessions in nested(log) for session in sessions]
    assert [sessions for _, sessions in nested(checked(log.as_sessions()))] == expected


@given(full)
def test_derived_columns(log):
    rows = nested(log)
    flat = [(u, session) for u, (_, sessions) in enumerate(rows) for session in sessions]
    assert log.n_events == sum(len(session) for _, session in flat)
    assert log.n_sessions == len(flat)
    assert log.user_of_session.tolist() == [u for u, _ in flat]
    assert log.session_of_event.tolist() == [s for s, (_, session) in enumerate(flat) for _ in session]
    assert log.session_starts.tolist() == [session[0][1] for _, session in flat]
    assert log.session_ends.tolist() == [session[-1][1] for _, session in flat]
    least = np.iinfo(np.int64).min
    assert log.last_times.tolist() == [max((e[1] for s in sessions for e in s), default=least) for _, sessions in rows]
    ends = np.cumsum([sum(map(len, sessions)) for _, sessions in rows]).tolist()
    lengths = [len(sessions[-1]) if sessions else None for _, sessions in rows]
    expected = [(0, 0) if n is None else (end - n, end) for n, end in zip(lengths, ends, strict=True)]
    assert list(zip(*log.last_sessions, strict=True)) == expected
    counts = [sum(len(s) for s in sessions) for _, sessions in rows]
    assert np.diff(log.event_offsets).tolist() == counts


def test_overlapping_sessions_of_one_user_are_allowed_and_the_latest_event_is_found():
    log = SessionLog.from_lists([[["a", "b"], ["c"]]], times=[[[0, 100], [50]]])
    assert log.last_times.tolist() == [100]


def test_item_tables_follow_the_vocabulary():
    table = ItemTable({"colour": ItemFeature.of([["red"], [], ["blue", "red"]])}, np.array(["A", "B", "C"], object))
    log = replace(SessionLog.from_lists([[["a", "b", "c"]]]), item_table=table)
    other = log.recode(Vocabulary(["c", "x", "a"]))
    assert other.item_table.features["colour"].rows() == [["blue", "red"], [], ["red"]]
    assert other.item_table.titles.tolist() == ["C", "", "A"]


def test_repr_shows_the_sizes():
    assert (
        repr(SessionLog.from_lists([[["a", "b"], ["a"]], []])) == "SessionLog(2 users, 2 sessions, 3 events, 2 items)"
    )


LOG = SessionLog.from_lists([[["a", "b"], ["a"]], [["c"]]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"times": np.arange(3)}, r"Column 'times' must have one value an event \(4\), it has 3\."),
        ({"labels": np.ones(5, np.int8)}, r"Column 'labels' must have one value an event \(4\), it has 5\."),
        ({"actions": np.zeros(1, np.int16)}, "Column 'actions' must have"),
        ({"features": {"device": np.zeros(2)}}, "Column 'device' must have"),
        ({"session_offsets": np.array([0, 2, 3])}, "session_offsets must rise from 0 to 4"),
        ({"session_offsets": np.array([], np.int64)}, "session_offsets must rise from 0 to 4"),
        ({"session_offsets": np.array([0, 3, 2, 4])}, "session_offsets must rise from 0 to 4"),
        ({"user_offsets": np.array([1, 2, 3])}, "user_offsets must rise from 0 to 3"),
        ({"users": np.arange(5)}, r"There must be one user id a row \(2\), got 5\."),
        ({"items": np.array([0, 1, 0, 3], np.int32)}, r"Item codes must be in 0\.\.2\."),
        ({"items": np.array([0, 1, 0, -1], np.int32)}, r"Item codes must be in 0\.\.2\."),
        ({"labels": np.array([1, 0, 2, 1], np.int8)}, r"Labels must be 1 \(wanted\) or 0 \(ignored\)"),
        ({"labels": np.array([1, 0, -1, 1], np.int8)}, r"Labels must be 1 \(wanted\) or 0 \(ignored\)"),
        (
            {"actions": np.array([0, 1, 2, 0], np.int16), "action_names": ("a", "b")},
            r"Actions must be places .* 0\.\.1",
        ),
        ({"actions": np.array([0, 0, -1, 0], np.int16), "action_names": ("a",)}, r"Actions must be places .* 0\.\.0"),
        ({"session_offsets": np.array([0, 2, 2, 4])}, "A session must have at least one event"),
        (
            {"times": np.array([2, 1, 3, 0])},
            "Events of a session, and first events of a user's sessions, must be",
        ),
        (
            {"times": np.array([5, 6, 3, 0])},
            "Events of a session, and first events of a user's sessions, must be",
        ),
        ({"item_table": ItemTable({"colour": ItemFeature.of([["red"]])})}, "'colour' must have 3 rows, one an item"),
        ({"item_table": ItemTable({}, np.array(["A"], object))}, "There must be 3 titles, one an item; there are 1"),
    ],
)
def test_a_log_that_breaks_a_rule_is_refused(change, message):
    with pytest.raises(DataError, match=message):
        replace(LOG, **change)


def test_rows_that_do_not_exist_are_refused():
    with pytest.raises(DataError, match=r"Rows must be in 0\.\.1; got -1\.\.-1"):
        LOG.take([-1])
    with pytest.raises(DataError, match=r"Rows must be in 0\.\.1; got 0\.\.2"):
        LOG.take([0, 2])
    with pytest.raises(DataError, match=r"take needs the numbers of rows, got a mask; use np\.flatnonzero"):
        LOG.take(np.array([True, False]))


def test_logs_are_immutable():
    with pytest.raises(AttributeError):
        LOG.items = np.zeros(4, np.int32)
