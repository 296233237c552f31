import numpy as np
import pytest

from nextsession.data.synthetic import cycle
from nextsession.errors import DataError


def test_the_next_item_is_always_the_successor_across_sessions_too():
    log = cycle(7, 5, 3, 4)
    for user in range(5):
        items = log.items[log.event_offsets[user] : log.event_offsets[user + 1]].tolist()
        assert items[1:] == [(i + 1) % 7 for i in items[:-1]]


def test_the_next_session_is_the_next_three_items():
    log = cycle(10, 4, 5, 3)
    sessions = np.split(log.items, log.session_offsets[1:-1])
    for s in range(log.n_sessions - 1):
        if log.user_of_session[s] == log.user_of_session[s + 1]:
            assert set(sessions[s + 1].tolist()) == {(sessions[s][-1] + d) % 10 for d in (1, 2, 3)}


def test_sizes_and_times():
    log = cycle(6, 3, 2, 5, start=1000)
    assert (len(log), log.n_sessions, log.n_events, log.n_items) == (3, 6, 30, 6)
    assert log.times.min() == 1000
    assert len(np.unique(log.times)) == 30
    gaps = log.session_starts[1:] - log.session_ends[:-1]
    assert np.all(gaps[log.user_of_session[1:] == log.user_of_session[:-1]] > 12 * 3_600_000)


def test_users_begin_by_the_seed():
    assert np.array_equal(cycle(seed=3).items, cycle(seed=3).items)
    assert not np.array_equal(cycle(seed=3).items, cycle(seed=4).items)


def test_a_cycle_of_nothing_is_refused():
    with pytest.raises(DataError, match="at least one item"):
        cycle(0)
