"""Learning on: what served models are told, when, and that it is what an evaluation would tell them."""

import itertools
import logging
from dataclasses import replace

import numpy as np
import pytest

from nextsession import SessionLog, create
from nextsession.config import Runtime
from nextsession.data.items import ItemTable
from nextsession.errors import StoreError
from nextsession.evaluation import EvaluationSettings, evaluate
from nextsession.serving.arms import Arms
from nextsession.serving.engine import Engine
from nextsession.serving.events import DAY, SHOWN, Event, Shown
from nextsession.serving.learning import Learner
from nextsession.serving.memory import MemoryStore
from nextsession.serving.metrics import exposition
from nextsession.serving.operations import operations
from nextsession.serving.process import ServeSettings, build
from nextsession.serving.questions import Question
from nextsession.serving.served import prepared
from nextsession.serving.server import Server
from nextsession.serving.told import Told, place_before
from nextsession.splits import SplitSettings, split

GAP, MINUTE, NOW = 1_800_000, 60_000, 1_700_000_000_000 // 60_000 * 60_000
UNTIL = NOW - DAY  # what the models learnt from ends here


def past(ids=str, items=12, users=40, seed=3):
    """What the models learnt from."""
    rng = np.random.default_rng(seed)
    rows = [[[ids(100 + int(i)) for i in rng.integers(0, items, rng.integers(2, 6))]] for _ in range(users)]
    times = [
        [[UNTIL - 1 - MINUTE * (i + 10 * u) for i in range(len(s))][::-1] for s in row] for u, row in enumerate(rows)
    ]
    times[0][0][-1] = UNTIL - 1
    return SessionLog.from_lists(rows, times=times)


def moment(name="sasrec"):
    few = {"epochs": 1, "dim": 8, "max_length": 8, "moment": {"windows": ["1h", "5h"], "hidden": 4, "width": 2}}
    return create(name, **few)


MODELS = {
    "recent": lambda: create("recent", half_life="1h"),
    "window": lambda: create("recent", window="2h"),
    "stan": lambda: create("stan"),
    "vmisknn": lambda: create("vmisknn"),
    "sequentialrules": lambda: create("sequentialrules"),
}


def happened(number=300, items=15, visitors=12, seed=5, since=UNTIL):
    """Events of a day: some items are new, some events late, some ignored; with when they arrive."""
    rng = np.random.default_rng(seed)
    found = []
    for i in range(number):
        arrives = int(since + (i + 1) * (NOW - since) // (number + 1))
        late = int(rng.integers(0, 3) == 0) * int(rng.integers(0, 4 * 3_600_000))
        label = int(rng.integers(0, 8) > 0)
        event = Event(
            f"e{i}",
            f"v{rng.integers(visitors)}",
            str(100 + rng.integers(items)),
            max(since, arrives - late),
            label=label,
        )
        found.append((arrives, event))
    return found


def log_from(rows, times, labels, users):
    log = SessionLog.from_lists(rows, times=times)
    flat = [label for row in labels for session in row for label in session]
    return replace(log, labels=np.array(flat, np.int8), users=np.array(users, dtype=object))


def log_of(events, gap=GAP, ids=str):
    """Return events, in the order of the log, as a `SessionLog`: the slow, obvious way."""
    rows = {}
    for event in sorted(events, key=lambda e: e.time):
        sessions = rows.setdefault(event.visitor, [])
        if not sessions or event.time - sessions[-1][-1].time > gap:
            sessions.append([])
        sessions[-1].append(event)
    names = sorted(rows)
    return log_from(
        [[[ids(e.item) for e in s] for s in rows[n]] for n in names],
        [[[e.time for e in s] for s in rows[n]] for n in names],
        [[[e.label for e in s] for s in rows[n]] for n in names],
        names,
    )


class Live:
    """A server without HTTP: a store, one arm, a learner."""

    def __init__(self, model, store=None, every=MINUTE, table=None, **settings):
        self.store = store or MemoryStore()
        base = prepared(model, gap=GAP, version="artifact", **settings)
        self.arms = Arms({"main": (base, 1.0)}, now=UNTIL)
        self.engine = Engine(self.arms, self.store)
        self.learner = Learner(self.arms, self.store, every=every, table=table)

    @property
    def served(self):
        return self.arms.named("main").served

    @property
    def state(self):
        return self.learner.learnt["main"]

    def replay(self, events, every=37 * MINUTE):
        """Record events as they arrive, and learn in between."""
        learn_at = 0
        for arrives, event in events:
            if arrives >= learn_at:
                self.learner.learn(arrives)
                self.learner._rested = 0  # the clock of this test runs faster than the one that is rested by
                learn_at = arrives + every
            self.store.append([event], arrives)
        self.learner._rested = 0
        self.learner.learn(NOW)

    def lists(self, now=NOW, visitors=12):
        return [
            [
                (one.item, one.score)
                for one in self.engine.recommend(Question(visitor=f"v{i}", k=10, shown=False), now).items
            ]
            for i in range(visitors)
        ]


def offline(model, events, now=NOW, visitors=12, ids=str, gap=GAP):
    """Update a model with all events at once; return it and its lists, as an evaluation would ask for them."""
    model.update(log_of(events, gap, ids))
    histories = {f"v{i}": [] for i in range(visitors)}
    for event in events:
        histories[event.visitor].append(event)
    found = []
    for mine in histories.values():
        history = log_of(mine, gap, ids) if mine else SessionLog.from_lists([[]])
        found += list(model.recommend(history, 10, asked_at=now, exclude="session"))
    return found


def modelled(lists):
    return [[item for item, score in one if score is not None] for one in lists]


# -- what they are told ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_model_told_live_is_the_model_updated_offline(name):
    live, events = Live(MODELS[name]().fit(past())), happened()
    live.replay(events)
    told = [event for arrives, event in events if arrives < NOW]
    expected = offline(MODELS[name]().fit(past()), told)
    assert modelled(live.lists()) == [one[: len(m)] for one, m in zip(expected, modelled(live.lists()), strict=True)]
    assert [len(m) for m in modelled(live.lists())] == [len(one) for one in expected]
    assert live.state.times > 10, "it learnt many times"
    assert live.state.failures == 0
    assert len(live.served.catalogue) == 15, "new items are known"
    assert modelled(live.lists()) != modelled(Live(MODELS[name]().fit(past()), live.store).lists()), "it was of use"


@pytest.mark.parametrize("name", MODELS)
def test_a_server_that_starts_again_says_what_it_said_before(name):
    live = Live(MODELS[name]().fit(past()))
    live.replay(happened())
    live.store.merge("v1", "v2", NOW)
    live.store.erase("v3", NOW)
    live.learner._rested = 0
    live.learner.learn(NOW + MINUTE)
    again = Live(MODELS[name]().fit(past()), live.store)
    again.learner.learn(NOW + MINUTE + 20_000)
    assert again.served.version == live.served.version
    assert again.lists() == live.lists()
    assert again.state.events == live.state.events
    assert again.state.times == 1


def test_a_network_that_counts_the_last_hours_learns_on():
    model = moment().fit(past(), runtime=Runtime(seed=1))
    live, events = Live(moment().fit(past(), runtime=Runtime(seed=1)), every=None), happened()
    live.replay(events, every=200 * MINUTE)
    expected = offline(model, [event for _, event in events])
    assert modelled(live.lists()) == expected
    assert live.served.reads_moment
    assert not live.learner.refusal(live.served)


def test_what_was_shown_is_told_to_models_that_read_it():
    settings = {"epochs": 1, "dim": 8, "moment": {"windows": ["1h"], "hidden": 4, "width": 2}}
    rows, times = [[["100", "101", "102"], ["101"]]] * 3, [[[1, 2, 3], [10**7]]] * 3
    log = log_from(rows, times, [[[1, 0, 1], [1]]] * 3, list("abc"))
    live = Live(create("sessionrec", **settings).fit(log))
    live.store.append([Event("e1", "ann", "101", NOW - 5000)], NOW - 5000)
    live.store.submit_shown(Shown("r1", "ann", NOW - 4000, "main", "v", ("100", "102", "new")))
    live.store.submit_shown(Shown("r2", "ann", NOW - 4000, "shadow", "v", ("101", "unseen"), shadow=True))
    live.store.append(
        [Event("e2", "ann", "100", NOW - 3000), Event("e3", "bob", "102", NOW - 3000, SHOWN, 0)], NOW - 3000
    )
    live.learner.learn(NOW)
    assert live.state.events == 6
    news = log_from(
        [[["101", "100", "102", "new", "100"]], [["102"]]],
        [[[NOW - 5000, NOW - 4000, NOW - 4000, NOW - 4000, NOW - 3000]], [[NOW - 3000]]],
        [[[1, 0, 0, 0, 1]], [[0]]],
        ["ann", "bob"],
    )
    expected = create("sessionrec", **settings).fit(log).update(news)
    history = SessionLog.from_lists([[["101"]]], times=[[[NOW - 5000]]])
    one, other = (list(m.recommend(history, 4, asked_at=NOW)) for m in (expected, live.served.model))
    assert one == other
    blind = Live(create("recent").fit(log), live.store)
    blind.learner.learn(NOW)
    assert blind.state.events == 2, "a model that does not read it is told of what happened alone"


def test_an_evaluation_tells_the_same():
    rng = np.random.default_rng(0)
    starts = np.sort(rng.integers(NOW - 2 * DAY, NOW, 400))
    raw = [(f"v{rng.integers(60)}", str(rng.integers(100, 130)), int(t)) for t in np.repeat(starts, 3)]
    everything = log_of([Event(f"e{i}", v, x, t + 1000 * (i % 3)) for i, (v, x, t) in enumerate(raw)])
    for name, steps in (("recent", "1h"), ("vmisknn", "12h"), ("stan", "12h")):
        asked = split(everything, SplitSettings(protocol="rolling", test="12h", validation="12h", step=steps))
        model = MODELS[name]().fit(asked.train)
        report = evaluate(model, asked.test, EvaluationSettings(bootstrap=0))
        live = Live(model)
        events = sorted(
            (int(t), Event(f"e{i}", str(u), str(x), int(t)))
            for i, (u, x, t) in enumerate(
                zip(
                    np.repeat(everything.users, np.diff(everything.event_offsets)),
                    everything.vocabulary.decode(everything.items),
                    everything.times,
                    strict=True,
                )
            )
            if t >= asked.train.times.max() + 1
        )
        greater, arrived = [], 0
        for cases in asked.test():
            if cases.news is not None and cases.news.n_events:
                told_to = int(cases.news.times.max()) + 1
                while arrived < len(events) and events[arrived][0] < told_to:
                    live.store.append([events[arrived][1]], events[arrived][0])
                    arrived += 1
                live.learner._rested = 0
                live.learner.learn(told_to + MINUTE)
            greater.append(live.served.model.rank(cases, exclude="nothing").counts.greater)
        assert np.array_equal(np.concatenate(greater), report.targets["greater"]), name
        assert live.state.events > 100


def test_a_session_that_goes_on_is_told_whole():
    live = Live(create("vmisknn").fit(past()))
    clicks = [Event(f"e{i}", "v1", str(100 + i), NOW - 300_000 + i * MINUTE) for i in range(5)]
    for click in clicks:
        live.learner.learn(click.time)
        live.learner._rested = 0
        live.store.append([click], click.time)
    live.learner.learn(NOW)
    assert live.state.times == 5
    assert live.served.model.index_.offsets[-1] - live.served.model.index_.offsets[-2] == 5, (
        "one session of five events"
    )


def test_ids_that_are_numbers():
    live, events = Live(create("recent").fit(past(int))), happened()
    odd = [Event(f"odd{i}", "somebody", item, NOW - 9) for i, item in enumerate(("no number", "0101", "1e3"))]
    live.store.append(odd, NOW - 9)
    live.replay(events)
    assert modelled(live.lists()) == [
        list(map(str, x)) for x in offline(create("recent").fit(past(int)), [e for _, e in events], ids=int)
    ]


# -- from where on ---------------------------------------------------------------------------------


def test_by_time_or_by_place():
    store = MemoryStore()
    store.append([Event("known", "v1", "a", UNTIL - 5000)], UNTIL - 5000)
    place = store.last()
    store.append([Event("late", "v2", "b", UNTIL - 1), Event("new", "v2", "c", UNTIL)], UNTIL + 5000)
    by_time, by_place = (
        Live(create("recent").fit(past()), store),
        Live(create("recent").fit(past()), store, learnt_to=place),
    )
    for live, items in ((by_time, {"c"}), (by_place, {"b", "c"})):
        live.learner.learn(NOW)
        assert set(live.served.model.vocabulary_.ids.tolist()) - set(past().vocabulary.ids.tolist()) == items


def test_the_place_is_that_of_the_history_if_a_model_learnt_all_of_it(tmp_path):
    for name, notes in (
        ("all", {"learnt_from": "everything", "experiment": {"data": {"prepared": str(tmp_path / "log")}}}),
        ("some", {"learnt_from": "train", "experiment": {"data": {"prepared": str(tmp_path / "log")}}}),
        ("other", {"learnt_from": "everything", "experiment": {"data": {"path": "clicks.csv"}}}),
    ):
        create("recent").fit(past()).save(tmp_path / name, notes=notes)
    from nextsession.data.prepared import Prepared

    Prepared.save(tmp_path / "log", past())
    places = {n: str(tmp_path / n) for n in ("all", "some", "other")}
    settings = ServeSettings(artifacts=places, weights={}, state=None, history=str(tmp_path / "log"), history_after=7)
    server = build(settings, clock=lambda: NOW)
    assert {arm.name: arm.served.learnt_to for arm in server.engine.arms} == {"all": 7, "some": None, "other": None}
    server.learn()
    assert server.learner.every == MINUTE


def test_places_are_found_by_when_events_arrived():
    store = MemoryStore()
    for i in range(40):
        store.append([Event(f"e{i}", "v", "a", i // 3)], i // 3)
        if i % 4 == 0:
            store.submit_shown(Shown(f"r{i}", "v", i // 3, "main", "v", ("a",)))
    store.erase("nobody", 0)
    stored = list(store.events())
    for instant in range(-1, 16):
        before = [s.seq for s in stored if s.received < instant]
        following = [s.seq for s in stored if s.received >= instant]
        place = place_before(store, instant, now=100)
        assert max(before, default=0) <= place
        assert not following or place < min(following)


def test_reading_that_breaks_off_reads_nothing_twice():
    class Torn(MemoryStore):
        left = 10**9

        def events(self, after=0, limit=None):
            for stored in super().events(after, limit):
                self.left -= 1
                if self.left < 0:
                    raise StoreError("the disk is gone")
                yield stored

    store = Torn()
    for i in range(20):
        store.append([Event(f"e{i}", "v", f"i{i}", i)], i)
        store.submit_shown(Shown(f"r{i}", "v", i, "main", "v", ("a", "b", "c")))
    torn, whole = Told(0, 0), Told(0, 0)
    whole.read(store, store.last())
    for _ in range(30):
        store.left = 3
        try:
            torn.read(store, store.last())
        except StoreError:
            continue
    assert len(torn) == len(whole) == 80
    one, other = (told.log(gap=GAP, shown=True)[0] for told in (torn, whole))
    assert one.vocabulary.decode(one.items).tolist() == other.vocabulary.decode(other.items).tolist()


# -- when, and what if it fails ----------------------------------------------------------------------


def test_it_learns_at_full_minutes_what_had_arrived_before():
    live = Live(create("recent").fit(past()))
    live.store.append([Event("a", "v", "early", NOW - 1)], NOW - 1)
    live.store.append([Event("b", "v", "late", NOW)], NOW)
    live.learner.learn(NOW + 59_000)
    known = live.served.catalogue.numbers
    assert (known(["early"])[0] >= 0, known(["late"])[0] >= 0) == (True, False)
    before = live.served
    live.learner._rested = NOW + MINUTE + 5000
    live.learner.learn(NOW + MINUTE + 1)
    assert live.served is before, "it rests"
    live.learner.learn(NOW + MINUTE + 5000)
    assert live.served.catalogue.numbers(["late"])[0] >= 0
    before = live.served
    live.learner._rested = 0
    live.learner.learn(NOW + 2 * MINUTE)
    assert live.served is before, "nothing happened"
    assert live.state.until == NOW + 2 * MINUTE


def test_it_rests_after_every_time_but_the_first(monkeypatch):
    """The first time, with nothing or something to tell, functions are compiled: seconds that never come again."""
    ticks = itertools.count()
    monkeypatch.setattr("nextsession.serving.learning.perf_counter", lambda: 10.0 * next(ticks))
    live = Live(create("recent").fit(past()))
    live.learner.learn(NOW)
    assert live.learner._rested == NOW
    for place in (1, 2):
        at = NOW + place * MINUTE
        live.store.append([Event(f"e{place}", "v", f"item {place}", at - 1)], at - 1)
        live.learner.learn(at)
        assert live.served.catalogue.numbers([f"item {place}"])[0] >= 0
        assert (live.learner._rested > at) == (place == 2)


def test_what_was_erased_is_forgotten():
    live = Live(create("recent").fit(past()))
    live.store.append([Event("a", "ann", "secret", NOW - 9), Event("b", "bob", "101", NOW - 9)], NOW - 9)
    live.learner.learn(NOW)
    assert live.served.catalogue.numbers(["secret"])[0] >= 0
    first = live.served.version
    live.store.erase("ann", NOW)
    live.learner._rested = 0
    live.learner.learn(NOW + MINUTE)
    assert live.served.catalogue.numbers(["secret"])[0] < 0
    assert live.served.version != first
    live.store.erase("bob", NOW + MINUTE)
    live.learner._rested = 0
    live.learner.learn(NOW + 2 * MINUTE)
    assert live.served is live.served.loaded, "there is nothing left to tell"


def test_a_model_that_cannot_be_told_goes_on_as_it_was(monkeypatch, caplog):
    model = create("recent").fit(past())
    live = Live(model)
    live.store.append([Event(f"e{i}", "somebody", "new", NOW - 9) for i in range(30)], NOW - 9)
    before, update = live.lists(), type(model)._update

    def broken(self, log, runtime):
        self.times_ = None
        raise ValueError("out of luck")

    monkeypatch.setattr(type(model), "_update", broken)
    server = Server(live.engine, None, lambda: NOW + 5000, learner=live.learner)
    with caplog.at_level(logging.ERROR):
        server.learn()
    assert live.lists() == before
    assert live.served.version == "artifact"
    assert "out of luck" in caplog.text
    server.second()
    (told,) = operations(server)["learning"]
    assert (told["failures"], told["error"], told["times"]) == (1, "ValueError: out of luck", 0)
    assert 'nextsession_learn_failures_total{arm="main"} 1' in exposition(server.metrics.now)
    server.learn()
    assert live.state.failures == 1, "it waits for the next minute"
    monkeypatch.setattr(type(model), "_update", update)
    live.learner._rested = 0
    live.learner.learn(NOW + MINUTE)
    assert (live.state.failures, live.state.error, live.state.times) == (1, "", 1)
    assert live.lists() != before
    server.second()
    (told,) = operations(server)["learning"]
    assert (told["events"], told["until"], told["at"], told["not_because"]) == (30, NOW + MINUTE, NOW + MINUTE, None)
    assert 'nextsession_learnt_total{arm="main"} 1' in exposition(server.metrics.now)


def test_a_store_that_cannot_be_read_is_read_later():
    class Broken(MemoryStore):
        broken = True

        def rewritten(self):
            if self.broken:
                raise StoreError("the disk is gone")
            return super().rewritten()

    live = Live(create("recent").fit(past()), Broken())
    live.store.append([Event("a", "v1", "new", NOW - 9)], NOW - 9)
    live.learner.learn(NOW)
    assert (live.state.failures, live.state.error) == (1, "the disk is gone")
    live.store.broken, live.learner._rested = False, 0
    live.learner.learn(NOW + MINUTE)
    assert live.served.catalogue.numbers(["new"])[0] >= 0


def test_who_learns():
    for name, every, reason in (
        ("recent", None, ""),
        ("vmisknn", None, "the instant"),
        ("vmisknn", MINUTE, ""),
        ("recent", 0, "never"),
        ("bprmf", MINUTE, "cannot"),
    ):
        live = Live(create(name).fit(past()), every=every)
        live.store.append([Event("a", "v1", "new", NOW - 9)], NOW - 9)
        live.learner.learn(NOW)
        refusal = live.learner.refusal(live.served)
        assert (reason in refusal) if reason else not refusal
        assert (live.served.before is None) == bool(reason)
    indexed = replace(live.served, model=create("recent").fit(past()), indexable=True)
    assert "index" in live.learner.refusal(indexed)


# -- arms ---------------------------------------------------------------------------------------------


def test_versions_are_swapped_and_rolled_back_as_ever():
    live = Live(create("recent").fit(past()))
    live.store.append([Event("a", "v1", "new", NOW - 9)], NOW - 9)
    live.learner.learn(NOW)
    assert live.served.version == "artifact+1"
    assert live.served.artifact == "artifact"
    other = prepared(create("stan").fit(past(seed=9)), gap=GAP, version="other")
    assert (
        live.arms.load(
            "main", "", lambda: prepared(live.served.loaded.model, gap=GAP, version="artifact"), now=NOW
        ).served.version
        == "artifact+1"
    )
    arm = live.arms.load("main", "", lambda: other, now=NOW)
    assert [one.version for one in arm.previous] == ["artifact"], "what is kept is what was loaded"
    held = live.served
    live.learner.learn(NOW + 1000)
    assert live.served.version == "other+1"
    assert held.version == "other", "who holds it answers by it to the end"
    assert not live.arms.learn("main", prepared(create("recent").fit(past()), gap=GAP, version="artifact+5"))
    live.arms.roll_back("main", now=NOW)
    assert live.served.version == "artifact"
    live.learner.learn(NOW + 2000)
    assert live.served.version == "artifact+1"
    assert live.arms.named("main").previous == ()


def test_a_grown_catalogue_keeps_titles_stock_and_coverage():
    titles = np.array([f"Title of {x}" for x in past().vocabulary.ids], dtype=object)
    store = MemoryStore()
    for table, title in (
        (None, ""),
        (lambda v: ItemTable({}, np.array([f"T {x}" for x in v.ids], dtype=object)), "T new"),
    ):
        live = Live(create("recent").fit(past()), store, table=table)
        live.arms.learn("main", prepared(live.served.model, gap=GAP, version="artifact", table=ItemTable({}, titles)))
        live.engine.restock(["101", "new"], [])
        live.lists()
        covered = live.engine.coverage(live.arms.named("main"))
        store.append([Event("a", "v1", "new", NOW - 9)], NOW - 9)
        live.learner.learn(NOW)
        catalogue = live.served.catalogue
        assert catalogue.title(catalogue.numbers(["new"])[0]) == title
        assert catalogue.title(catalogue.numbers(["100"])[0]) in ("Title of 100", "T 100")
        assert not {"101", "new"} & {item for one in live.lists() for item, _ in one}
        assert 0 < live.engine.coverage(live.arms.named("main")) <= 1
        assert covered > 0
