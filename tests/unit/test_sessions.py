import numpy as np
import pytest

from nextsession.data.sessions import NEVER, Event, SessionState, arrange, sessionise, sessionise_slowly
from nextsession.errors import DataError


def cut(users, times, **rule):
    """The rows of every session of every user, as lists."""
    users, times = np.array(users, np.int32), np.array(times, np.int64)
    for name, kind in (("positions", np.float64), ("sessions", np.int32)):
        if name in rule:
            rule[name] = np.array(rule[name], kind)
    order = arrange(users, times, n_users=int(users.max()) + 1, **rule)
    sessions = np.split(order.rows, order.session_offsets[1:-1])
    return [
        [rows.tolist() for rows in sessions[a:b]]
        for a, b in zip(order.user_offsets[:-1], order.user_offsets[1:], strict=True)
    ]


def test_an_event_exactly_the_gap_after_the_last_belongs_to_the_same_session():
    assert cut([0, 0, 0], [0, 10, 21], gap=10) == [[[0, 1], [2]]]


def test_sessions_never_cross_users():
    assert cut([0, 1, 0], [0, 1, 2], gap=10) == [[[0, 2]], [[1]]]


def test_events_of_one_instant_keep_the_order_of_rows():
    assert cut([0] * 4, [7, 5, 7, 5], gap=10) == [[[1, 3, 0, 2]]]


def test_positions_break_ties_before_rows_do():
    assert cut([0] * 4, [7, 5, 7, 5], gap=10, positions=[1, 2, 0, 1]) == [[[3, 1, 2, 0]]]
    assert cut([0] * 3, [5, 5, 5], gap=10, positions=[2, 1, 1]) == [[[1, 2, 0]]]


def test_a_gap_of_nothing_makes_each_instant_a_session():
    assert cut([0] * 4, [1, 2, 1, 2], gap=0) == [[[0, 2], [1, 3]]]


def test_no_gap_at_all_makes_each_user_a_session():
    assert cut([1, 0, 1], [1, 2, 10**15], gap=NEVER) == [[[1]], [[0, 2]]]


def test_given_sessions_may_overlap_and_come_in_the_order_of_their_first_events():
    assert cut([0] * 5, [5, 1, 2, 3, 4], sessions=[0, 1, 0, 1, 0]) == [[[1, 3], [2, 4, 0]]]


def test_given_sessions_of_one_start_keep_the_order_of_rows():
    assert cut([0] * 4, [1, 1, 2, 2], sessions=[1, 0, 0, 1]) == [[[0, 3], [1, 2]]]


def test_an_id_of_a_session_counts_within_its_user_only():
    assert cut([0, 1, 0, 1], [1, 2, 3, 4], sessions=[7, 7, 7, 7]) == [[[0, 2]], [[1, 3]]]


def test_sessionise_sorts_ids_and_keeps_times():
    log = sessionise([9, 10, 9], ["b", "a", "c"], [5, 1, 100], gap=50)
    assert log.users.tolist() == [9, 10]
    assert log.vocabulary.ids.tolist() == ["a", "b", "c"]
    assert log.items.tolist() == [1, 2, 0]
    assert log.times.tolist() == [5, 100, 1]
    assert (log.session_offsets.tolist(), log.user_offsets.tolist()) == ([0, 1, 2, 3], [0, 2, 3])


def test_sessionise_of_nothing():
    log = sessionise([], [], [], gap=5)
    assert (len(log), log.n_sessions, log.n_events) == (0, 0, 0)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(DataError, match="must be of one length; they have 2, 1 and 2"):
        sessionise([1, 2], [1], [1, 2], gap=5)


def test_the_slow_form():
    events = [("u", "a", 0), ("u", "b", 11), ("u", "c", 21), ("v", "a", 3)]
    assert sessionise_slowly(events, gap=10) == {"u": [["a"], ["b", "c"]], "v": [["a"]]}


def test_a_step_changes_no_state():
    start = SessionState(gap=10)
    first, closed = start.step(Event("a", 0))
    assert (start.open, closed) == ((), None)
    same, closed = first.step(Event("b", 10))
    assert (same.open, closed) == ((Event("a", 0), Event("b", 10)), None)
    new, closed = first.step(Event("b", 11))
    assert (new.open, closed) == ((Event("b", 11),), (Event("a", 0),))
    assert first.open == (Event("a", 0),)


def test_a_stream_must_come_in_the_order_of_time():
    state, _ = SessionState(gap=10).step(Event("a", 5))
    with pytest.raises(DataError, match="in the order of time; 4 came after 5"):
        state.step(Event("b", 4))
