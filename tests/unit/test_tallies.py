"""Tallies: how often every item had occurred by any instant, against counting one event after another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession import tallies
from nextsession.tallies import Tally

V = 5
EVENTS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, V - 1)), max_size=40)


def tally_of(events: list[tuple[int, int]], n_items: int = V) -> Tally:
    times, items = [t for t, _ in events], [i for _, i in events]
    return Tally.of(np.array(times, np.int64), np.array(items, np.int32), n_items)


@pytest.fixture(params=[1, 3, 4096], ids=lambda n: f"a photograph every {max(n, V)} events", autouse=True)
def closest(request, monkeypatch):
    monkeypatch.setattr(tallies, "_CLOSEST", request.param)


@given(events=EVENTS, instant=st.integers(-2, 33), windows=st.lists(st.integers(0, 12), min_size=1, max_size=3))
def test_counts_are_those_of_a_loop(events, instant, windows):
    tally = tally_of(events)
    assert tally.before(instant).tolist() == [sum(t < instant and i == v for t, i in events) for v in range(V)]
    assert tally.between(instant, np.array(windows)).tolist() == [
        [sum(instant - w <= t < instant and i == v for t, i in events) for v in range(V)] for w in windows
    ]
    never = np.iinfo(np.int64).max
    assert tally.firsts.tolist() == [min((t for t, i in events if i == v), default=never) for v in range(V)]


def test_an_event_counts_from_the_instant_after_it_to_the_end_of_the_window():
    tally = tally_of([(10, 2)])
    found = [int(tally.between(instant, np.array([5]))[0, 2]) for instant in range(9, 18)]
    assert found == [0, 0, 1, 1, 1, 1, 1, 0, 0]


@given(events=EVENTS, more=EVENTS, instant=st.integers(0, 33))
def test_tallies_are_joined_as_if_they_had_been_one(events, more, instant):
    more = [(t, i + 2) for t, i in more]  # items of a vocabulary that has grown
    joined = tally_of(events).joined(
        np.array([t for t, _ in more], np.int64), np.array([i for _, i in more], np.int32), V + 2
    )
    assert joined.before(instant).tolist() == tally_of([*events, *more], V + 2).before(instant).tolist()


def test_asking_changes_nothing():
    tally = tally_of([(t, t % V) for t in range(40)])
    first = tally.before(25).copy()
    tally.before(40)[:] = 99
    assert tally.before(25).tolist() == first.tolist()
