"""A clock that jumps, forth and back, by seconds or by years: nothing acknowledged is lost, and all heals."""

import logging
import random

import pytest
from starlette.testclient import TestClient

from nextsession import SessionLog, create
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import DAY, Rules
from nextsession.serving.learning import Learner
from nextsession.serving.memory import MemoryStore
from nextsession.serving.served import prepared
from nextsession.serving.server import Server, ServerSettings
from nextsession.serving.sqlite import SQLiteStore

NOW, MINUTE, HOUR, YEAR = 1_700_000_040_000, 60_000, 3_600_000, 365 * DAY
KEPT_FOR = 10 * DAY


class Clocks:
    """One that is set, and one that nobody sets."""

    def __init__(self):
        self.now, self.steady = NOW, 1000.0

    def wait(self, ms):
        self.now, self.steady = self.now + ms, self.steady + ms / 1000

    def jump(self, ms):
        self.now += ms


class Shop:
    """A server whose model learns on, without HTTP's own thread: what is done every second is done when it is said."""

    def __init__(self, store, model="recent"):
        log = SessionLog.from_lists([[["tea", "milk", "rare"], ["tea", "milk"]]], times=[[[1, 2, 3], [DAY, DAY + 1]]])
        arms = Arms({"main": (prepared(create(model).fit(log), gap=1_800_000), 1.0)}, now=NOW)
        self.clocks, self.store, self.number = Clocks(), store, 0
        self.acknowledged, self.sent = [], []
        self.server = Server(
            Engine(arms, store),
            lambda place: None,
            lambda: self.clocks.now,
            steady=lambda: self.clocks.steady,
            learner=Learner(arms, store, every=MINUTE),
            settings=ServerSettings(retention=KEPT_FOR),
        )
        self.client = TestClient(application(self.server), raise_server_exceptions=False)

    def post(self, path, body):
        response = self.client.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()

    def click(self, visitor, item, at=None):
        """Send an event, alone or with a question; return what became of it."""
        self.number += 1
        event = {"visitor": visitor, "item": item, "id": f"e{self.number}", "time": at}
        if self.number % 2:
            status = self.post("/v1/events", event)["outcomes"][0]["status"]
        else:
            status = self.post("/v1/recommendations", {"visitor": visitor, "event": event})["recorded"]["status"]
        if status == "accepted":
            self.acknowledged.append(event["id"])
            self.sent.append({**event, "time": 0})
        return status

    def second(self):
        self.clocks.wait(1000)
        self.server.second()
        self.server.learn()

    def lists(self, visitor=None):
        return [one["item"] for one in self.post("/v1/recommendations", {"visitor": visitor, "k": 5})["items"]]

    def kept(self):
        return [stored.event.id for stored in self.store.events()]


@pytest.fixture(params=["memory", "sqlite", "sqlite alone"])
def shop(request, tmp_path):
    rules = Rules(ttl=30 * DAY, keep=50)
    if request.param == "memory":
        store = MemoryStore(rules)
    else:
        store = SQLiteStore(tmp_path / "events.sqlite", rules, alone=request.param == "sqlite alone")
    found = Shop(store)
    found.second()
    yield found
    found.server.close()


@pytest.mark.parametrize("jump", [2 * MINUTE, 5 * DAY, YEAR, -2 * MINUTE, -5 * DAY, -YEAR])
def test_after_a_jump_and_back_it_is_as_if_there_had_been_none(shop, jump, caplog):
    for item in ("tea", "tea", "milk"):
        assert shop.click("ann", item) == "accepted"
        shop.second()
    shop.clocks.jump(jump)
    with caplog.at_level(logging.WARNING):
        shop.second()
    assert [record.getMessage() for record in caplog.records] == [
        f"The clock was set by {jump / 1000:+.0f} s; no visitor is forgotten for a day."
    ]
    for _ in range(2):
        assert shop.click("bob", "odd") == "accepted"
        assert "rare" in shop.lists("bob")
        shop.second()
    shop.clocks.wait(2 * HOUR)  # long enough for a sweep
    shop.second()
    shop.clocks.jump(-jump)
    shop.second()
    assert len(shop.store.record("ann", shop.clocks.now).events) == 3, "ann was forgotten"
    assert shop.kept() == shop.acknowledged
    for _ in range(5):
        assert shop.click("eve", "milk") == "accepted"
    shop.clocks.wait(2 * MINUTE)
    shop.second()
    (learnt,) = shop.server.learner.learnt.values()
    assert (learnt.until, learnt.events, learnt.error) == (shop.clocks.now // MINUTE * MINUTE, 10, "")
    assert shop.lists()[0] == "milk", "what was clicked in the future outdoes everything"
    assert shop.server.engine.recent.items[0] == "milk"
    shop.clocks.wait(25 * HOUR)  # the day of rest is over
    shop.second()
    assert shop.kept() == shop.acknowledged
    assert shop.server.metrics.now.counters["clock_jumps_total"] == 2


def test_a_server_that_starts_after_a_jump_says_what_one_says_that_was_there(tmp_path):
    one = Shop(SQLiteStore(tmp_path / "events.sqlite"))
    one.click("ann", "tea")
    one.clocks.jump(YEAR)
    for _ in range(3):
        one.click("bob", "odd")
    one.second()
    one.clocks.jump(-YEAR)
    for _ in range(5):
        one.click("eve", "milk")
    one.clocks.wait(2 * MINUTE)
    one.second()
    other = Shop(SQLiteStore(tmp_path / "events.sqlite"))
    other.clocks = one.clocks
    other.server.second()
    other.server.learn()
    assert other.lists() == one.lists()
    assert other.server.engine.recent.items == one.server.engine.recent.items == ["milk", "odd", "tea"]
    one.server.close()
    other.server.close()


@pytest.mark.parametrize("seed", range(4))
def test_any_story_of_jumps_late_and_repeated_events(shop, seed):
    """What is acknowledged is there once, and every list has its items."""
    rng = random.Random(seed)
    shop.server.settings = ServerSettings()  # without retention
    for _ in range(120):
        match rng.randrange(8):
            case 0:
                shop.clocks.jump(rng.choice([-1, 1]) * rng.choice([1, 1000, HOUR, 2 * DAY, 40 * DAY, YEAR]))
            case 1:
                shop.second()
            case 2:
                shop.clocks.wait(rng.choice([MINUTE, HOUR, 6 * HOUR]))
            case 3 if shop.sent:
                assert shop.post("/v1/events", rng.choice(shop.sent))["outcomes"][0]["status"] == "duplicate"
            case _:
                at = shop.clocks.now - rng.choice([0, 0, 1, HOUR, 3 * DAY, YEAR, -HOUR, -2 * DAY])
                status = shop.click(rng.choice(["ann", "bob"]), rng.choice(["tea", "milk", "odd"]), at)
                assert status == ("refused" if at > shop.clocks.now + DAY else "accepted")
        assert "rare" in shop.lists("ann")
    shop.second()
    assert shop.kept() == shop.acknowledged
