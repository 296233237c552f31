"""Shadows: asked what others answered, seen by nobody; a slow or failing one changes nothing."""

import threading
import time

import numpy as np
import pytest
from starlette.testclient import TestClient

from nextsession import SessionLog, create
from nextsession.errors import ConfigError
from nextsession.recommender import Recommender
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Rules
from nextsession.serving.export import rows
from nextsession.serving.memory import MemoryStore
from nextsession.serving.questions import Question
from nextsession.serving.served import prepared
from nextsession.serving.server import Server
from nextsession.serving.shadow import Shadows

GAP, NOW = 1_800_000, 1_700_000_000_000
LOG = SessionLog.from_lists([[["tea", "milk", "sugar"], ["tea", "milk"]], [["coffee", "sugar", "milk"]], [["soap"]]])


def served(name, version):
    return prepared(create(name).fit(LOG), gap=GAP, version=version)


class Odd(Recommender):
    """A model that fails, or waits until it is let go, once it is served."""

    name = "odd"
    settings_class = create("popular").settings_class
    fails = False
    waits: threading.Event | None = None

    def _fit(self, log, runtime):
        self.counts_ = np.bincount(log.items, minlength=log.n_items)

    def _score(self, histories, asked_at):
        if self.waits is not None:
            self.waits.wait(30)
        if self.fails:
            raise ZeroDivisionError("a fault of the model")
        return create("popular").fit(LOG)._score(histories, asked_at)


def engine(shadow, **settings):
    arms = {"main": (served("markov", "m1"), 1.0), "new": (shadow, 0.0)}
    one = Engine(Arms(arms, now=NOW, roles={"new": "shadow"}), MemoryStore(Rules()))
    one.shadows = Shadows(one.arms, one.chain, one.store, claim=1.0, **settings)
    return one


def until(true):
    for _ in range(3000):
        if true():
            return
        time.sleep(0.01)
    raise AssertionError("it does not come to pass")


def asked(one, number=1, **more):
    question = Question(**{"visitor": "ann", "items": ("tea",), "k": 3, **more})
    return [one.recommend(question, NOW + i) for i in range(number)]


def test_what_the_shadow_would_have_listed_is_noted_as_nobodys():
    one = engine(served("popular", "p1"))
    (answer,) = asked(one)
    until(lambda: len(list(one.store.shown())) == 2)
    (_, shown), (_, unseen) = one.store.shown()
    assert (shown.shadow, shown.arm, shown.version) == (False, "main", "m1")
    assert (unseen.shadow, unseen.arm, unseen.version, unseen.visitor) == (True, "new", "p1", "ann")
    assert unseen.request == shown.request == answer.request
    alone = Engine(Arms({"new": (served("popular", "p1"), 1.0)}, now=NOW), MemoryStore())
    assert unseen.items == tuple(x.item for x in asked(alone)[0].items), "it is what it would have answered"
    tally = one.shadows.tallies["new"]
    assert (tally.answers, tally.failures, tally.dropped, sum(tally.buckets)) == (1, 0, 0, 1)
    assert tally.overlap == pytest.approx(len(set(unseen.items) & set(shown.items)) / 3)
    assert {row["item"] for row in rows(one.store, shown=True)} == set(shown.items), "nobody saw the other list"
    one.close()


def test_which_questions_a_shadow_gets():
    one = engine(served("popular", "p1"))
    asked(one, arm="main")
    asked(one, arm="new")
    asked(one, consent=False)
    asked(one, shown=False)
    asked(one, visitor=None)
    until(lambda: one.shadows.tallies.get("new") is not None and one.shadows.tallies["new"].answers == 3)
    assert [s.shadow for _, s in one.store.shown()] == [False, False], "only what was shown is noted of the shadow, too"
    one.close()


def plain(answers):
    return [([(x.item, x.score, x.source) for x in a.items], a.arm, a.version, a.degraded) for a in answers]


def without_shadow(number):
    one = Engine(Arms({"main": (served("markov", "m1"), 1.0)}, now=NOW), MemoryStore(Rules()))
    return plain(asked(one, number))


def test_a_shadow_that_fails_changes_nothing(caplog):
    model = Odd().fit(LOG)
    one = engine(prepared(model, gap=GAP, version="o1"))
    model.fails = True
    assert plain(asked(one, 5)) == without_shadow(5)
    until(lambda: one.shadows.tallies["new"].failures == 5)
    assert one.shadows.tallies["new"].answers == 0
    assert not any(shown.shadow for _, shown in one.store.shown())
    assert caplog.text.count("The shadow new, version o1, failed: a fault of the model") == 1
    assert "ann" not in caplog.text
    model.fails = False
    asked(one)
    until(lambda: one.shadows.tallies["new"].answers == 1)
    one.close()


def test_a_shadow_that_is_slow_changes_nothing_and_drops_what_is_too_much():
    model = Odd().fit(LOG)
    one = engine(prepared(model, gap=GAP, version="o1"), most=3)
    model.waits = threading.Event()
    first = asked(one)
    until(lambda: one.shadows.waiting == 0)  # the thread is at the first
    found = first + asked(one, 10)
    assert plain(found) == without_shadow(1) + without_shadow(10)
    assert one.shadows.waiting == 3
    assert one.shadows.tallies["new"].dropped == 7
    model.waits.set()
    until(lambda: one.shadows.tallies["new"].answers == 4)
    one.close()
    asked(one)
    assert one.shadows.tallies["new"].answers == 4, "after the end nobody is asked"


def test_a_shadow_rests_four_times_as_long_as_it_worked(monkeypatch):
    one = engine(served("popular", "p1"))
    one.shadows = Shadows(one.arms, one.chain, one.store)
    rests, clock = [], iter(range(1000))
    monkeypatch.setattr("nextsession.serving.shadow.perf_counter", lambda: next(clock))
    monkeypatch.setattr(one.shadows._stopped, "wait", rests.append)
    asked(one)
    until(lambda: rests)
    assert rests == [pytest.approx(4 * 3)]  # the clock was read four times
    one.close()


def test_a_shadow_answers_nobody_until_it_is_told_to():
    one = engine(served("popular", "p1"))
    with pytest.raises(ConfigError, match="The arm 'new' is there to shadow the others: its weight must be 0"):
        one.arms.weigh({"new": 1})
    one.arms.weigh({"new": 1, "main": 0}, {"new": "answer"})
    assert asked(one)[0].arm == "new"
    assert one.arms.shadows == ()
    one.close()


def test_the_numbers_of_shadows():
    one = engine(served("popular", "p1"))
    server = Server(one, lambda place: served("popular", "p2"), lambda: NOW)
    with TestClient(application(server)) as client:
        for _ in range(3):
            client.post("/v1/recommendations", json={"visitor": "ann", "items": ["tea"], "k": 3})
        until(lambda: "new" in one.shadows.tallies and one.shadows.tallies["new"].answers == 3)
        server.second()
        (found,) = client.get("/v1/operations").json()["shadows"]
        assert (found["arm"], found["model"], found["version"]) == ("new", "popular", "p1")
        assert (found["answers"], found["failures"], found["dropped"]) == (3, 0, 0)
        assert 0 < found["overlap"] <= 1
        assert found["p50"] > 0
        text = client.get("/metrics").text
        assert 'nextsession_shadow_answers_total{arm="new"} 3' in text
        assert 'nextsession_shadow_seconds_count{arm="new"} 3' in text
        assert "# TYPE nextsession_shadow_seconds histogram" in text
        arms = client.get("/v1/operations").json()["arms"]
        assert [(arm["arm"], arm["answers"]) for arm in arms] == [("main", 3), ("new", 0)], "it is no arm to compare"
        assert [shown["shadow"] for shown in client.get("/v1/visitors/ann").json()["shown"]].count(True) == 3
