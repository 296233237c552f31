"""Exploration: places go to cold items with the probabilities that are documented and logged."""

import numpy as np
import pytest
from scipy.stats import binom, chisquare
from starlette.testclient import TestClient

from nextsession import SessionLog, create
from nextsession.errors import ConfigError
from nextsession.serving.app import application
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import Event, Rules, Shown
from nextsession.serving.exploring import SEEN, WANTED, draws
from nextsession.serving.memory import MemoryStore
from nextsession.serving.questions import Question
from nextsession.serving.served import prepared
from nextsession.serving.server import Server

GAP, NOW = 1_800_000, 1_700_000_000_000
ITEMS = [f"i{n:02}" for n in range(20)]
LOG = SessionLog.from_lists([[ITEMS]])
OLD = np.where(np.arange(20) < 12, WANTED, 0)  # eight items are cold


def engine(share, popularity=OLD, version="v1", store=None):
    model = create("popular").fit(LOG)
    one = prepared(model, gap=GAP, popularity=popularity, version=version)
    made = Engine(Arms({"main": (one, 1.0)}, now=NOW), store or MemoryStore(Rules()), explore=share)
    made.refresh(NOW)
    return made


def ask(one, **more):
    return one.recommend(Question(**{"visitor": "ann", "k": 6, **more}), NOW)


def cold(one):
    (arm,) = one.arms
    return {ITEMS[code] for code in np.flatnonzero(one.exploring.cold(arm.served))}


def expect_even(counts, expected):
    """Counts are those of the probabilities: a test that is failed by chance once in a thousand fixed draws."""
    assert chisquare(counts, expected).pvalue > 1e-3, f"{counts} for {expected}"


@pytest.mark.parametrize(
    ("places", "pool", "share"), [(6, 20, 0.3), (6, 3, 0.4), (4, 1, 0.5), (10, 9, 0.9), (3, 2, 1.0)]
)
def test_places_and_items_are_drawn_with_the_documented_probabilities(places, pool, share):
    number, drawn = 6000, np.zeros((places, pool))
    many = [draws(f"request {i}", places, pool, share) for i in range(number)]
    for one in many:
        assert len({item for _, item in one}) == len(one), "none twice"
        assert [place for place, _ in one] == sorted({place for place, _ in one})
        for place, item in one:
            drawn[place, item] += 1
    first = max(1, places - pool)
    assert not drawn[:first].any(), "the first place is never given away, nor more places than there are items"
    taken = drawn[first:].sum(axis=1)
    for count in taken:
        if share == 1:
            assert count == number
        else:
            expect_even([count, number - count], [number * share, number * (1 - share)])
    for row in drawn[first:] if pool > 1 else ():
        expect_even(row, np.full(pool, row.sum() / pool))
    if places - first > 1 and share < 1:  # places are apart from one another
        chance = binom.pmf(np.arange(places - first + 1), places - first, share) * number
        counts = np.bincount([len(one) for one in many], minlength=len(chance))
        rare = chance < 5
        expect_even(*(np.append(x[~rare], x[rare].sum()) if rare.any() else x for x in (counts, chance)))


def test_draws_follow_from_the_request_alone():
    assert draws("main.x1", 20, 50, 0.5) == draws("main.x1", 20, 50, 0.5)
    assert draws("main.x1", 20, 50, 0.5) != draws("main.x2", 20, 50, 0.5)
    assert draws("main.x1", 20, 50, 0.0) == draws("main.x1", 20, 0, 1.0) == draws("main.x1", 1, 50, 1.0) == []


def test_explored_items_stand_where_it_is_noted_with_which_probability():
    one, plain = engine(0.4), engine(0.0)
    expected = [x.item for x in ask(plain).items]
    pool = cold(one) - set(expected)
    counts = np.zeros(6)
    for i in range(300):
        answer = ask(one, visitor=f"visitor {i}")
        tried = {x.item: place for place, x in enumerate(answer.items) if x.source == "explore"}
        assert len(answer.items) == 6
        assert set(tried) <= pool
        assert [x.item for x in answer.items if x.item not in tried] == expected[: 6 - len(tried)]
        for place in tried.values():
            counts[place] += 1
        shown = list(one.store.shown())[-1][1]
        assert shown.request == answer.request
        assert shown.explored == dict.fromkeys(tried, 0.4 / len(pool))
    assert counts[0] == 0
    expect_even([counts[1:].sum(), 1500 - counts[1:].sum()], [600, 900])


def test_nothing_is_tried_out_where_it_would_not_be_noted_or_nobody_asked_for_it():
    one = engine(1.0)
    assert {x.source for x in ask(one).items[1:]} == {"explore"}
    for more in ({"shown": False}, {"visitor": None}, {"consent": False}):
        assert all(x.source != "explore" for x in ask(one, **more).items)
    assert all(x.source != "explore" for x in ask(engine(0.0)).items)
    with pytest.raises(ConfigError, match=r"must be from 0 to 1, got 1\.5"):
        engine(1.5)


def test_limits_hold_for_what_is_tried_out():
    one = engine(1.0)
    tried = {x.item for x in ask(one, deny=tuple(ITEMS[12:16]), items=(ITEMS[16],), item=ITEMS[17]).items[1:]}
    assert tried <= {"i18", "i19", *ITEMS[:12]}
    assert {x.item for x in ask(one, allow=("i01", "i02", "i18")).items} == {"i01", "i02", "i18"}
    one.restock(ITEMS[12:], [])
    assert not any(x.source == "explore" for x in ask(one).items)


def test_an_item_is_cold_until_it_was_wanted_or_shown_often_enough():
    one = engine(0.5)
    assert cold(one) == set(ITEMS[12:])
    one.record([Event(f"{i}", "bob", "i15", NOW + i) for i in range(WANTED - 1)], NOW + 100).result()
    one.record([Event(f"d{i}", "bob", "i16", NOW + i, label=0) for i in range(WANTED)], NOW + 100).result()
    one.store.submit_shown(Shown("r", "bob", NOW, "x", "v", ("i17",) * (SEEN - 1)))
    one.store.submit_shown(Shown("r", "bob", NOW, "x", "v", ("i18",) * SEEN, shadow=True))
    one.refresh(NOW)
    assert cold(one) == set(ITEMS[12:])
    one.record([Event("last", "bob", "i15", NOW)], NOW + 100).result()
    one.store.submit_shown(Shown("r", "bob", NOW, "x", "v", ("i17", "unheard of")))
    one.refresh(NOW)
    assert cold(one) == set(ITEMS[12:]) - {"i15", "i17"}
    other = engine(0.5, version="v2", store=one.store)
    assert cold(other) == cold(one), "another worker counts the same, and so does another version"
    assert cold(engine(0.5, popularity=None)) == set(ITEMS), "of which nothing is known is cold"


def test_the_numbers_of_exploration():
    server = Server(engine(1.0), lambda place: None, lambda: NOW)
    with TestClient(application(server)) as client:
        client.post("/v1/recommendations", json={"visitor": "ann", "k": 3})
        server.second()
        found = client.get("/v1/operations").json()
        assert found["explore"] == {"share": 1.0, "cold": {"main": 8}}
        assert found["answers"]["explore"] == 2
        assert found["fallback_share"] == 0
        text = client.get("/metrics").text
        assert 'nextsession_items_total{source="explore"} 2' in text
        assert 'nextsession_cold_items{arm="main"} 8' in text
        (shown,) = client.get("/v1/visitors/ann").json()["shown"]
        assert len(shown["explored"]) == 2
