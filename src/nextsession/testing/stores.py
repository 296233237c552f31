"""The contract of stores: promises as functions.

```python no-run
from nextsession.testing.stores import StoreSubject, check_store

check_store(StoreSubject(lambda rules: MyStore(rules)))
```

Needs the extra `serve`.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise, permutations

from nextsession.errors import ModelError
from nextsession.serving.events import DAY, SHOWN, Event, Rules, Shown, digest_of
from nextsession.testing import store_sharing
from nextsession.testing.store_subjects import MINUTE, NOW, StoreSubject, click, items_of
from nextsession.testing.subjects import expect

__all__ = ["NOW", "StoreCheck", "StoreSubject", "check_store", "store_checks"]

StoreCheck = Callable[[StoreSubject], None]


def store_checks() -> Iterator[tuple[str, StoreCheck]]:
    """Give the name and the function of every promise."""
    for name, function in (globals() | vars(store_sharing)).items():
        if name.startswith("check_") and name != "check_store":
            yield name.removeprefix("check_"), function


def check_store(subject: StoreSubject) -> None:
    """Hold a kind of store to every promise.

    Raises:
        ModelError: Promises are broken; each is named, with what was found.
    """
    wrong = []
    for name, function in store_checks():
        try:
            function(subject)
        except Exception as error:  # whatever goes wrong, the promise was not kept
            promise = (function.__doc__ or "").partition("\n")[0]
            wrong.append(f"{name}: {promise} Found: {type(error).__name__}: {error}")
    if wrong:
        raise ModelError("\n".join(wrong))


def check_remembers(subject: StoreSubject) -> None:
    """An event that was acknowledged is in the record of its visitor, and of nobody else."""
    store = subject.open(Rules())
    found = store.append([click("a"), click("b", at=1), click("c", "bob")], NOW + 5)
    expect([x.status for x in found] == ["accepted"] * 3, f"three new events were {found}.")
    expect(items_of(store) == ["a", "b"], f"of a and b, {items_of(store)} is remembered.")
    expect(items_of(store, "bob") == ["c"], f"of c, {items_of(store, 'bob')} is remembered.")
    expect(items_of(store, "eve") == [], "somebody unknown has a history.")
    store.close()


def check_once(subject: StoreSubject) -> None:
    """A second arrival of an id of the same visitor changes nothing; another visitor may use the same id."""
    store = subject.open(Rules())
    first = store.append([click("a"), click("a", item="other"), click("a", "bob")], NOW)
    again = store.append([click("a", item="third", at=9)], NOW + 10)
    expect([x.status for x in first] == ["accepted", "duplicate", "accepted"], f"within a batch: {first}.")
    expect([x.status for x in again] == ["duplicate"], f"later: {again}.")
    expect(items_of(store) == ["a"], f"the record holds {items_of(store)}.")
    expect(len(list(store.events())) == 2, "the log holds a duplicate.")
    store.close()


def check_any_order(subject: StoreSubject) -> None:
    """Late events take their place by time: every order of arrival gives the same record."""
    events = [click(name, at=place) for place, name in enumerate("abcd")]
    for order in permutations(events):
        store = subject.open(Rules(keep=3))
        for event in order:
            store.append([event], NOW + MINUTE)
        expect(items_of(store) == ["b", "c", "d"], f"{[e.id for e in order]} became {items_of(store)}.")
        store.close()


def check_ties(subject: StoreSubject) -> None:
    """Events of one instant keep the order of arrival."""
    store = subject.open(Rules())
    store.append([click("b"), click("a")], NOW)
    store.append([click("c")], NOW)
    expect(items_of(store) == ["b", "a", "c"], f"b, a, c became {items_of(store)}.")
    store.close()


def check_silence(subject: StoreSubject) -> None:
    """A visitor silent for longer than `ttl` is unknown, and starts anew when heard of again."""
    store = subject.open(Rules(ttl=10 * MINUTE))
    store.append([click("a")], NOW)
    expect(items_of(store, now=NOW + 10 * MINUTE) == ["a"], "exactly as long as allowed was too long.")
    expect(items_of(store, now=NOW + 10 * MINUTE + 1) == [], "a visitor was not forgotten.")
    store.append([click("b", at=30 * MINUTE)], NOW + 30 * MINUTE)
    expect(items_of(store, now=NOW + 31 * MINUTE) == ["b"], "what was forgotten came back.")
    store.rebuild()
    expect(items_of(store, now=NOW + 31 * MINUTE) == ["b"], "what was forgotten came back with a rebuild.")
    expect(len(list(store.events())) == 2, "the log forgot too.")
    store.close()


def check_clocks(subject: StoreSubject) -> None:
    """No event is later than its arrival, and one that claims to be more than a day later is refused."""
    store = subject.open(Rules())
    found = store.append([click("a", at=DAY), click("b", at=DAY + 1)], NOW)
    expect([x.status for x in found] == ["accepted", "refused"], f"a day and more ahead: {found}.")
    expect(str(NOW + DAY + 1) in found[1].reason, f"the refusal does not say what was got: {found[1].reason}")
    expect(store.record("ann", NOW).events[0].time == NOW, "an event is later than its arrival.")
    expect([s.event.time for s in store.events()] == [NOW], "the log holds an event later than its arrival.")
    store.append([click("c", at=-5)], NOW - 3)  # our own clock was set back
    expect(items_of(store) == ["c", "a"], f"after the clock was set back: {items_of(store)}.")
    store.close()


def check_labels_and_actions(subject: StoreSubject) -> None:
    """Actions, labels and requests come back as given; what was only shown is in the log, not in the record."""
    store = subject.open(Rules())
    store.append(
        [click("a", action="buy", request="r"), click("b", at=1, label=0), click("c", at=2, action=SHOWN, label=0)],
        NOW + 9,
    )
    found = [(e.item, e.action, e.label) for e in store.record("ann", NOW + 9).events]
    expect(found == [("a", "buy", 1), ("b", "click", 0)], f"the record holds {found}.")
    logged = [(s.event.item, s.event.action, s.event.label, s.event.request) for s in store.events()]
    expected = [("a", "buy", 1, "r"), ("b", "click", 0, ""), ("c", SHOWN, 0, "")]
    expect(logged == expected, f"the log holds {logged}.")
    store.close()


def check_merging(subject: StoreSubject) -> None:
    """Two ids that were merged are one person: for the past, for the future, under either id, and each event once."""
    store = subject.open(Rules())
    store.append([click("a", "anon"), click("x", "anon", at=1), click("x", "ann", at=1), click("b", at=2)], NOW + 9)
    expect(store.merge("anon", "ann", NOW + 9) == 1, "one event moved (x was known), it says otherwise.")
    expect(store.merge("anon", "ann", NOW + 9) == store.merge("ann", "anon", NOW + 9) == 0, "merging again moved some.")
    found = store.append([click("c", "anon", at=3), click("b", "anon")], NOW + 9)
    expect([x.status for x in found] == ["accepted", "duplicate"], f"after the merge: {found}.")
    for name in ("anon", "ann"):
        expect(items_of(store, name) == ["a", "x", "b", "c"], f"{name} has {items_of(store, name)}.")
    expect({s.event.visitor for s in store.events()} == {"ann"}, "the log knows two people.")
    store.append([click("d", "tablet", at=4)], NOW + 9)
    store.merge("ann", "tablet", NOW + 9)
    expect(items_of(store, "anon") == ["a", "x", "b", "c", "d"], f"a chain of merges gives {items_of(store, 'anon')}.")
    store.rebuild()
    expect(items_of(store, "ann") == ["a", "x", "b", "c", "d"], f"a rebuild gives {items_of(store)}.")
    store.close()


def check_erasure(subject: StoreSubject) -> None:
    """After an erasure nothing is held of the visitor; older events are refused for ever, newer ones taken."""
    store = subject.open(Rules())
    store.append([click("a"), click("b", "bob")], NOW)
    store.submit_shown(Shown("r1", "ann", NOW, "main", "v1", ("x", "y")))
    store.flush()
    receipt = store.erase("ann", NOW + MINUTE)
    expect((receipt.events, receipt.impressions, receipt.identities) == (1, 1, 1), f"the receipt says {receipt}.")
    expect(receipt.tombstone == digest_of("ann"), "the tombstone does not stand under the digest of the id.")
    expect(store.known("ann") is None, "something is still known.")
    expect([s.event.visitor for s in store.events()] == ["bob"], "the log still holds it, or lost others.")
    expect(list(store.shown()) == [], "a list that was shown is still there.")
    found = store.append([click("a"), click("late", at=MINUTE), click("new", at=MINUTE + 1)], NOW + 2 * MINUTE)
    expect([x.status for x in found] == ["refused", "refused", "accepted"], f"after the erasure: {found}.")
    store.submit_shown(Shown("r2", "ann", NOW, "main", "v1", ("x",)))  # was on its way
    store.flush()
    expect(list(store.shown()) == [], "a list from before the erasure came back.")
    expect(items_of(store) == ["new"], f"the record holds {items_of(store)}.")
    expect(store.tombstones() == [(digest_of("ann"), NOW + MINUTE)], f"the tombstones are {store.tombstones()}.")
    nobody = store.erase("nobody", NOW)
    expect((nobody.events, len(store.tombstones())) == (0, 2), "somebody unknown can be barred as well.")
    store.close()


def check_erasure_of_all_identities(subject: StoreSubject) -> None:
    """Erasing one of several merged ids erases the person, and leaves a tombstone for each id."""
    store = subject.open(Rules())
    store.append([click("a", "anon"), click("b", "ann")], NOW)
    store.merge("anon", "ann", NOW)
    receipt = store.erase("anon", NOW)
    expect((receipt.events, receipt.identities) == (2, 2), f"the receipt says {receipt}.")
    expect({t.digest for t in store.tombstones()} == {digest_of("anon"), digest_of("ann")}, "an id has no tombstone.")
    expect(store.known("ann") is None, "something is still known.")
    store.append([click("c", "ann", at=1)], NOW + 1)
    expect(items_of(store, "anon") == [], "the ids are still one person.")
    store.close()


def check_standing(subject: StoreSubject) -> None:
    """A visitor stands under all ids that were merged, each with when it was erased; somebody unknown under one."""
    store = subject.open(Rules())
    expect(store.standing("ann") == {"ann": None}, f"somebody unknown stands under {store.standing('ann')}.")
    store.append([click("a", "anon"), click("b", "ann")], NOW)
    store.merge("anon", "ann", NOW)
    expect(store.standing("anon") == {"ann": None, "anon": None}, f"after a merge: {store.standing('anon')}.")
    store.erase("ann", NOW + 5)
    expect(store.standing("anon") == {"anon": NOW + 5}, f"after the erasure: {store.standing('anon')}.")
    store.append([click("c", "ann", at=6)], NOW + 6)
    expect(store.standing("ann") == {"ann": NOW + 5}, f"back again: {store.standing('ann')}.")
    store.close()


def check_shown(subject: StoreSubject) -> None:
    """Lists that were shown come back whole and in order, under the id that their visitor was merged into."""
    store = subject.open(Rules())
    lists = [
        Shown(f"r{i}", "anon", NOW + i, "main", "v1", ("x", f"y{i}"), shadow=i == 1, explored={"x": 0.25} if i else {})
        for i in range(3)
    ]
    for shown in lists:
        store.submit_shown(shown)
    store.flush()
    expect([s for _, s in store.shown()] == lists, "a list changed.")
    places = [place for place, _ in store.shown()]
    expect([s for _, s in store.shown(after=places[0], limit=1)] == lists[1:2], "after and limit are not kept.")
    expect(items_of(store, "anon") == [], "what was shown is in the record.")
    store.merge("anon", "ann", NOW)
    known = store.known("anon")
    expect(known is not None and {s.visitor for s in known.shown} == {"ann"}, "a list has the old id after a merge.")
    store.close()


def check_log(subject: StoreSubject) -> None:
    """The log gives every event once, in the order of arrival, from any place on."""
    store = subject.open(Rules())
    names = [f"e{i}" for i in range(50)]
    for place in range(0, 50, 7):
        store.append([click(n, at=-i) for i, n in enumerate(names[place : place + 7])], NOW + place)
    found = list(store.events())
    expect([s.event.id for s in found] == names, "the log has another order.")
    expect(
        [s.received for s in found] == [NOW + i // 7 * 7 for i in range(50)], "the log has other instants of arrival."
    )
    seqs = [s.seq for s in found]
    expect(seqs == sorted(set(seqs)), "places do not rise.")
    for after in (0, 20, 49):
        expect([s.seq for s in store.events(after=seqs[after])] == seqs[after + 1 :], f"after place {after}: others.")
    expect([s.seq for s in store.events(limit=3)] == seqs[:3], "the limit is not kept.")
    expect(store.last() >= seqs[-1], "the newest place is not the newest.")
    store.erase("ann", NOW + MINUTE)
    store.append([click("z", "bob")], NOW + MINUTE)
    expect([s.seq > seqs[-1] for s in store.events()] == [True], "a place was given away twice.")
    store.close()


def check_rebuild(subject: StoreSubject) -> None:
    """Records made again from the log are the records there were."""
    store = subject.open(Rules(keep=4))
    for i in range(40):
        store.append([click(f"e{i}", f"v{i % 3}", at=i * 7919 % 41)], NOW + i)
    before = [store.record(f"v{v}", NOW + DAY) for v in range(3)]
    expect(store.rebuild() == 3, "three visitors have a record, it says otherwise.")
    expect(before == [store.record(f"v{v}", NOW + DAY) for v in range(3)], "a record changed.")
    store.close()


def check_sweeping(subject: StoreSubject) -> None:
    """A sweep drops the records of the silent and leaves the log, unless told how long to retain it."""
    store = subject.open(Rules(ttl=MINUTE))
    store.append([click("a")], NOW)
    store.append([click("b", "bob", at=2 * MINUTE)], NOW + 2 * MINUTE)
    expect(store.sweep(NOW + 2 * MINUTE) == 1, "one was silent, it says otherwise.")
    expect(items_of(store, "bob", NOW + 2 * MINUTE) == ["b"], "somebody heard of lately was forgotten.")
    expect(len(list(store.events())) == 2, "the log lost events.")
    store.sweep(NOW + 1000 * DAY, retention=MINUTE)  # a clock gone mad must not empty the log
    expect([s.event.id for s in store.events()] == ["b"], "retention is not counted from the newest event.")
    store.append([click("c", at=1000 * DAY)], NOW + 1000 * DAY)  # it was mad when an event came, and is right again
    store.sweep(NOW + 2 * MINUTE, retention=MINUTE)
    store.append([click("d", at=-1000 * DAY)], NOW - 1000 * DAY)  # and mad the other way
    store.append([click("e", at=2 * MINUTE)], NOW + 2 * MINUTE)
    store.sweep(NOW + 2 * MINUTE, retention=MINUTE)
    found = [s.event.id for s in store.events()]
    expect(found == ["b", "c", "d", "e"], f"of b to e, that came while the clock was wrong, {found} are left.")
    store.close()


def check_rewritten(subject: StoreSubject) -> None:
    """Whoever follows the log hears that entries were merged, erased or removed by age, and of nothing else."""
    store = subject.open(Rules())
    store.append([click("a", "anon"), click("b", "ann"), click("c", "bob")], NOW)
    store.submit_shown(Shown("r1", "eve", NOW, "main", "v1", ("x",)))
    store.flush()
    counted = [store.rewritten()]
    for change in (
        lambda: store.merge("anon", "ann", NOW),
        lambda: store.merge("eve", "bob", NOW),
        lambda: store.erase("ann", NOW),
        lambda: store.append([click("d", "bob", at=DAY)], NOW + DAY),
        lambda: store.sweep(NOW + DAY, retention=MINUTE),
    ):
        change()
        counted.append(store.rewritten())
    rose = [b > a for a, b in pairwise(counted)]
    expect(rose == [True, True, True, False, True], f"it rose after these changes: {rose}.")
    store.merge("nobody", "bob", NOW + DAY)
    store.erase("somebody", NOW + DAY)
    store.sweep(NOW + DAY, retention=DAY)
    store.note("x", "y")
    expect(store.rewritten() == counted[-1], "it rose, and nothing in the log was changed.")
    store.close()


def check_notes(subject: StoreSubject) -> None:
    """Notes are kept until they are changed or removed."""
    store = subject.open(Rules())
    expect(store.noted("x") is None, "there is a note that nobody made.")
    store.note("x", "1")
    store.note("x", "2")
    expect(store.noted("x") == "2", "a note did not change.")
    store.note("x", None)
    expect(store.noted("x") is None, "a note was not removed.")
    store.close()


def check_strange_ids(subject: StoreSubject) -> None:
    """Ids may hold whatever text holds."""
    store = subject.open(Rules())
    strange = ["", " ", "a\x00b", "a", "é", "'; DROP TABLE events; --", "\U0001f9ac" * 100, "%00", "<b>", "\n"]
    for visitor in strange:
        store.append([Event(name, visitor, name, NOW) for name in strange], NOW)
    for visitor in strange:
        expect(items_of(store, visitor) == strange, f"{visitor!r} has {items_of(store, visitor)}.")
    store.close()


def check_nothing(subject: StoreSubject) -> None:
    """No event is no error."""
    store = subject.open(Rules())
    expect(store.append([], NOW) == [], "no event had an outcome.")
    expect(list(store.events()) == [], "there is an event.")
    expect(store.rebuild() == store.sweep(NOW) == store.last() == 0, "something is in an empty store.")
    store.close()
    store.close()


def check_health(subject: StoreSubject) -> None:
    """Health says that all is well while it is."""
    store = subject.open(Rules())
    store.append([click("a")], NOW)
    health = store.health()
    expect(health["ok"] is True and health["error"] is None, f"all is well, it says {health}.")
    store.close()
