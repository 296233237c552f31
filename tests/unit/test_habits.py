"""Habits: what everybody has again is counted, but never what the question is about."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nextsession import create, load
from nextsession.asking import AskedRows, MomentSettings
from nextsession.config import Runtime
from nextsession.data.log import SessionLog
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ConfigError
from nextsession.habits import Habits
from nextsession.slices import latest
from nextsession.testing.strategies import logs

V = 6
NAMES = Vocabulary(np.arange(V))
MOST = 50


def questions(log: SessionLog) -> AskedRows:
    settings = MomentSettings(windows=(), asks="next-session", habits=True)
    return AskedRows.of(
        log, settings, None, MOST, 0, seen=lambda x: latest(x.event_offsets, MOST), kinds=lambda _: None
    )


def counted(log: SessionLog, person: int | None, session: int, item: int) -> tuple[int, int]:
    """How many people wanted an item, and how often; of one person, only before a session."""
    people, times = 0, 0
    for u in range(len(log)):
        own = 0
        for s in range(log.user_offsets[u], log.user_offsets[u + 1]):
            if u == person and s >= session:
                break
            events = slice(log.session_offsets[s], log.session_offsets[s + 1])
            own += int(np.sum((log.items[events] == item) & (log.labels[events] == 1)))
        times += own
        people += own > 0
    return people, times


def told(people: int, again: int) -> list[float]:
    return [np.log1p(people) / 4, np.log1p(again) / 4, np.log((again + 0.5) / (people + 10))]


@given(log=logs(vocabulary=NAMES, empty_users=True))
def test_questions_of_training_count_everybody_but_what_they_ask_for(log: SessionLog) -> None:
    rows = questions(log)
    if not len(rows):
        return
    every = np.arange(len(rows))
    found = rows.batch(every).known
    assert found is not None
    for row, item, numbers in zip(found.rows.tolist(), found.had.tolist(), found.features.numpy(), strict=True):
        person, asked = int(rows.plan.groups[row]), int(log.sessions_of(rows.plan.asked_from[[row]])[0])
        people, times = counted(log, person, asked, item)
        np.testing.assert_allclose(numbers[-3:], told(people, times - people), rtol=1e-5)


@given(log=logs(vocabulary=NAMES), data=st.data())
def test_what_is_asked_for_does_not_show_in_what_is_known(log: SessionLog, data: st.DataObject) -> None:
    rows = questions(log)
    if not len(rows):
        return
    row = data.draw(st.integers(0, len(rows) - 1))
    plan, items = rows.plan, log.items.copy()
    first, end = int(plan.asked_from[row]), int(log.event_offsets[plan.groups[row] + 1])
    items[first:end] = data.draw(st.lists(st.integers(0, V - 1), min_size=end - first, max_size=end - first))
    changed = questions(replace(log, items=items))
    before, after = rows.batch(np.array([row])).known, changed.batch(np.array([row])).known
    assert before is not None
    assert after is not None
    np.testing.assert_array_equal(before.features.numpy(), after.features.numpy())


def test_answers_count_everybody() -> None:
    log = SessionLog.from_lists([[[0, 1], [0]], [[0], [1]], [[2]]], vocabulary=NAMES)
    found = Habits.of(log).features(np.array([0, 1, 2, 3]), np.array([2, 1, 1, 1]))
    np.testing.assert_allclose(found, [told(2, 1), told(2, 0), told(1, 0), told(0, 0)], rtol=1e-6)


@given(log=logs(vocabulary=NAMES))
def test_habits_are_kept_and_new_items_have_none(log: SessionLog) -> None:
    habits = Habits.of(log)
    again = Habits.restored(habits.arrays())
    assert again is not None
    items, past = np.arange(V), np.zeros(V, np.int64)
    np.testing.assert_array_equal(again.features(items, past), habits.features(items, past))
    more = habits.extended(V + 2).features(np.arange(V + 2), np.zeros(V + 2, np.int64))
    np.testing.assert_array_equal(more[:V], habits.features(items, past))
    np.testing.assert_allclose(more[V:], [told(0, 0)] * 2, rtol=1e-6)
    assert Habits.restored({}) is None


def staples() -> SessionLog:
    """People who have items 0 to 9 again in every session, and two of 10 to 199 that they never have again."""
    rng = np.random.default_rng(0)
    people = []
    for _ in range(80):
        own, rare = rng.choice(10, 2, replace=False), rng.permutation(np.arange(10, 200))
        people.append([[*own.tolist(), *rare[2 * s : 2 * s + 2].tolist()] for s in range(4)])
    return SessionLog.from_lists(people, vocabulary=Vocabulary(np.arange(200)))


def test_a_model_learns_what_is_had_again_and_what_is_not(tmp_path) -> None:
    log = staples()
    settings = {"dim": 8, "layers": 1, "heads": 1, "epochs": 30, "batch_size": 64, "learning_rate": 0.01}
    model = create("sessionrec", **settings, moment={"windows": [], "asks": "next-session", "habits": True})
    model.fit(log, runtime=Runtime(seed=0))
    asked = SessionLog.from_lists([[[3, 7, 50, 60]]], vocabulary=log.vocabulary)
    assert set(model.recommend(asked, k=2).items[0].tolist()) == {3, 7}
    model.save(tmp_path / "kept")
    again = load(tmp_path / "kept").recommend(asked, k=5)
    np.testing.assert_array_equal(again.items, model.recommend(asked, k=5).items)
    np.testing.assert_array_equal(again.scores, model.recommend(asked, k=5).scores)


def test_habits_without_repeats_are_refused() -> None:
    with pytest.raises(ConfigError, match="habits"):
        create("sessionrec", moment={"windows": [], "habits": True, "repeats": False})
