"""Records made again from the log are those that events made, whatever the events are called."""

import contextlib
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession.errors import StoreError
from nextsession.serving.events import DAY, NOTHING, Event, Rules, Shown, latest
from nextsession.serving.sqlite import SQLiteStore

NOW = 1_700_000_000_000


def slow_latest(events, rules):
    run, touched = [], 0
    for one in events:
        if one[0] - touched > rules.ttl:
            run = []
        run.append(one)
        touched = max(touched, one[0])
    return sorted(run, key=lambda one: one[1])[-rules.keep :], touched


TIMES = st.one_of(st.integers(-5, 40), st.integers(0, 4).map(lambda tens: 10 * tens))


@given(st.lists(st.tuples(TIMES, TIMES)), st.integers(0, 20), st.integers(1, 5))
def test_the_latest_are_those_of_one_event_after_the_other(told, ttl, keep):
    events = [(arrived, (time, seq)) for seq, (arrived, time) in enumerate(told)]
    rules = Rules(ttl=ttl, keep=keep)
    assert latest(events, rules, lambda one: one[0], lambda one: one[1]) == slow_latest(events, rules)


NAMES = [
    "",
    "\0",
    "a\0b",
    "\x01\x1f\x7f",
    '"',
    "\\",
    "\\u0000",
    "'",
    "null",
    "7",
    "1e5",
    "é",
    "\u2028",
    "\uffff",
    "\U0001f375",
]


def written(store):
    return store._rows("SELECT person, touched, record FROM people ORDER BY person")


def test_whatever_events_are_called_their_record_is_the_same_to_the_byte(tmp_path):
    store = SQLiteStore(tmp_path / "events.sqlite")
    for place, name in enumerate(NAMES):
        store.append([Event(name, "ann", name, NOW - place, name or "click", place % 2)], NOW)
        store.append([Event(name, f"of {name}", "tea", -(2**62), "click", -place)], NOW)
    store.append([Event("far", "ann", "tea", 2**62)], 2**62)
    before = written(store)
    assert len(before) == len(NAMES) + 1
    store._submit(lambda writing: writing._do("UPDATE people SET touched = NULL, record = NULL"), 0).result()
    assert store.rebuild() == len(before)
    assert written(store) == before
    assert [e.item for e in store.record("ann", 2**62).events] == ["tea"]
    store.close()


def test_who_has_no_events_has_no_record(tmp_path):
    store = SQLiteStore(tmp_path / "events.sqlite")
    assert store.rebuild() == 0
    store.append(
        [Event("a", "ann", "tea", NOW), Event("b", "bob", "tea", NOW), Event("s", "eve", "tea", NOW, "shown")], NOW
    )
    store.append([Event("t", "ann", "tea", NOW, "shown")], NOW)
    store.submit_shown(Shown("r", "sue", NOW, "main", "v", ("tea",)))
    store._submit(lambda writing: writing._do("DELETE FROM events WHERE id = 'a'"), 0).result()
    assert store.rebuild() == 1
    assert [store.record(name, NOW) == NOTHING for name in ("ann", "bob", "eve", "sue")] == [True, False, True, True]
    store.close()


def test_where_there_is_no_room_for_new_records_the_old_ones_stand(tmp_path):
    path = tmp_path / "events.sqlite"
    store = SQLiteStore(path)
    for start in range(0, 3000, 100):
        store.append([Event(f"{i}", f"v{i % 300}", "tea" * 30, NOW + i) for i in range(start, start + 100)], NOW + DAY)
    store.close()
    smaller = SQLiteStore(path, Rules(keep=2))
    smaller.rebuild()
    few = written(smaller)
    smaller.close()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")  # what is free would be room
    full = SQLiteStore(path, largest=1)  # SQLite: no fewer than there are
    with pytest.raises(StoreError, match="full"):
        full.rebuild()
    assert written(full) == few
    assert full.append([Event("0", "v0", "tea", NOW)], NOW + DAY)[0].status == "duplicate"
    full.close()
