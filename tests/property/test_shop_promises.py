"""Promises of the simulated shop that hold for every world."""

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nextsession.data.shop import Page, Shop, ShopSettings
from nextsession.data.shop_visits import Events

HOUR = 3_600_000

worlds = st.builds(
    ShopSettings,
    seed=st.integers(0, 2**40),
    users=st.integers(1, 30),
    items=st.integers(1, 120),
    span=st.integers(1, 20).map(lambda days: days * 24 * HOUR),
    categories=st.integers(1, 6),
    styles=st.integers(1, 3),
    dim=st.integers(1, 4),
    lifetime=st.integers(1, 600).map(lambda hours: hours * HOUR),
    half_life=st.integers(1, 600).map(lambda hours: hours * HOUR),
    restock=st.integers(1, 48).map(lambda hours: hours * HOUR),
    places=st.integers(1, 12),
    page=st.builds(
        Page,
        popular=st.sampled_from([0, 0.3]),
        personal=st.sampled_from([0, 0.3]),
        category=st.sampled_from([0, 0.3]),
        related=st.sampled_from([0, 0.3]),
        again=st.sampled_from([0, 0.3]),
    ),
    drift=st.sampled_from([0.0, 0.3, 1.0]),
    churn=st.sampled_from([0.05, 1.0]),
)
many = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def events_of(shop: Shop, rows: int) -> Events:
    blocks = [events for events, _ in shop.blocks(rows)]
    if not blocks:
        return Events.room(0)
    return Events(*(np.concatenate(columns) for columns in zip(*blocks, strict=True)))


@many
@given(worlds, st.integers(1, 4000))
def test_the_same_events_come_in_blocks_of_any_size(world, rows):
    for one, other in zip(events_of(Shop(world), rows), events_of(Shop(world), 100_000), strict=True):
        assert np.array_equal(one, other)


@many
@given(worlds, st.data())
def test_a_user_does_not_depend_on_the_others(world, data):
    fewer = data.draw(st.integers(1, world.users))
    some = events_of(Shop(world.model_copy(update={"users": fewer})), 100_000)
    everybody = events_of(Shop(world), 100_000)
    for one, other in zip(some, everybody, strict=True):
        assert np.array_equal(one, other[everybody.user < fewer])


@many
@given(worlds)
def test_every_event_is_possible(world):
    shop = Shop(world)
    events = events_of(shop, 100_000)
    truth = shop.world
    assert np.all((events.item >= 0) & (events.item < world.items))
    assert np.all((events.time >= truth.opening) & (events.time < truth.opening + world.span))
    period = (events.time - truth.opening) // world.restock
    assert np.all((truth.born[events.item] <= period) & (period < truth.gone[events.item]))
    assert set(events.label.tolist()) <= {0, 1}
    assert np.all((events.position >= 1) & (events.position <= world.places))


@many
@given(worlds)
def test_pages_visits_and_users_are_in_order(world):
    events = events_of(Shop(world), 100_000)
    same_user = events.user[1:] == events.user[:-1]
    same_visit = events.session[1:] == events.session[:-1]
    pause = events.time[1:] - events.time[:-1]
    assert np.all(np.diff(events.user) >= 0)
    assert np.all(same_user[same_visit])
    assert len(np.unique(events.session)) == (1 + np.count_nonzero(~same_visit) if len(events.session) else 0)
    assert np.all(pause[same_visit] >= 0)
    assert np.all(pause[same_visit] < HOUR / 2)
    assert np.all(pause[same_user & ~same_visit] >= HOUR)
    same_page = same_visit & (pause == 0)
    assert np.all(np.diff(events.position)[same_page] > 0)
    page = np.concatenate([[0], np.cumsum(~same_page)]) if len(events.item) else np.zeros(0, int)
    assert np.all(np.bincount(page, weights=events.label) <= 1)
    assert len(np.unique(page * world.items + events.item)) == len(events.item)


@many
@given(worlds)
def test_the_truth_speaks_of_the_same_clicks(world):
    shop = Shop(world)
    for events, states in shop.blocks(3000):
        clicks, clicked = states.item >= 0, events.label == 1
        assert np.array_equal(states.user[clicks], events.user[clicked])
        assert np.array_equal(states.time[clicks], events.time[clicked])
        assert np.array_equal(states.item[clicks], events.item[clicked])
        assert np.count_nonzero(~clicks) == len(np.unique(events.session))
        assert np.all((states.intent >= 0) & (states.intent < world.categories))
        assert np.all(states.end >= states.time)
