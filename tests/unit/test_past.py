"""Yesterday's log and today's events: no gap, no overlap, whatever came late, was merged or erased."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nextsession import SessionLog, create
from nextsession.data.sessions import sessionise
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Event, Rules
from nextsession.serving.memory import MemoryStore
from nextsession.serving.past import Past
from nextsession.serving.questions import Question
from nextsession.serving.served import prepared

NOW = 1_700_000_000_000
GAP = 1_800_000
SERVED = prepared(create("markov").fit(SessionLog.from_lists([[["a", "b", "c"], ["c", "a"]]])), gap=GAP)


def exported(store):
    """What a training log of the store would be at this moment."""
    events = [stored.event for stored in store.events()]
    if not events:
        return SessionLog.from_lists([])
    log = sessionise([e.visitor for e in events], [e.item for e in events], [e.time for e in events], gap=GAP)
    label = {(e.visitor, e.time): e.label for e in events}
    rows = np.repeat(np.arange(len(log)), np.diff(log.event_offsets))
    keys = zip(log.users[rows].tolist(), log.times.tolist(), strict=True)
    return replace(log, labels=np.array([label[key] for key in keys], np.int8))


def history(engine, visitor):
    answer = engine._events(Question(visitor=visitor), NOW, [])
    return [(e.time, e.item, e.label) for e in answer]


arrivals = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "7"]), st.sampled_from("abcx"), st.integers(0, 1)), max_size=14
)


@settings(max_examples=40)
@given(arrivals, st.randoms(use_true_random=False), st.integers(0, 14), st.sampled_from(["", "merge", "erase"]))
def test_the_two_sides_make_one_history(told, random, cut, upset):
    """Events arrive in any order; at some place of the log a training log is made; later something happens."""
    start = NOW - 10**6
    events = [Event(f"e{i}", who, item, start + 1000 * i, "click", label) for i, (who, item, label) in enumerate(told)]
    random.shuffle(events)
    live = MemoryStore(Rules(keep=9))
    live.append(events[:cut], NOW)
    snapshot, place = exported(live), live.last()
    live.append(events[cut:], NOW)
    if upset == "merge":
        live.merge("7", "ann", NOW)
    if upset == "erase":
        live.erase("ann", NOW - 5)
        live.append([Event("new", "ann", "a", NOW - 1)], NOW)
    arms = Arms({"main": (SERVED, 1.0)}, now=NOW)
    whole = Engine(arms, live)
    for visitor in ("ann", "bob", "7", "nobody"):
        joined = history(Engine(arms, live, past=Past(snapshot, after=place)), visitor)
        assert joined == history(whole, visitor)


def test_without_a_place_the_log_ends_where_its_last_event_does():
    snapshot = SessionLog.from_lists([[["a", "b"]]], times=[[[NOW - 50, NOW - 40]]])
    snapshot = replace(snapshot, users=np.array(["ann"], dtype=object))
    store = MemoryStore(Rules())
    store.append([Event("1", "ann", "b", NOW - 40), Event("2", "ann", "c", NOW - 30)], NOW)
    engine = Engine(Arms({"main": (SERVED, 1.0)}, now=NOW), store, past=Past(snapshot))
    assert [item for _, item, _ in history(engine, "ann")] == ["a", "b", "c"]
    answer = engine.recommend(Question(visitor="ann", exclude="nothing", shown=False), NOW)
    assert answer.items[0].item == "a", "c is followed by a"
    store.erase("ann", NOW - 10)
    assert history(engine, "ann") == [], "what was erased is not read from yesterday's log either"


def test_actions_and_shown_items_of_the_past():
    log = SessionLog(
        items=np.array([0, 1, 0], np.int32),
        times=np.array([1, 2, 3]),
        session_offsets=np.array([0, 3]),
        user_offsets=np.array([0, 1]),
        vocabulary=SERVED.model.vocabulary_,
        labels=np.array([1, 0, 1], np.int8),
        actions=np.array([0, 1, 0], np.int16),
        action_names=("cart", "shown"),
        users=np.array(["ann"], dtype=object),
    )
    past = Past(log)
    assert len(past) == 1
    found = past.joined({"ann": None}, (), 5)
    assert [(e.item, e.action) for e in found] == [("a", "cart"), ("a", "cart")]
    assert past.joined({"bob": None}, (), 5) == ()
