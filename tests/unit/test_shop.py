"""The simulated shop against slow, obvious forms of the same world; and its oracle."""

import itertools

import numpy as np
import polars as pl
import pytest

from nextsession.data.cases import Cases
from nextsession.data.format import Filters, SessionRule
from nextsession.data.log import SessionLog
from nextsession.data.prepared import prepare
from nextsession.data.shop import FORM, SESSIONS, Page, Shop, ShopSettings
from nextsession.data.shop_visits import RECENT, Taste, carried, chances, click_chance, meet, seeded
from nextsession.data.vocabulary import Vocabulary
from nextsession.errors import ConfigError, DataError
from nextsession.models.popular import Popular
from nextsession.oracle import Oracle
from nextsession.registry import load, names

DAY = 86_400_000
TINY = ShopSettings(users=40, items=7, categories=3, styles=2, places=3, span=6 * DAY, lifetime=4 * DAY, seed=5)


def taste_of(shop: Shop, user: int) -> Taste:
    taste, random = Taste.room(shop.world), np.empty(1, np.uint64)
    seeded(random, shop.settings.seed, user)
    meet(shop.world, random, taste)
    return taste


def popularity(shop: Shop, period: int) -> dict[int, float]:
    world = shop.world
    a, z = world.starts[period], world.starts[period + 1]
    return dict(zip(world.shelf[a:z].tolist(), np.diff(world.weight[a + period : z + period + 1]), strict=True))


def filled_slowly(shop: Shop, taste: Taste, intent: int, last: int, recent: list[int], period: int) -> dict[int, float]:
    """What a place of a page holds, one source after the other."""
    world, there = shop.world, popularity(shop, period)
    category = {i: world.cell[i] // shop.settings.styles for i in there}
    found = dict.fromkeys(there, 0.0)

    def by_popularity(share, items):
        for i in items:
            found[i] += share * there[i] / sum(there[j] for j in items)

    def fallback(share):
        by_popularity(share, [i for i in there if category[i] == intent] or list(there))

    popular, personal, wished, related, again, explore = world.page
    by_popularity(popular, list(there))
    fallback(wished)
    for cell, share in enumerate(taste.guess):
        inside = [i for i in there if world.cell[i] == cell]
        by_popularity(personal * share, inside) if inside else fallback(personal * share)
    for place, share in enumerate(world.related_share):
        item = world.related[last, place] if last >= 0 else -1
        if item in there:
            found[int(item)] += related * share
        else:
            fallback(related * share)
    for item in recent:
        if item in there:
            found[item] += again / RECENT
        else:
            fallback(again / RECENT)
    for i in there:
        found[i] += explore / len(there)
    return found


def first_click_slowly(shop: Shop, taste: Taste, intent: int, filled: dict[int, float]) -> np.ndarray:
    """Go through every page there can be, and every way of looking at it."""
    found = np.zeros(shop.settings.items)
    looks = shop.world.looks
    for page in itertools.product(filled, repeat=len(looks)):
        so_far = np.prod([filled[i] for i in page])
        for place, item in enumerate(page):
            hit = looks[place] * click_chance(shop.world, taste, intent, item)
            found[item] += so_far * hit
            so_far *= 1 - hit
    return found


@pytest.mark.parametrize(
    ("user", "intent", "last", "recent", "period"),
    [(0, 0, -1, [], 0), (1, 2, 3, [3], 11), (2, 1, 0, [0, 4, 0], 23), (3, 0, 6, [6, 5, 4, 3, 2, 1], 4)],
)
def test_the_chances_are_those_of_going_through_every_page(user, intent, last, recent, period):
    shop = Shop(TINY)
    taste = taste_of(shop, user)
    memory = recent + [-1] * (RECENT - len(recent))
    filled = filled_slowly(shop, taste, intent, last, memory, period)
    assert sum(filled.values()) == pytest.approx(1)
    slow = first_click_slowly(shop, taste, intent, filled)
    fast = np.zeros(shop.settings.items)
    clicked = chances(shop.world, taste, intent, last, np.array(memory, np.int32), period, 0.5, fast)
    assert fast == pytest.approx(0.5 * slow / slow.sum(), abs=1e-12)
    assert 1 - np.prod(1 - clicked * shop.world.looks) == pytest.approx(slow.sum())


def state_at(states, user: int, now: int, *, or_now: bool) -> tuple[int, list[int]]:
    """Return the row of the truth in force, -1 if there is none yet, and the recent clicks."""
    mine = np.flatnonzero((states.user == user) & (states.time < now))
    begins = np.flatnonzero((states.user == user) & (states.time == now) & (states.item == -1))
    recent = [int(states.item[s]) for s in mine[::-1] if states.item[s] >= 0] + [-1] * RECENT
    row = begins[0] if or_now and len(begins) else mine[-1] if len(mine) else -1
    return int(row), recent[:RECENT]


def test_clicks_come_as_often_as_stated():
    """Every page of a log is a trial: clicks in all, by place, and on the likeliest items, within 4 standard errors."""
    shop = Shop(users=60, items=300, seed=11)
    world, looks = shop.world, shop.world.looks
    expected, variance, seen = np.zeros(4), np.zeros(4), np.zeros(4)
    events, states = next(shop.blocks())
    new = (np.diff(events.user) != 0) | (np.diff(events.time) != 0)
    pages = np.concatenate([[0], np.flatnonzero(new) + 1, [len(events.item)]])
    tastes = [taste_of(shop, user) for user in range(60)]
    for a, z in itertools.pairwise(pages):
        user, now = int(events.user[a]), int(events.time[a])
        row, recent = state_at(states, user, now, or_now=True)
        chance = np.zeros(shop.settings.items)
        m = chances(
            world, tastes[user], states.intent[row], states.item[row], np.array(recent, np.int32),
            (now - world.opening) // world.period, 1.0, chance,
        )  # fmt: skip
        any_click = 1 - np.prod(1 - m * looks)
        likeliest = np.argsort(-chance)[:5]
        third = np.prod(1 - m * looks[:2]) * m * looks[2]
        p = np.array([any_click, m * looks[0], third, any_click * chance[likeliest].sum()])
        clicked = np.flatnonzero(events.label[a:z]) + a
        place = events.position[clicked]
        seen += [len(clicked), np.sum(place == 1), np.sum(place == 3), np.isin(events.item[clicked], likeliest).sum()]
        expected += p
        variance += p * (1 - p)
    assert seen[0] > 1000
    assert np.all(np.abs(seen - expected) < 4 * np.sqrt(variance))


def next_clicks(shop: Shop, log: SessionLog, since: int) -> Cases:
    """Ask for every click since an instant, given all earlier clicks of the visitor."""
    clicks = log.positives()
    asked = np.flatnonzero(clicks.times >= since)
    users = clicks.user_of_session[clicks.session_of_event[asked]]
    first = clicks.event_offsets[users]
    sessions, times = [], []
    for event, begin in zip(asked, first, strict=True):
        cuts = np.flatnonzero(np.diff(clicks.session_of_event[begin:event])) + 1
        sessions.append([part.tolist() for part in np.split(clicks.items[begin:event], cuts) if len(part)])
        times.append([part.tolist() for part in np.split(clicks.times[begin:event], cuts) if len(part)])
    histories = SessionLog.from_lists(sessions, vocabulary=clicks.vocabulary, times=times)
    object.__setattr__(histories, "users", clicks.users[users])
    return Cases(histories, clicks.times[asked], clicks.items[asked], np.arange(len(asked) + 1), users)


def recall(model, cases: Cases, k: int) -> float:
    counts = model.rank(cases).counts
    return float(np.mean((counts.equal > 0) & (counts.greater < k)))


def test_the_oracle_is_far_above_popularity_and_its_chances_come_true():
    shop = Shop(users=400, items=600, seed=2)
    log = shop.log()
    since = int(np.quantile(log.times, 0.9))
    cases = next_clicks(shop, log, since)
    oracle = Oracle(shop.settings).fit(log.before(since))
    assert recall(oracle, cases, 20) > 5 * recall(Popular().fit(log.before(since)), cases, 20)
    chance = oracle.rank(cases, k=1).top.scores[:, 0].astype(float)
    right = oracle.rank(cases).counts.greater == 0
    assert abs(right.sum() - chance.sum()) < 4 * np.sqrt(np.sum(chance * (1 - chance)))
    dense = oracle.scores(cases.histories, asked_at=cases.asked_at).dense()
    assert np.where(np.isfinite(dense), dense, 0).sum(axis=1) == pytest.approx(1, abs=1e-4)


def test_the_oracle_ranks_by_the_true_state_inside_a_visit_and_by_what_may_be_wished_at_its_start():
    shop = Shop(TINY)
    log = shop.log()
    cases = next_clicks(shop, log, int(log.times.min()))
    oracle = Oracle(TINY).fit(log)
    found = oracle.scores(cases.histories, asked_at=cases.asked_at).dense()
    states = next(shop.blocks())[1]
    inside = 0
    for q in range(0, len(cases), 7):
        user, now = int(cases.histories.users[q]), int(cases.asked_at[q])
        taste, period = taste_of(shop, user), (now - shop.world.opening) // shop.world.period
        at, recent = state_at(states, user, now, or_now=False)
        if at >= 0 and now <= states.end[at]:
            inside += 1
            weights = {int(states.intent[at]): 1.0}
            last = int(states.item[at])
        else:
            kept = 0.0 if at < 0 else carried(shop.world, float(now - states.end[at]))
            weights = {c: (1 - kept) * w for c, w in enumerate(taste.wish)}
            if at >= 0:
                weights[int(states.intent[at])] += kept
            last = -1
        slow = np.zeros(TINY.items)
        for intent, share in weights.items():
            filled = filled_slowly(shop, taste, intent, last, recent, period)
            click = {i: filled[i] * click_chance(shop.world, taste, intent, i) for i in filled}
            for i, p in click.items():
                slow[i] += share * p / sum(click.values())
        assert np.where(np.isfinite(found[q]), found[q], 0) == pytest.approx(slow, abs=1e-6)
    assert inside > 5


def test_the_oracle_finds_visitors_whose_sessions_were_made_anonymous(tmp_path):
    shop = Shop(users=30, items=60, seed=4)
    log = shop.log()
    cases = next_clicks(shop, log, int(np.quantile(log.times, 0.5)))
    some = np.flatnonzero(np.diff(cases.histories.event_offsets) > 0)
    histories = cases.histories.take(some)
    oracle = Oracle(shop.settings).fit(log)
    named = oracle.recommend(histories, 10, asked_at=cases.asked_at[some])
    object.__setattr__(histories, "users", np.arange(len(some)))
    unnamed = oracle.recommend(histories, 10, asked_at=cases.asked_at[some])
    assert np.array_equal(named.items, unnamed.items)
    new = cases.histories.take(np.flatnonzero(np.diff(cases.histories.event_offsets) == 0))
    asked_at = cases.asked_at[np.diff(cases.histories.event_offsets) == 0]
    assert len(new) > 1
    by_id = oracle.recommend(new, 10, asked_at=asked_at)
    object.__setattr__(new, "users", np.array(["?"] * len(new), dtype=object))
    by_instant = oracle.recommend(new, 10, asked_at=asked_at)
    assert np.array_equal(by_id.items, by_instant.items)
    oracle.save(tmp_path / "oracle")
    again = load(tmp_path / "oracle").recommend(histories, 10, asked_at=cases.asked_at[some])
    assert np.array_equal(again.items, named.items)
    assert "oracle" not in names()


def test_the_oracle_refuses_what_it_cannot_know():
    shop = Shop(users=5, items=30)
    oracle = Oracle(shop.settings).fit(shop.log())
    with pytest.raises(DataError, match="last event of question 0"):
        oracle.recommend(SessionLog.from_lists([[[3]]], vocabulary=Vocabulary(np.arange(30))))
    stranger = SessionLog.from_lists([[]], vocabulary=Vocabulary(np.arange(30)))
    object.__setattr__(stranger, "users", np.array(["nobody"], dtype=object))
    with pytest.raises(DataError, match="cannot tell who asks question 0"):
        oracle.recommend(stranger, asked_at=12)


def test_the_default_world_is_believable():
    log = Shop(users=300).log()
    clicks = log.positives()
    assert 7 < log.n_events / clicks.n_events < 14
    pairs = np.repeat(np.arange(len(clicks)), np.diff(clicks.event_offsets)) * clicks.n_items + clicks.items
    assert 0.08 < 1 - len(np.unique(pairs)) / len(pairs) < 0.25
    assert 2 < log.n_sessions / len(log) < 12
    by_place = [log.labels[log.features["position"] == r].mean() for r in range(1, 9)]
    assert by_place == sorted(by_place, reverse=True)
    hours = np.bincount(log.session_starts // 3_600_000 % 24, minlength=24)
    assert hours[18:22].mean() > 2 * hours[4:8].mean()
    first, last = log.before(int(np.quantile(log.times, 0.1))), log.events(log.times > np.quantile(log.times, 0.9))
    assert len(set(last.items.tolist()) - set(first.items.tolist())) > 0.3 * len(set(last.items.tolist()))


@pytest.mark.parametrize("events", [20_000, 100_000])
def test_a_world_can_be_made_to_size(events):
    found = sum(len(block.item) for block, _ in Shop(ShopSettings.sized(events, seed=1)).blocks())
    assert events / 1.4 < found < events * 1.4


def test_a_file_holds_the_events_of_the_log(tmp_path):
    shop = Shop(users=20, items=50)
    path = tmp_path / "shop.parquet"
    n = shop.write(path)
    frame, log = pl.read_parquet(path), shop.log()
    assert len(frame) == n == log.n_events
    assert np.array_equal(frame["item_id"].to_numpy(), log.items)
    assert np.array_equal(frame["timestamp"].to_numpy(), log.times)
    assert np.array_equal(frame["label"].to_numpy(), log.labels)
    columns = FORM.columns
    assert {columns.user, columns.item, columns.time, columns.session, columns.label, columns.position} <= set(
        frame.columns
    )
    numbers = [batch.first_row for batch in shop.batches(1000)]
    assert numbers[0] == 1
    assert len(numbers) > 2
    assert pl.concat([batch.frame for batch in shop.batches(1000)]).equals(frame)


def test_a_file_that_fails_half_way_is_not_there(tmp_path):
    def full(task, done, total):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        Shop(users=20, items=50).write(tmp_path / "shop.parquet", progress=full)
    assert list(tmp_path.iterdir()) == []


def test_nobody_came():
    shop = Shop(users=1, items=5, span="6h", seed=13)
    with pytest.raises(DataError, match="more users or a longer span"):
        shop.log()


def test_items_have_titles_and_kinds():
    shop = Shop(users=1, items=30, categories=40, styles=2)
    table = shop.item_table(Vocabulary([7, 3]))
    looks, thing, number = table.titles[0].split()
    assert number == "7"
    assert table.features["style"].rows()[0] == [looks]
    assert table.features["category"].rows()[0] == [thing]
    assert len(set(table.features["category"].labels)) == 40


def test_settings_are_checked():
    with pytest.raises(ConfigError, match="Did you mean 'users'"):
        Shop(user=3)
    with pytest.raises(ConfigError, match="explore"):
        Shop(page={"explore": 0})
    assert Shop(page=Page(again=0)).settings.page.again == 0


@pytest.mark.parametrize("rule", [SESSIONS, SessionRule(by="gap")])
def test_the_stream_prepared_is_the_log(tmp_path, rule):
    shop = Shop(users=40, items=60, seed=9)
    batches = shop.batches(1500)
    prepared = prepare(
        batches, tmp_path / "shop", form=FORM, sessions=rule, filters=Filters(), item_table=shop.item_table
    )
    found, log = prepared.log, shop.log().compact()
    assert np.array_equal(found.users, log.users)
    assert np.array_equal(found.user_offsets, log.user_offsets)
    assert np.array_equal(found.session_offsets, log.session_offsets)
    assert np.array_equal(found.vocabulary.ids[found.items], log.vocabulary.ids[log.items])
    assert np.array_equal(found.times, log.times)
    assert np.array_equal(found.labels, log.labels)
    assert found.item_table.titles.tolist() == log.item_table.titles.tolist()
