"""Every store keeps every promise, and plays as its rules say, whatever happens in whatever order."""

import itertools
import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import redis_server
from nextsession.errors import ModelError
from nextsession.serving.events import DAY, Event, Rules, Shown, digest_of
from nextsession.serving.memory import MemoryStore
from nextsession.serving.sqlite import SQLiteStore
from nextsession.testing.stores import NOW, StoreSubject, check_store, store_checks

CHECKS = dict(store_checks())


def sqlite_subject(folder, **how):
    paths, names = {}, itertools.count()

    def open_(rules):
        path = folder / f"{next(names)}.sqlite"
        store = SQLiteStore(path, rules, **how)
        paths[id(store)] = path, rules
        return store

    def again(store):
        return SQLiteStore(*paths[id(store)], **how)

    return StoreSubject(open_, again, None if how.get("alone") else again)


NAMES = itertools.count()


def redis_subject(url):
    from nextsession.serving.redis import RedisStore

    names = {}

    def open_(rules):
        name = f"store {next(NAMES)}"
        store = RedisStore(url, rules, namespace=name)
        names[id(store)] = name, rules
        return store

    def again(store):
        name, rules = names[id(store)]
        return RedisStore(url, rules, namespace=name)

    return StoreSubject(open_, again, again)


@pytest.fixture(scope="module")
def redis(tmp_path_factory):
    """A Redis that flushes once a second, so that the tests are quick."""
    server = redis_server.RedisServer(tmp_path_factory.mktemp("redis"), appendfsync="everysec")
    yield server.start()
    server.close()


SQLITE = {"sqlite": {}, "sqlite alone": {"alone": True}, "sqlite apart": {"alone": True, "apart": True}}


@pytest.fixture(params=["memory", *SQLITE, pytest.param("redis", marks=redis_server.needed)])
def subject(request, tmp_path):
    if request.param == "memory":
        return StoreSubject(MemoryStore)
    if request.param == "redis":
        return redis_subject(request.getfixturevalue("redis").url)
    return sqlite_subject(tmp_path, **SQLITE[request.param])


@pytest.mark.parametrize("promise", CHECKS)
def test_promise(subject, promise):
    CHECKS[promise](subject)


def test_every_promise_is_a_sentence():
    for name, function in CHECKS.items():
        assert (function.__doc__ or "").strip().endswith("."), name


# -- a check is only as good as the faults it has caught -----------------------------------------


class Forgetful(MemoryStore):
    def submit(self, events, now):
        return super().submit(events[:1], now)


class Doubling(MemoryStore):
    def _add(self, event, now):
        return super()._add(
            Event(f"{event.id}{self._seq}", *[getattr(event, n) for n in event.__struct_fields__[1:]]), now
        )


class Unordered(MemoryStore):
    def record(self, visitor, now):
        found = super().record(visitor, now)
        return type(found)(found.touched, tuple(sorted(found.events, key=lambda e: e.seq)))


class Immortal(MemoryStore):
    def record(self, visitor, now):
        return super().record(visitor, 0)


class Resurrecting(MemoryStore):
    def tombstones(self):
        return []


class Amnesiac(MemoryStore):
    def rebuild(self):
        return 0


class Leaky(MemoryStore):
    def erase(self, visitor, now):
        receipt = super().erase(visitor, now)
        self._shown = [*self._shown, (self._person("x"), 1, None)]
        return receipt


class TwoFaced(MemoryStore):
    def merge(self, visitor, into, now):
        return len(list(self.known(visitor).events)) - 1 if self.known(visitor) else 0


FAULTS = {
    Forgetful: "remembers",
    Doubling: "once",
    Unordered: "any_order",
    Immortal: "silence",
    Resurrecting: "erasure",
    Amnesiac: "rebuild",
    Leaky: "erasure",
    TwoFaced: "merging",
}


def test_two_writers_that_do_not_know_of_one_another_are_noticed():
    with pytest.raises(ModelError, match=r"^two_writers: .* Found: .*the other does not know it yet"):
        check_store(StoreSubject(MemoryStore, join=lambda store: MemoryStore(store.rules)))


@pytest.mark.parametrize("fault", FAULTS)
def test_a_broken_promise_is_noticed(fault):
    with pytest.raises(ModelError, match=f"(?m)^{FAULTS[fault]}: .* Found: "):
        check_store(StoreSubject(fault))


# -- any story against a sentence of rules -------------------------------------------------------

VISITORS = ["ann", "bob", "eve"]
RULES = Rules(ttl=1000, keep=4)


class Story(RuleBasedStateMachine):
    """What is told is written down, and everything is worked out again from the beginning."""

    def make(self):
        return MemoryStore(RULES)

    @initialize()
    def begin(self):
        self.store, self.now = self.make(), NOW
        self.log, self.person, self.erased, self.seen = [], {}, {}, set()

    def who(self, visitor):
        while visitor in self.person:
            visitor = self.person[visitor]
        return visitor

    @rule(
        visitor=st.sampled_from(VISITORS), name=st.sampled_from("pqrstuvw"), back=st.integers(-DAY - 1, 50),
        label=st.integers(0, 1),
    )  # fmt: skip
    def tell(self, visitor, name, back, label):
        event = Event(name, visitor, f"item {name}", self.now - back, "click", label)
        status = self.store.append([event], self.now)[0].status
        time = min(event.time, self.now)
        if event.time > self.now + DAY or time <= self.erased.get(visitor, -1):
            expected = "refused"
        elif (self.who(visitor), name) in {(self.who(v), n) for v, n, *_ in self.log}:
            expected = "duplicate"
        else:
            expected = "accepted"
            self.log.append((visitor, name, time, self.now, label))
        assert status == expected

    @rule(time=st.sampled_from([1, 10, 400, 1001]))
    def wait(self, time):
        self.now += time

    @rule(visitor=st.sampled_from(VISITORS))
    def erase(self, visitor):
        mine = {v for v in VISITORS if self.who(v) == self.who(visitor)}
        receipt = self.store.erase(visitor, self.now)
        assert receipt.events == sum(v in mine for v, *_ in self.log)
        self.log = [row for row in self.log if row[0] not in mine]
        self.person = {a: b for a, b in self.person.items() if a not in mine}
        self.erased |= dict.fromkeys(mine, self.now)
        assert {t.digest for t in self.store.tombstones()} == {digest_of(v) for v in self.erased}

    @rule(visitor=st.sampled_from(VISITORS), into=st.sampled_from(VISITORS))
    def merge(self, visitor, into):
        one, other = self.who(visitor), self.who(into)
        self.store.merge(visitor, into, self.now)
        if one != other:
            known = {n for v, n, *_ in self.log if self.who(v) == other}
            self.log = [row for row in self.log if not (self.who(row[0]) == one and row[1] in known)]
            self.person[one] = other

    @rule()
    def rebuild(self):
        self.store.rebuild()

    @rule()
    def sweep(self):
        self.store.sweep(self.now)

    @invariant()
    def records_are_what_the_rules_say(self):
        for visitor in VISITORS:
            mine = [row for row in self.log if self.who(row[0]) == self.who(visitor)]
            run, touched = [], 0
            for place, (_, name, time, received, label) in enumerate(mine):
                run = run if received - touched <= RULES.ttl else []
                touched = received
                run.append((time, place, f"item {name}", label))
            expected = (
                [(t, i, x) for t, _, i, x in sorted(run)[-RULES.keep :]] if self.now - touched <= RULES.ttl else []
            )
            found = [(e.time, e.item, e.label) for e in self.store.record(visitor, self.now).events]
            assert found == expected

    def teardown(self):
        if hasattr(self, "store"):
            self.store.close()


TestMemoryStory = Story.TestCase


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("stories")


@pytest.mark.parametrize("alone", [False, True])
def test_sqlite_story(folder, alone, monkeypatch):
    from hypothesis.stateful import run_state_machine_as_test

    monkeypatch.setattr("nextsession.serving.committing._REMEMBERED", 9)  # so that it runs over now and then
    names = itertools.count()

    class OnDisk(Story):
        def make(self):
            return SQLiteStore(folder / f"{alone}{next(names)}.sqlite", RULES, alone=alone)

        @rule()
        def reopen(self):
            self.store.close()
            self.store = SQLiteStore(self.store._path, RULES, alone=alone)

    run_state_machine_as_test(OnDisk, settings=settings(max_examples=25, stateful_step_count=25))


@redis_server.needed
def test_redis_story(redis):
    from hypothesis.stateful import run_state_machine_as_test

    from nextsession.serving.redis import RedisStore

    class InRedis(Story):
        def make(self):
            self.name = f"story {next(NAMES)}"
            return RedisStore(redis.url, RULES, namespace=self.name)

        @rule()
        def reopen(self):
            self.store.close()
            self.store = RedisStore(redis.url, RULES, namespace=self.name)

    run_state_machine_as_test(InRedis, settings=settings(max_examples=25, stateful_step_count=25))


# -- and against one another ---------------------------------------------------------------------


def everything(store, now):
    return {
        "log": [(s.event, s.received) for s in store.events()],
        "places": [s.seq for s in store.events()],
        "shown": list(store.shown()),
        "records": [store.record(v, now) for v in VISITORS],
        "known": [store.known(v) for v in VISITORS],
        "standing": [store.standing(v) for v in VISITORS],
        "tombstones": store.tombstones(),
        "last": store.last(),
    }


def some_events(rng, now):
    return [
        Event(rng.choice("pqrstuv"), rng.choice(VISITORS), rng.choice("ab"), now - rng.randrange(40), action, label)
        for action, label in rng.choices([("click", 1), ("shown", 0), ("buy", 1)], k=rng.randrange(1, 4))
    ]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", [*SQLITE, pytest.param("redis", marks=redis_server.needed)])
def test_a_store_is_the_obvious_one_whatever_happens(kind, seed, tmp_path, request):
    """With retention, which takes events out of the log that a record still holds."""
    rng, rules, now = random.Random(seed), Rules(ttl=300, keep=5), NOW
    if kind == "redis":
        store = redis_subject(request.getfixturevalue("redis").url).open(rules)
    else:
        store = sqlite_subject(tmp_path, **SQLITE[kind]).open(rules)
    stores = [MemoryStore(rules), store]

    for place in range(120):
        now += rng.choice([0, 1, 20, 20, 350])
        acts = {
            "append": (some_events(rng, now), now),
            "submit_shown": (Shown(f"r{place}", rng.choice(VISITORS), now, "main", "v", ("x", "y")),),
            "sweep": (now,),
            "merge": (rng.choice(VISITORS), rng.choice(VISITORS), now),
            "erase": (rng.choice(VISITORS), now),
            "rebuild": (),
        }
        name = rng.choices(list(acts), [30, 5, 6, 2, 1, 1])[0]
        how = {"retention": 30} if name == "sweep" and rng.random() < 0.7 else {}
        found = [getattr(s, name)(*acts[name], **how) for s in stores]
        store.flush()
        assert found[0] == found[1], (place, name)
        assert everything(stores[0], now) == everything(store, now), (place, name)
    store.close()
